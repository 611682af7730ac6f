// Package source reads files of rows: CSV, JSON lines, ARFF and whitespace-separated
// columns, plain or gzip. Every row says where it ends, so that a reader can stop
// anywhere and go on there; a malformed row is an error of its own and the next row follows.
package source

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode/utf8"
)

// MaxRow bounds one row, in bytes: what the broker takes as one message.
const MaxRow = 1 << 20

// Format is how a file's rows are written.
type Format string

const (
	Auto      Format = "auto"  // by the file's name, else by its first bytes
	CSV       Format = "csv"   // RFC 4180, any delimiter, LF or CRLF; blank lines are skipped
	JSONLines Format = "jsonl" // one object a line; blank lines are skipped
	ARFF      Format = "arff"  // dense rows; % starts a comment line, a bare ? is an empty cell
	Space     Format = "space" // columns apart by spaces or tabs
)

// Header says whether the first row of a csv or space file names its columns.
type Header uint8

const (
	HeaderAuto Header = iota // csv: yes, unless Options.Columns is given or a cell of the first row is a number; space: no
	HeaderYes
	HeaderNo
)

// Options shape how a file's bytes become rows. The zero value detects everything.
type Options struct {
	Format    Format   // empty: Auto
	Delimiter byte     // csv only; 0: the one of , ; tab | that splits the first rows best
	Header    Header   //
	Columns   []string // names the columns, instead of the header's own; without a header or names they are c1, c2, ...
}

// Row is one data row. All that it points to is valid until the next call of Next, but for
// the text of Cells, which stays.
type Row struct {
	Index int64    // data rows before this one, malformed ones included
	Line  int64    // line of the file on which the row begins, from 1
	End   int64    // bytes of the decompressed file up to and including this row's line end
	Cells []string // by position in Columns; nil for JSON lines
	JSON  []byte   // the object, for JSON lines only
	Raw   []byte   // the row as it stands in the file, without its line end
}

// RowError says why one row is malformed. The rows after it can be read.
type RowError struct {
	File   string
	Line   int64
	Reason string
	Text   string // the row as it stands in the file, at most maxErrorText bytes of it
}

func (e *RowError) Error() string { return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Reason) }

// Reader reads the rows of one file. It holds a row and a read buffer in memory, and belongs to one goroutine, but for
// Progress.
type Reader struct {
	name      string
	file      *os.File // nil: not to be closed by Close
	seekable  bool     // w reads file as it is: an offset of the stream is one of the file
	size      int64    // of the file as it lies on disk; 0: not known
	read      *counter
	head      *header
	w         window
	format    Format
	delimiter byte
	columns   []string

	index int64 // of the next row
	line  int64 // on which the window begins
	cells cells
	row   []string
}

// headBytes is how much of a file is looked at to tell it from another one.
const headBytes = 64 << 10

// maxErrorText bounds RowError.Text.
const maxErrorText = 64 << 10

// counter counts the bytes that were read of a file as it lies on disk.
type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// header keeps the first headBytes of a stream, as far as it has been read.
type header struct {
	r    io.Reader
	kept []byte
}

func (h *header) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.kept = append(h.kept, p[:min(n, headBytes-len(h.kept))]...)
	return n, err
}

