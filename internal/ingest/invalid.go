package ingest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// BadRow is one line of FILE.invalid.jsonl: a row that is not ingested.
type BadRow struct {
	File   string `json:"file"`
	Line   int64  `json:"line"`
	Row    int64  `json:"row"` // from 1, as in generated ids
	Kind   string `json:"kind"`
	Source string `json:"source"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason"`
	Text   string `json:"text"` // the row as it stands in the file
}

func (b *BadRow) String() string {
	if b.Field != "" {
		return fmt.Sprintf("%s:%d: field %s: %s", b.File, b.Line, b.Field, b.Reason)
	}
	return fmt.Sprintf("%s:%d: %s", b.File, b.Line, b.Reason)
}

// invalidFile is where bad rows are written, in the order of their file, each once: what a run wrote before it was
// killed, the next one finds there.
type invalidFile struct {
	path, kind, source string

	file *os.File // nil before the first bad row
	last int64    // highest row of this kind and source that stands there
}

// add writes rows so that they outlive a power cut.
func (f *invalidFile) add(rows []BadRow) error {
	if len(rows) == 0 {
		return nil
	}
	if f.file == nil {
		if err := f.open(); err != nil {
			return fmt.Errorf("bad rows cannot be kept: %w", err)
		}
	}
	var b bytes.Buffer
	for i := range rows {
		if rows[i].Row <= f.last {
			continue
		}
		f.last = rows[i].Row
		line, err := json.Marshal(&rows[i])
		if err != nil {
			return fmt.Errorf("bad row: %w", err)
		}
		b.Write(append(line, '\n'))
	}
	if b.Len() == 0 {
		return nil
	}
	if _, err := f.file.Write(b.Bytes()); err != nil {
		return fmt.Errorf("bad rows cannot be kept: %w", err)
	}
	if err := f.file.Sync(); err != nil {
		return fmt.Errorf("bad rows cannot be kept: %w", err)
	}
	return nil
}

// open finds out which rows stand there already, and cuts off a line that a crash left unfinished.
func (f *invalidFile) open() error {
	file, err := os.OpenFile(f.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if f.last, err = resume(file, f.kind, f.source); err != nil {
		file.Close()
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.file = file
	return nil
}

func resume(file *os.File, kind, source string) (last int64, err error) {
	in := bufio.NewReader(file)
	var whole int64 // bytes of finished lines
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return 0, err
		}
		whole += int64(len(line))
		var row BadRow
		if err := json.Unmarshal(line, &row); err != nil {
			return 0, fmt.Errorf("is no file of bad rows (%w): name another one", err)
		}
		if row.Kind == kind && row.Source == source {
			last = max(last, row.Row)
		}
	}
	if err := file.Truncate(whole); err != nil {
		return 0, err
	}
	_, err = file.Seek(whole, io.SeekStart)
	return last, err
}

func (f *invalidFile) close() {
	if f.file == nil {
		return
	}
	f.file.Close() // synced by add
	f.file = nil
}
