package ingest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// errMoved says that, before this run had committed anything, the position was found to have moved: a batch of a
// run before was still on its way, or another ingest is at work.
var errMoved = errors.New("the position has moved")

const (
	maxStarts   = 3
	linger      = 50 * time.Millisecond // of an unfinished batch, when rows come slowly
	paceEvery   = 100 * time.Millisecond
	retryPause  = 50 * time.Millisecond
	retryLonger = 2 * time.Second // what the pause doubles up to
	loggedRows  = 20
)

// feed carries the rows of one file to the broker, under one position.
//
//	every row before pos.Rows is in its stream exactly once, or among the bad rows; none after it is
//	a batch is stored only where seq is still the last sequence of the position's subject
type feed struct {
	f       *File
	name    string // of the position
	mode    string // stands in the fingerprint: what is made of the rows
	log     *zap.Logger
	check   func(columns []string) error                    // of a table, before any row
	convert func(*source.Row, *source.Reader) (made, error) // the error is an *events.InvalidError

	gate     func(ctx context.Context, index int64) error // returns when a row may go, io.EOF where the feed ends before it; may be nil
	recalled func(p events.SourcePosition, stored time.Time)
	moved    func(p events.SourcePosition, read, size int64)

	// Owned by the goroutine of run.
	subject   string
	token     string // of this run
	pos       events.SourcePosition
	seq       uint64 // of pos in the stream; 0: not stored yet
	committed bool   // by this run
	logged    int
	pace      pace
}

// made is what one row becomes; all of it may be empty.
type made struct {
	event *nats.Msg
	label *nats.Msg
}

// ready is a row on its way from the reader to the committer.
type ready struct {
	made
	bad      *BadRow
	end      int64
	rows     int64 // of the file, up to and including this one
	nextLine int64
	err      error // the reader's end: io.EOF, or what stopped it
}

func (d *feed) run(ctx context.Context) error {
	d.token = nuid.Next()
	d.pace = pace{rate: d.f.cfg.Rate}
	if d.gate != nil {
		d.pace.rate = 0 // the gate sets the pace
	}
	var err error
	if d.subject, err = events.SourcePositionSubject(d.f.kind, d.name); err != nil {
		return fmt.Errorf("source name %q: %w", d.name, err)
	}
	for start := 1; ; start++ {
		err := d.once(ctx)
		if !errors.Is(err, errMoved) {
			return err
		}
		if start == maxStarts {
			return d.taken()
		}
	}
}

func (d *feed) taken() error {
	return fmt.Errorf("%w (source %q of kind %s): let it finish, or give this one a name of its own with --source-name", ErrTaken, d.f.name, d.f.kind)
}

// once reads the file from the position on.
func (d *feed) once(ctx context.Context) error {
	r, err := source.Open(d.f.cfg.Path, d.f.cfg.Format)
	if err != nil {
		return err
	}
	defer r.Close()
	if columns := r.Columns(); columns != nil {
		if err := d.check(columns); err != nil {
			return fmt.Errorf("its header: %w", err)
		}
	}
	if err := d.recall(ctx, r); err != nil {
		return err
	}
	rows := make(chan ready, 64)
	ended := make(chan struct{})
	readCtx, stop := context.WithCancel(ctx)
	go func() {
		defer close(ended)
		d.read(readCtx, r, rows)
	}()
	defer func() {
		stop()
		if d.f.cfg.Path != "-" {
			r.Close() // wakes a read from a pipe
			<-ended
		}
	}()
	for {
		b, err := d.gather(ctx, rows)
		if err != nil {
			return err
		}
		if err := d.pace.wait(ctx, b.rows-d.pos.Rows); err != nil {
			return err
		}
		if err := d.store(ctx, r, b); err != nil {
			return err
		}
		switch {
		case errors.Is(b.err, io.EOF):
			return nil
		case b.err != nil:
			return b.err
		}
	}
}