// Open opens the file at path ("-": stdin), and reads its header. The caller closes it.
func Open(path string, o Options) (*Reader, error) {
	if path == "-" {
		return New("stdin", os.Stdin, o)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	r, err := New(path, f, o)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.file = f
	return r, nil
}

// New reads rows from in, and reads the header at once; name stands in errors and its ending tells the format.
func New(name string, in io.Reader, o Options) (*Reader, error) {
	r := &Reader{name: name, read: &counter{r: in}, line: 1, format: o.Format, delimiter: o.Delimiter}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := r.open(in, o); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r, nil
}

func (o *Options) check() error {
	switch o.Format {
	case "", Auto, CSV, JSONLines, ARFF, Space:
	default:
		return fmt.Errorf("format %q: want auto, csv, jsonl, arff or space", o.Format)
	}
	if d := o.Delimiter; d == '"' || d == '\r' || d == '\n' || d >= utf8.RuneSelf {
		return fmt.Errorf("delimiter %q: want one ASCII character, not a quote or a line end", d)
	}
	return checkNames(o.Columns)
}

func checkNames(names []string) error {
	seen := make(map[string]int, len(names))
	for i, n := range names {
		if j, ok := seen[n]; ok {
			return fmt.Errorf("columns %d and %d are both named %q", j+1, i+1, n)
		}
		seen[n] = i
	}
	return nil
}

// open looks at the first bytes, settles the format, and reads the header.
func (r *Reader) open(in io.Reader, o Options) error {
	f, regular := in.(*os.File)
	if regular {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.IsDir() {
			return errors.New("a directory, want a file")
		}
		if regular = info.Mode().IsRegular(); regular {
			r.size = info.Size()
		}
	}
	r.head = &header{r: r.read}
	r.w.r = r.head
	magic := r.peek(4)
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		gz, err := gzip.NewReader(io.MultiReader(bytes.NewReader(r.w.bytes()), r.read))
		if err != nil {
			return fmt.Errorf("gzip: %w", err)
		}
		r.head = &header{r: gz}
		r.w = window{r: r.head}
	case bytes.HasPrefix(magic, []byte("PK\x03\x04")):
		return errors.New("a zip archive or a spreadsheet: unpack it, or save it as CSV")
	case bytes.HasPrefix(magic, []byte{0xff, 0xfe}) || bytes.HasPrefix(magic, []byte{0xfe, 0xff}):
		return errors.New("UTF-16: convert it with iconv -f utf-16 -t utf-8")
	default:
		r.seekable = regular
	}
	// Of a file the whole head; of a pipe what is there, but the first line with something on it at least, so that a slow
	// one can be followed.
	for from := 0; from < headBytes; {
		end, err := r.w.line(from)
		if errors.Is(err, io.EOF) || errors.Is(err, errTooLong) {
			break
		} else if err != nil {
			return err
		}
		if len(bytes.TrimSpace(r.w.bytes()[from:end])) > 0 {
			break
		}
		from = end
	}
	text := r.w.bytes()
	if regular {
		text = r.peek(headBytes)
	}
	if r.w.err != nil && !errors.Is(r.w.err, io.EOF) {
		return r.w.err
	}
	if bytes.HasPrefix(text, []byte("\xef\xbb\xbf")) {
		text = text[3:]
		r.w.advance(3)
	}
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 && r.w.err == nil {
		text = text[:i+1] // the last row may be cut
	}
	if r.format == "" || r.format == Auto {
		r.format = detect(r.name, text)
	}
	if r.format == CSV && r.delimiter == 0 {
		if r.delimiter, _ = detectDelimiter(text); strings.HasSuffix(strings.ToLower(strings.TrimSuffix(r.name, ".gz")), ".tsv") {
			r.delimiter = '\t'
		}
	}
	if r.format == CSV && bytes.IndexByte(text, '\n') < 0 && bytes.IndexByte(text, '\r') >= 0 {
		return errors.New("lines end in CR alone: convert it with tr '\\r' '\\n'")
	}
	if err := r.header(o); err != nil {
		return err
	}
	return checkNames(r.columns)
}

// peek fills the window up to n bytes, and returns at most so many.
func (r *Reader) peek(n int) []byte {
	for r.w.end-r.w.start < n && r.w.err == nil {
		r.w.fill()
	}
	return r.w.bytes()[:min(n, r.w.end-r.w.start)]
}

