package ingest

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
)

// RowIDs are the ids of the events that an ingest of the file makes, row by row. Rows that an ingest would refuse are left
// out. name is the source's; empty: the file's base name. The file is read anew each time it is ranged over.
func RowIDs(path string, format source.Options, schema *events.Schema, name string) iter.Seq2[string, error] {
	if name == "" {
		name = filepath.Base(path)
	}
	f := &File{cfg: FileConfig{Schema: schema}, name: name}
	return func(yield func(string, error) bool) {
		r, err := source.Open(path, format)
		if err != nil {
			yield("", err)
			return
		}
		defer r.Close()
		if r.Format() != source.JSONLines {
			if err := schema.CheckColumns(r.Columns()); err != nil {
				yield("", fmt.Errorf("%s: %w", path, err))
				return
			}
		}
		var rec events.Record
		var made, refused int
		var last error
		for {
			row, err := r.Next()
			var bad *source.RowError
			switch {
			case errors.Is(err, io.EOF):
				switch {
				case made == 0 && refused == 0:
					yield("", fmt.Errorf("%s has no rows", path))
				case made == 0:
					yield("", fmt.Errorf("%s: none of its %d rows is an event of kind %s, the last because: %w", path, refused, schema.Contract.Kind, last))
				}
				return
			case errors.As(err, &bad):
				refused, last = refused+1, bad
				continue
			case err != nil:
				yield("", err)
				return
			}
			e, err := f.toEvent(&row, r.Columns(), &rec)
			if err == nil {
				_, err = e.msg(schema.Contract.Kind, false)
			}
			if err != nil {
				refused, last = refused+1, err
				continue
			}
			made++
			if !yield(e.id, nil) {
				return
			}
		}
	}
}
