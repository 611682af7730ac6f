// Package ingest takes events and labels in, from files and over HTTP: it checks them against their
// kind's contract, publishes them, and calls nothing accepted before the broker has acknowledged it.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/jetstream"
	"github.com/riskweir/riskweir/pkg/events"
)

// Errors of File.Run that a caller may branch on.
var (
	// ErrTaken says that another ingest has moved the position of this source. What this one had committed stays.
	ErrTaken = errors.New("another ingest of this source is running")
	// ErrOtherFile says that the position under this name is one in another file.
	ErrOtherFile = errors.New("the source's name belongs to another file")
	// ErrBadRow ends a strict ingest. The rows before the bad one are committed.
	ErrBadRow = errors.New("bad row")
)

// FileConfig says what file to ingest, and how.
type FileConfig struct {
	Conn   *nats.Conn
	Log    *zap.Logger
	Schema *events.Schema // of the kind

	Path       string // "-": stdin
	Format     source.Options
	SourceName string // under which the position is kept, and a part of generated ids; empty: the file's base name, or "stdin"

	EntityKey []byte // for a contract with entity_hash

	Labels  bool // the file holds labels (see labelRow), not events
	History bool // the events feed training only; their labels are published at once

	// LabelDelay is how long after a row's event its label is published, where the contract names a label column.
	// Zero: together with the event; negative: never. A delay needs a file that can be read twice.
	LabelDelay time.Duration

	Rate        float64        // rows a second; 0: as fast as they are accepted
	Strict      bool           // the first bad row is an error
	InvalidPath string         // where bad rows go; empty: Path (or the source's name) and ".invalid.jsonl"
	Patience    time.Duration  // how long to try without the broker accepting anything; 0: five minutes
	Progress    func(Progress) // called after every commit, never by two goroutines at once; may be nil
}

// Progress is how far an ingest has come, earlier runs included.
type Progress struct {
	Rows    int64 // committed, bad ones included
	Invalid int64
	Labels  int64 // rows whose labels, if they have any, are published; grows only with a delay
	Read    int64 // bytes of the file as it lies on disk
	Size    int64 // of the file; 0: not known
	Done    bool  // the file's end is committed; its delayed labels may be to come
}

const (
	batchRows     = 500     // leaves room for the position within jetstream.MaxBatch
	batchBytes    = 4 << 20 // of event bodies
	commitTimeout = 5 * time.Second
	patience      = 5 * time.Minute
)

// committer is jetstream.Committer, or one that loses answers.
type committer interface {
	Commit(ctx context.Context, msgs []*nats.Msg) (uint64, error)
}

// File ingests one file:
//
//	           ┌─ events feed ── rows ─► events + position ──── one atomic batch ─► EVENTS_<kind>
//	file ──────┤                                   │ when and how far
//	           └─ labels feed ── rows ─► labels ◄──┘ after the delay ─► LABELS, then its own position
//
// The labels feed exists with a delay only; without one, and with a file of labels, the one feed publishes a batch's labels
// before it commits. A label is a claim that may be repeated, so at least once is enough.
type File struct {
	cfg     FileConfig
	kind    string
	name    string // of the source
	commit  committer
	labels  committer // to LABELS
	invalid invalidFile
	most    int // rows of a batch

	mu       sync.Mutex // orders the calls of Progress
	progress Progress
}