// header settles the columns' names.
func (r *Reader) header(o Options) error {
	if r.format == JSONLines {
		if text := bytes.TrimLeft(r.w.bytes(), " \t\r\n"); bytes.HasPrefix(text, []byte("[")) {
			return errors.New("a JSON array, want one object a line: convert it with jq -c '.[]'")
		}
		return nil
	}
	if r.format == ARFF {
		if err := r.attributes(); err != nil {
			return fmt.Errorf("line %d: %w", r.line, err)
		}
	} else {
		n, lines, err := r.record()
		if errors.Is(err, io.EOF) {
			return errors.New("no rows, not even a header")
		} else if err != nil {
			return fmt.Errorf("line %d: the first row: %w", r.line, err)
		}
		first := r.cells.strings(nil)
		names := o.Header == HeaderYes || o.Header == HeaderAuto && r.format == CSV && o.Columns == nil && !slices.ContainsFunc(first, isNumber)
		for i, name := range first {
			if name = string(bytes.TrimSpace([]byte(name))); !names || name == "" {
				name = fmt.Sprintf("c%d", i+1)
			}
			r.columns = append(r.columns, name)
		}
		if names {
			if !utf8.Valid(r.w.bytes()[:n]) {
				return errors.New("the header is not UTF-8: convert the file with iconv -f latin1 -t utf-8, or from what it is in")
			}
			r.w.advance(n)
			r.line += int64(lines)
		}
	}
	if o.Columns != nil {
		if len(o.Columns) != len(r.columns) {
			return fmt.Errorf("%d names are given for %d columns", len(o.Columns), len(r.columns))
		}
		r.columns = o.Columns
	}
	return nil
}

func isNumber(cell string) bool {
	_, err := strconv.ParseFloat(cell, 64)
	return err == nil && strings.ContainsAny(cell, "0123456789") // a column may be named Inf
}

// attributes reads an ARFF header up to and including @data.
func (r *Reader) attributes() error {
	for {
		n, err := r.w.line(0)
		if errors.Is(err, io.EOF) {
			return errors.New("an ARFF file without @data")
		} else if err != nil {
			return err
		}
		text := bytes.TrimSpace(r.w.bytes()[:n])
		word, rest := text, []byte(nil)
		if i := bytes.IndexAny(text, " \t"); i >= 0 {
			word, rest = text[:i], bytes.TrimLeft(text[i:], " \t")
		}
		if bytes.EqualFold(word, []byte("@attribute")) {
			r.cells.reset()
			switch {
			case len(rest) == 0:
				return errors.New("@attribute without a name")
			case rest[0] == '\'' || rest[0] == '"':
				if _, ok := r.cells.unquote(rest); !ok {
					return errors.New("@attribute: a quote is opened and not closed")
				}
			default:
				i := bytes.IndexAny(rest, " \t{")
				if i < 0 {
					return errors.New("@attribute without a type")
				}
				r.cells.text = append(r.cells.text, rest[:i]...)
			}
			if !utf8.Valid(r.cells.text) {
				return errors.New("@attribute: a name that is not UTF-8")
			}
			r.columns = append(r.columns, string(r.cells.text))
		}
		data := bytes.EqualFold(word, []byte("@data"))
		r.w.advance(n)
		r.line++
		if data {
			if len(r.columns) == 0 {
				return errors.New("@data without an @attribute before it")
			}
			return nil
		}
	}
}

// Columns names the cells of a row; nil for JSON lines.
func (r *Reader) Columns() []string { return r.columns }

// Format is the one in use, never Auto.
func (r *Reader) Format() Format { return r.format }

// Progress is how many bytes of the file, as it lies on disk, have been read, and its size; 0 if not known.
func (r *Reader) Progress() (read, size int64) { return r.read.n.Load(), r.size }

// record splits the next row of the window, behind blank and comment lines, and returns its length and its lines; it
// moves over those blank lines only. A malformed row has a length all the same, unless it is too long.
func (r *Reader) record() (n, lines int, err error) {
	for {
		if n, err = r.w.line(0); err != nil {
			return 0, 1, err
		}
		row := content(r.w.bytes()[:n])
		blank := len(row) == 0
		if r.format != CSV {
			trimmed := bytes.TrimLeft(row, " \t")
			blank = len(trimmed) == 0 || r.format == ARFF && trimmed[0] == '%'
		}
		if blank {
			r.w.advance(n)
			r.line++
			continue
		}
		switch r.format {
		case CSV:
			return splitCSV(&r.cells, &r.w, r.delimiter)
		case ARFF:
			return n, 1, splitARFF(&r.cells, bytes.TrimLeft(row, " \t"))
		case Space:
			splitSpace(&r.cells, row)
		}
		return n, 1, nil
	}
}

