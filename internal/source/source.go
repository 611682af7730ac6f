// Package source reads files of rows: CSV, JSON lines, ARFF and whitespace-separated
// columns, plain or gzip. Every row says where it ends, so that a reader can stop
// anywhere and go on there; a malformed row is an error of its own and the next row follows.
package source

import (
	"errors"
	"fmt"
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
	HeaderAuto Header = iota // csv: yes, unless Options.Columns is given; space: no
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

// Reader reads the rows of one file. It holds at most a row and a read buffer in memory.
type Reader struct{}

// Open opens the file at path ("-": stdin), and reads its header.
func Open(path string, o Options) (*Reader, error) { return nil, errors.New("not yet") }

// Columns names the cells of a row; nil for JSON lines.
func (r *Reader) Columns() []string { return nil }

// Format is the one in use, never Auto.
func (r *Reader) Format() Format { return "" }

// Next returns the next row. The error is io.EOF after the last row; a *RowError for a malformed
// row, of which Index, Line, End and Raw are set, and after which Next can be called again;
// any other error is final.
func (r *Reader) Next() (Row, error) { return Row{}, errors.New("not yet") }

// ResumeAt moves an opened Reader, before its first Next, behind the row with this End; index and line are those of the
// row after it.
func (r *Reader) ResumeAt(end, index, line int64) error { return errors.New("not yet") }

// Fingerprint identifies the file by its head and the options in use, whatever is appended to it.
func (r *Reader) Fingerprint() string { return "" }

// Matches says whether Fingerprint, made when the file was perhaps shorter, was of this file and these options.
func (r *Reader) Matches(fingerprint string) bool { return false }

func (r *Reader) Close() error { return nil }
