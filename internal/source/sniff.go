package source

import (
	"bytes"
	"path/filepath"
	"strings"
)

// sniffRows bounds how many rows a delimiter is judged by.
const sniffRows = 50

// detect names the format of a file by its name or, where that says nothing, by its head, which ends with a
// whole line where it can.
func detect(path string, head []byte) Format {
	switch strings.ToLower(filepath.Ext(strings.TrimSuffix(path, ".gz"))) {
	case ".jsonl", ".ndjson", ".json":
		return JSONLines
	case ".arff":
		return ARFF
	case ".csv", ".tsv":
		return CSV
	}
	text := bytes.TrimLeft(head, " \t\r\n")
	switch {
	case bytes.HasPrefix(text, []byte("{")) || bytes.HasPrefix(text, []byte("[")):
		return JSONLines
	case bytes.HasPrefix(text, []byte("%")) || len(text) > 9 && strings.EqualFold(string(text[:9]), "@relation"):
		return ARFF
	}
	if _, columns := detectDelimiter(head); columns > 1 {
		return CSV
	}
	w := &window{r: bytes.NewReader(head)}
	var c cells
	columns, alike, rows := 0, 0, 0
	for rows < sniffRows {
		n, err := w.line(0)
		if err != nil {
			break
		}
		splitSpace(&c, content(w.bytes()[:n]))
		w.advance(n)
		if len(c.ends) == 0 {
			continue
		}
		if rows == 0 {
			columns = len(c.ends)
		}
		rows++
		if columns == len(c.ends) {
			alike++
		}
	}
	if columns > 1 && 2*alike > rows {
		return Space
	}
	return CSV
}

// detectDelimiter returns the delimiter that splits the most of the first rows alike; of equals, the one that gives
// more columns. A comma and 1 if none splits at least half of the rows alike.
func detectDelimiter(head []byte) (delimiter byte, columns int) {
	delimiter, columns = ',', 1
	var best float64
	for _, d := range []byte(",;\t|") {
		first, alike, rows := 0, 0, 0
		w := &window{r: bytes.NewReader(head)}
		var c cells
		for rows < sniffRows {
			n, _, err := splitCSV(&c, w, d)
			if _, bad := err.(malformed); err != nil && !bad {
				break
			}
			blank := len(content(w.bytes()[:n])) == 0
			w.advance(n)
			if blank {
				continue
			}
			if rows == 0 {
				first = len(c.ends)
			}
			rows++
			if err == nil && len(c.ends) == first {
				alike++
			}
		}
		if first < 2 || 2*alike < rows {
			continue
		}
		if share := float64(alike) / float64(rows); share > best || share == best && first > columns {
			best, delimiter, columns = share, d, first
		}
	}
	return delimiter, columns
}