// Next returns the next row. The error is io.EOF after the last row; a *RowError for a malformed
// row, of which Index, Line, End and Raw are set, and after which Next can be called again;
// any other error is final.
func (r *Reader) Next() (Row, error) {
	n, lines, err := r.record()
	row := Row{Index: r.index, Line: r.line}
	var reason malformed
	switch {
	case err == nil:
		row.Raw = content(r.w.bytes()[:n])
		reason = r.judge(&row)
	case errors.As(err, &reason):
		row.Raw = content(r.w.bytes()[:n])
	case errors.Is(err, errTooLong):
		reason = malformed(fmt.Sprintf("a row of more than %d bytes", MaxRow))
		row.Raw = bytes.Clone(r.w.bytes()[:maxErrorText])
		if err := r.w.skipLine(); err != nil {
			return Row{}, fmt.Errorf("%s:%d: %w", r.name, r.line, err)
		}
	case errors.Is(err, io.EOF):
		return Row{}, io.EOF
	default:
		return Row{}, fmt.Errorf("%s:%d: %w", r.name, r.line, err)
	}
	r.w.advance(n)
	r.index++
	r.line += int64(lines)
	row.End = r.w.base
	if reason != "" {
		row.Cells, row.JSON = nil, nil
		return row, &RowError{File: r.name, Line: row.Line, Reason: string(reason), Text: string(row.Raw[:min(len(row.Raw), maxErrorText)])}
	}
	return row, nil
}

// judge fills in the cells of a row that could be split, or says what is wrong with it.
func (r *Reader) judge(row *Row) malformed {
	switch {
	case len(row.Raw) > MaxRow:
		return malformed(fmt.Sprintf("a row of more than %d bytes", MaxRow))
	case !utf8.Valid(row.Raw):
		return "not UTF-8"
	case r.format == JSONLines:
		row.JSON = bytes.Trim(row.Raw, " \t")
		if row.JSON[0] != '{' || !json.Valid(row.JSON) {
			return "not a JSON object"
		}
	case len(r.cells.ends) != len(r.columns):
		return malformed(fmt.Sprintf("%d cells, want %d", len(r.cells.ends), len(r.columns)))
	default:
		r.row = r.cells.strings(r.row)
		row.Cells = r.row
	}
	return ""
}

// ResumeAt moves an opened Reader, before its first Next, behind the row with this End; index and line are those of the
// row after it.
func (r *Reader) ResumeAt(end, index, line int64) error {
	switch {
	case end == 0 && index == 0, end == r.w.base:
		r.index = index
		return nil
	case end < r.w.base || index < 0 || line < r.line:
		return fmt.Errorf("%s: cannot go on at byte %d: the header ends at byte %d", r.name, end, r.w.base)
	case r.seekable && end > r.size:
		return fmt.Errorf("%s: cannot go on at byte %d: the file has %d; was it cut?", r.name, end, r.size)
	}
	last := end - 1 // the last byte of the row before
	if r.seekable {
		if _, err := r.read.r.(*os.File).Seek(last, io.SeekStart); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		r.read.n.Store(last)
		r.w = window{r: r.read, base: last}
	} else if err := r.w.discard(last - r.w.base); err != nil {
		return fmt.Errorf("%s: go on at byte %d: %w", r.name, end, err)
	}
	// Without a line end there, the row was the last of the file, not finished perhaps; what was appended since must begin a new one.
	switch b := r.peek(2); {
	case len(b) == 0:
		return fmt.Errorf("%s: cannot go on at byte %d: the file ends before it; was it cut?", r.name, end)
	case len(b) == 2 && b[0] != '\n' && b[1] != '\n' && b[1] != '\r':
		return fmt.Errorf("%s: cannot go on at byte %d: it is in the middle of a row, which was appended to after it had been read", r.name, end)
	}
	r.w.advance(1)
	r.index, r.line = index, line
	return nil
}

// Close closes what Open opened.
func (r *Reader) Close() error {
	if r.file == nil {
		return nil
	}
	return r.file.Close()
}
