package trainer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
)

// rowMemory gives each record of a file, in the file's order, its memory.
type rowMemory struct {
	store *memory.Store // nil: the contract declares none
	out   []float64
	known *fileKnown // nil: it is not of labels
}

func newRowMemory(p *memory.Plan, known *fileKnown) *rowMemory {
	if p == nil {
		return &rowMemory{}
	}
	return &rowMemory{store: memory.New(p), out: make([]float64, p.Width()), known: known}
}

// repeatedRow says that an earlier row has the id, and so is the one that counts.
type repeatedRow struct{ memory.Verdict }

func (r *repeatedRow) Error() string {
	if r.Conflict {
		return fmt.Sprintf("its id is that of line %d, which holds something else", r.First)
	}
	return fmt.Sprintf("it repeats line %d", r.First)
}

// step folds rec, of that row, and sets its features. If another error than a *repeatedRow comes back, the file cannot be used. All
// rows count as stored at one moment, as if the file were ingested at once: ids do not grow old.
func (r *rowMemory) step(rec *events.Record, columns []string, row *source.Row) error {
	if r.store == nil {
		return nil
	}
	cells := row.Cells
	if r.known != nil {
		r.known.before(r.store, rec.Time)
	}
	if v := r.store.Step(memory.Event{Record: rec, Seq: uint64(row.Line)}, r.out); v.Repeated() {
		return &repeatedRow{v}
	}
	rec.SetMemory(r.out)
	if r.known != nil {
		return r.known.after(rec, columns, cells)
	}
	return nil
}

// FileFeatures writes the memory of each row of a file as CSV, as if the rows had come as events in the file's order: row (from 0, invalid ones
// counted), id, entity, and the contract's features; a missing value is an empty cell. It returns how many rows were invalid or
// repeat another, and the first fault.
func FileFeatures(ctx context.Context, path string, o source.Options, c events.Contract, l FileLabels, w io.Writer) (invalid int, first error, err error) {
	schema, err := events.Compile(c)
	if err != nil {
		return 0, nil, err
	}
	plan, err := memory.Compile(schema)
	if err != nil {
		return 0, nil, err
	}
	if plan == nil {
		return 0, nil, fmt.Errorf("contract %s declares no memory", c.Kind)
	}
	label, positive := "", []string(nil)
	if c.Label != nil {
		label, positive = c.Label.Column, c.Label.Positive
	}
	known, err := newFileKnown(plan, l, label, positive)
	if err != nil {
		return 0, nil, err
	}
	out := NewFeatureWriter(w, "row", plan)
	r := newRowMemory(plan, known)
	var rec events.Record
	n := uint64(0)
	_, err = scan(ctx, path, o, func(columns []string, row source.Row, fault error) error {
		n++
		if fault == nil {
			fault = readRow(schema, &rec, columns, row.Cells, label)
		}
		if fault == nil {
			err := r.step(&rec, columns, &row)
			if _, again := errors.AsType[*repeatedRow](err); again {
				fault = err
			} else if err != nil {
				return fmt.Errorf("line %d: %w", row.Line, err)
			}
		}
		if fault != nil {
			if invalid++; first == nil {
				first = fmt.Errorf("%s:%d: %w", path, row.Line, fault)
			}
			return nil
		}
		return out.Write(n-1, string(rec.ID), string(rec.Entity), r.out)
	})
	return invalid, first, errors.Join(err, out.Flush())
}

// FeatureWriter writes features as CSV, numbers in the shortest form that reads back to the same bits.
type FeatureWriter struct {
	b    *bufio.Writer
	line []byte
}

// NewFeatureWriter writes the header; the first column is named place.
func NewFeatureWriter(w io.Writer, place string, p *memory.Plan) *FeatureWriter {
	f := &FeatureWriter{b: bufio.NewWriter(w)}
	f.line = append(f.line, place+",id,entity"...)
	for _, x := range p.Schema.Contract.Memory.Features {
		f.line = appendCell(append(f.line, ','), x.Name)
	}
	f.b.Write(append(f.line, '\n')) // an error comes back from Flush
	return f
}

func (f *FeatureWriter) Write(place uint64, id, entity string, features []float64) error {
	f.line = strconv.AppendUint(f.line[:0], place, 10)
	f.line = appendCell(append(f.line, ','), id)
	f.line = appendCell(append(f.line, ','), entity)
	for _, x := range features {
		if f.line = append(f.line, ','); !math.IsNaN(x) {
			f.line = strconv.AppendFloat(f.line, x, 'g', -1, 64)
		}
	}
	_, err := f.b.Write(append(f.line, '\n'))
	return err
}

func (f *FeatureWriter) Flush() error { return f.b.Flush() }

// appendCell quotes a cell of CSV where it must be.
func appendCell(dst []byte, text string) []byte {
	plain := true
	for i := range len(text) {
		switch text[i] {
		case '"', ',', '\n', '\r':
			plain = false
		}
	}
	if plain {
		return append(dst, text...)
	}
	dst = append(dst, '"')
	for i := range len(text) {
		if text[i] == '"' {
			dst = append(dst, '"')
		}
		dst = append(dst, text[i])
	}
	return append(dst, '"')
}
