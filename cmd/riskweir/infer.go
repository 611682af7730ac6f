package main

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/riskweir/riskweir/internal/ingest"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
)

// inferRows bounds how much of a file a contract is inferred from.
const inferRows = 200_000

type inferFlags struct {
	kind    string // empty: from the file's name
	format  source.Options
	options events.InferOptions
}

// inferFile makes a contract of what a file holds, and notes on what a person should look at.
func inferFile(file string, f inferFlags) (events.Contract, []string, error) {
	if f.kind == "" {
		f.kind = kindOf(file)
	}
	r, err := source.Open(file, f.format)
	if err != nil {
		return events.Contract{}, nil, err
	}
	defer r.Close()
	var failed error
	bad := 0
	rows := func(yield func(source.Row) bool) {
		for n := 0; n < inferRows; n++ {
			row, err := r.Next()
			var malformed *source.RowError
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.As(err, &malformed):
				bad++
				continue
			case err != nil:
				failed = err
				return
			}
			if !yield(row) {
				return
			}
		}
	}
	var c events.Contract
	var notes []string
	if r.Format() == source.JSONLines {
		c, notes, err = events.InferJSON(f.kind, mapSeq(rows, func(row source.Row) []byte { return row.JSON }), f.options)
	} else {
		c, notes, err = events.InferContract(f.kind, r.Columns(), mapSeq(rows, func(row source.Row) []string { return row.Cells }), f.options)
	}
	if err = errors.Join(failed, err); err != nil {
		return c, notes, fmt.Errorf("infer a contract from %s: %w", file, err)
	}
	if c.ID == "" {
		// Rows without an id get <file>#<row>, and that must have a place in the event.
		c.ID = freeName(c, "id")
		notes = append(notes, fmt.Sprintf("no column is an id: each row gets %s#<row> as its %s", filepath.Base(file), c.ID))
	}
	if c.Label == nil {
		notes = append(notes, "no column is the label (--label COL): nothing will be learned from this file")
	}
	if bad > 0 {
		notes = append(notes, fmt.Sprintf("%d malformed rows were left out", bad))
	}
	return c, notes, c.Validate()
}

func mapSeq[A, B any](in iter.Seq[A], f func(A) B) iter.Seq[B] {
	return func(yield func(B) bool) {
		for a := range in {
			if !yield(f(a)) {
				return
			}
		}
	}
}

func freeName(c events.Contract, name string) string {
	for _, f := range c.Fields {
		if f.Name == name {
			return freeName(c, "event_"+name)
		}
	}
	return name
}

// kindOf makes a kind's name of a file's.
func kindOf(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".")
	name = strings.Map(func(r rune) rune {
		switch {
		case r < 128 && (unicode.IsLetter(r) || unicode.IsDigit(r)):
			return unicode.ToLower(r)
		}
		return '_'
	}, name)
	name = strings.TrimLeft(name, "_0123456789")
	if len(name) > 32 {
		name = name[:32]
	}
	if name == "" {
		return "event"
	}
	return name
}

// sourceIDs are the ids that an ingest of the file gives its events.
func sourceIDs(file string, format source.Options, c events.Contract, name string) (iter.Seq2[string, error], error) {
	schema, err := events.Compile(c)
	if err != nil {
		return nil, err
	}
	if c.ID == "" {
		return nil, fmt.Errorf("kind %s has no id field: without one, rows of a file can't be told apart in the scores", c.Kind)
	}
	return ingest.RowIDs(file, format, schema, name), nil
}