// recall takes up the position, and moves r there.
func (d *feed) recall(ctx context.Context, r *source.Reader) error {
	stored, err := readPosition(ctx, d.f.cfg.Conn, d.f.kind, d.subject)
	if err != nil {
		return err
	}
	d.seq, d.pos = stored.seq, stored.SourcePosition
	fingerprint := d.mode + " of " + r.Fingerprint()
	if d.seq == 0 {
		d.pos = events.SourcePosition{Name: d.f.name, Fingerprint: fingerprint}
		return nil
	}
	if !sameFile(d.pos.Fingerprint, d.mode, r.Matches) {
		return fmt.Errorf("%w: the position of source %q of kind %s, at row %d, is one in another file, or in this file read as something else; "+
			"to ingest this file from its beginning, give it a name of its own with --source-name", ErrOtherFile, d.f.name, d.f.kind, d.pos.Rows)
	}
	if err := r.ResumeAt(d.pos.Offset, d.pos.Rows, d.pos.Line); err != nil {
		return err
	}
	d.pos.Fingerprint = fingerprint // of a file that has grown perhaps
	if d.recalled != nil {
		d.recalled(d.pos, stored.at)
	}
	read, size := r.Progress()
	d.moved(d.pos, read, size)
	return nil
}

// read sends every row, what ended the reading last.
func (d *feed) read(ctx context.Context, r *source.Reader, rows chan<- ready) {
	send := func(x ready) bool {
		select {
		case rows <- x:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for index := d.pos.Rows; ; index++ {
		if d.gate != nil {
			if err := d.gate(ctx, index); err != nil {
				send(ready{err: err})
				return
			}
		}
		row, err := r.Next()
		x := ready{end: row.End, rows: row.Index + 1, nextLine: row.Line + int64(bytes.Count(row.Raw, []byte{'\n'})) + 1}
		var malformed *source.RowError
		switch {
		case err == nil:
			if x.made, err = d.convert(&row, r); err != nil {
				x.bad = d.badRow(&row, err)
			}
		case errors.As(err, &malformed):
			x.bad = d.badRow(&row, nil)
			x.bad.Reason, x.bad.Text = malformed.Reason, malformed.Text
		default:
			send(ready{err: err})
			return
		}
		if !send(x) {
			return
		}
	}
}

func (d *feed) badRow(row *source.Row, err error) *BadRow {
	b := &BadRow{File: d.f.cfg.Path, Line: row.Line, Row: row.Index + 1, Kind: d.f.kind, Source: d.f.name, Text: string(row.Raw)}
	var invalid *events.InvalidError
	switch {
	case errors.As(err, &invalid):
		b.Field, b.Reason = invalid.Field, invalid.Reason
	case err != nil:
		b.Reason = err.Error()
	}
	return b
}

// batch is what is committed at once.
type batch struct {
	events, labels []*nats.Msg
	bad            []BadRow
	bytes          int
	end            int64
	rows, nextLine int64
	err            error // what follows the batch: nil, io.EOF, or what stopped the reading
}

// gather waits for a row, then takes what comes within linger, up to a batch. A batch in which nothing is new has an err.
func (d *feed) gather(ctx context.Context, rows <-chan ready) (batch, error) {
	b := batch{end: d.pos.Offset, rows: d.pos.Rows, nextLine: d.pos.Line}
	most := d.pace.most(d.f.most)
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for {
		late := timer.C
		if b.rows == d.pos.Rows {
			late = nil
		}
		select {
		case <-ctx.Done():
			return b, ctx.Err()
		case <-late:
			return b, nil
		case x := <-rows:
			if b.err = x.err; x.err != nil {
				return b, nil
			}
			if b.rows == d.pos.Rows {
				timer.Reset(linger)
			}
			if x.bad != nil && d.f.cfg.Strict && d.gate == nil {
				b.err = fmt.Errorf("%w: %s", ErrBadRow, x.bad)
				return b, nil
			}
			b.add(x)
			if b.rows-d.pos.Rows >= int64(most) || b.bytes >= batchBytes {
				return b, nil
			}
		}
	}
}

func (b *batch) add(x ready) {
	b.end, b.rows, b.nextLine = x.end, x.rows, x.nextLine
	if x.bad != nil {
		b.bad = append(b.bad, *x.bad)
		b.bytes += len(x.bad.Text)
	}
	if x.event != nil {
		b.events = append(b.events, x.event)
		b.bytes += len(x.event.Data)
	}
	if x.label != nil {
		b.labels = append(b.labels, x.label)
		b.bytes += len(x.label.Data)
	}
}

// store makes a batch last. If we die between two of its steps, the next run does all of them again: bad
// rows are told apart by their number, labels may be repeated, and of events and position both or neither are there.
func (d *feed) store(ctx context.Context, r *source.Reader, b batch) error {
	next := d.pos
	next.Offset, next.Rows, next.Line = b.end, b.rows, b.nextLine
	next.Done = errors.Is(b.err, io.EOF)
	if next == d.pos && d.seq != 0 {
		return nil
	}
	if d.gate == nil { // the feed of delayed labels meets the same bad rows again
		next.Invalid += int64(len(b.bad))
		d.report(b.bad)
		if err := d.f.invalid.add(b.bad); err != nil {
			return err
		}
	}
	if err := d.publishLabels(ctx, b.labels); err != nil {
		return err
	}
	msg, err := positionMsg(d.subject, d.token, next)
	if err != nil {
		return err
	}
	jetstream.Fence(msg, d.seq)
	if err := d.commit(ctx, append(b.events, msg), next); err != nil {
		return err
	}
	d.committed = true
	read, size := r.Progress()
	d.moved(d.pos, read, size)
	return nil
}

// commit stores msgs, the last of which is the position next, and returns only when it is known that they are
// stored, or that they never will be. While the result of an attempt is not known the same messages
// are sent again under the same fence: the server takes at most one of the attempts.
func (d *feed) commit(ctx context.Context, msgs []*nats.Msg, next events.SourcePosition) error {
	try := d.f.newTries()
	for {
		seq, err := d.f.commit.Commit(ctx, msgs)
		if err == nil {
			d.seq, d.pos = seq, next
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.Is(err, jetstream.ErrRefused) && !errors.Is(err, jetstream.ErrInFlight) {
			switch done, settled := d.settle(ctx, next); {
			case settled != nil:
				return settled
			case done:
				return nil
			}
		}
		if err := try.again(ctx, d.log, err); err != nil {
			return err
		}
	}
}

// settle looks whether an attempt whose result is not known has been stored after all. That it is not there says
// nothing: it may still be on its way.
func (d *feed) settle(ctx context.Context, next events.SourcePosition) (done bool, err error) {
	stored, err := readPosition(ctx, d.f.cfg.Conn, d.f.kind, d.subject)
	switch {
	case err != nil || stored.seq <= d.seq:
		return false, nil // not to be seen now
	case stored.run == d.token:
		d.seq, d.pos = stored.seq, next
		return true, nil
	case !d.committed:
		return false, errMoved
	}
	return false, d.taken()
}

// publishLabels returns when all of msgs are stored, some twice perhaps.
func (d *feed) publishLabels(ctx context.Context, msgs []*nats.Msg) error {
	if len(msgs) == 0 {
		return nil
	}
	try := d.f.newTries()
	for {
		_, err := d.f.labels.Commit(ctx, msgs)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := try.again(ctx, d.log, err); err != nil {
			return err
		}
	}
}

func (d *feed) report(bad []BadRow) {
	for i := range bad {
		if d.logged++; d.logged > loggedRows {
			return
		}
		d.log.Warn("bad row", zap.String("file", bad[i].File), zap.Int64("line", bad[i].Line),
			zap.String("field", bad[i].Field), zap.String("reason", bad[i].Reason))
		if d.logged == loggedRows {
			d.log.Warn("further bad rows are only written to the file", zap.String("file", d.f.invalid.path))
		}
	}
}
