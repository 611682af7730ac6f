package ingest

import (
	"errors"
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
		var rec events.Record
		for {
			row, err := r.Next()
			var bad *source.RowError
			switch {
			case errors.Is(err, io.EOF):
				return
			case errors.As(err, &bad):
				continue
			case err != nil:
				yield("", err)
				return
			}
			e, err := f.toEvent(&row, r.Columns(), &rec)
			if err != nil {
				continue
			}
			if _, err := e.msg(schema.Contract.Kind, false); err != nil {
				continue
			}
			if !yield(e.id, nil) {
				return
			}
		}
	}
}