// NewFile checks cfg. It does no I/O.
func NewFile(cfg FileConfig) (*File, error) {
	switch {
	case cfg.Conn == nil || cfg.Schema == nil || cfg.Log == nil:
		return nil, errors.New("ingest: a connection, a schema and a logger are needed")
	case cfg.Path == "":
		return nil, errors.New("ingest: no file is named")
	case cfg.Rate < 0:
		return nil, fmt.Errorf("ingest: rate %v: want rows a second, or 0 for no limit", cfg.Rate)
	case cfg.Schema.Contract.EntityHash && cfg.EntityKey == nil:
		return nil, fmt.Errorf("ingest: kind %s stores entities under a hash: give --entity-key", cfg.Schema.Contract.Kind)
	case cfg.Labels && cfg.History:
		return nil, errors.New("ingest: a file holds either labels or history")
	}
	f := &File{cfg: cfg, kind: cfg.Schema.Contract.Kind, name: cfg.SourceName, most: batchRows}
	if f.name == "" {
		if f.name = filepath.Base(cfg.Path); cfg.Path == "-" {
			f.name = "stdin"
		}
	}
	if f.cfg.Patience == 0 {
		f.cfg.Patience = patience
	}
	if f.hasLabels() {
		switch c := &cfg.Schema.Contract; {
		case c.ID == "":
			return nil, fmt.Errorf("ingest: kind %s names no id field, so a label could not say which event it is for: "+
				"add a line such as `id: id` to its contract, or ingest without labels (--label-delay -1s)", f.kind)
		case f.delayed() && cfg.Path == "-":
			return nil, errors.New("ingest: delayed labels need a file that can be read twice, not stdin")
		}
	}
	f.invalid = invalidFile{path: cfg.InvalidPath, kind: f.kind, source: f.name}
	if f.invalid.path == "" {
		if f.invalid.path = cfg.Path + ".invalid.jsonl"; cfg.Path == "-" {
			f.invalid.path = f.name + ".invalid.jsonl"
		}
	}
	f.commit = &jetstream.Committer{Conn: cfg.Conn, Stream: events.EventsStream(f.kind), Timeout: commitTimeout}
	f.labels = &jetstream.Committer{Conn: cfg.Conn, Stream: events.LabelsStream, Timeout: commitTimeout}
	return f, nil
}

// InvalidPath is the file that bad rows are written to, with the reason of each.
func (f *File) InvalidPath() string { return f.invalid.path }

// hasLabels says whether rows of events may bring labels with them.
func (f *File) hasLabels() bool {
	return !f.cfg.Labels && f.cfg.LabelDelay >= 0 && f.cfg.Schema.Contract.Label != nil
}

func (f *File) delayed() bool { return f.hasLabels() && f.cfg.LabelDelay > 0 && !f.cfg.History }

// Run ingests from where the last run of the same source has come to, and returns when the file's end is
// committed and all of its labels are published. Interrupted anywhere and run again, it adds no event twice and
// skips none. (Only a read from stdin that blocks outlives it.)
func (f *File) Run(ctx context.Context) error {
	defer f.invalid.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	main := feed{f: f, name: f.name, mode: "events", log: f.cfg.Log, check: f.cfg.Schema.CheckColumns, convert: f.eventRow(new(events.Record))}
	if f.cfg.Labels {
		main.mode, main.check, main.convert = "labels", f.checkLabelColumns, f.labelRow
	}
	main.moved = func(p events.SourcePosition, read, size int64) {
		f.tell(func(g *Progress) {
			g.Rows, g.Invalid, g.Done, g.Read, g.Size = p.Rows, p.Invalid, p.Done, read, size
		})
	}
	if !f.delayed() {
		return f.wrap(main.run(ctx))
	}

	marks := newMarks(f.cfg.LabelDelay)
	moved := main.moved
	main.moved = func(p events.SourcePosition, read, size int64) {
		marks.add(p.Rows, time.Now())
		moved(p, read, size)
	}
	main.recalled = func(p events.SourcePosition, stored time.Time) { marks.add(p.Rows, stored) }
	late := feed{f: f, name: f.name + " labels", mode: "delayed labels", log: f.cfg.Log, check: f.cfg.Schema.CheckColumns, convert: f.delayedLabelRow(new(events.Record)), gate: marks.wait}
	late.moved = func(p events.SourcePosition, _, _ int64) { f.tell(func(g *Progress) { g.Labels = p.Rows }) }
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := late.run(ctx); err != nil {
			cancel(err)
		}
	}()
	if err := main.run(ctx); err != nil {
		cancel(err)
	} else {
		marks.close()
	}
	<-done
	return f.wrap(context.Cause(ctx)) // the first error, if any
}

func (f *File) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ingest %s: %w", f.cfg.Path, err)
}

func (f *File) tell(change func(*Progress)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.progress)
	if f.cfg.Progress != nil {
		f.cfg.Progress(f.progress)
	}
}
