package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// malformed says why a row cannot be split into cells.
type malformed string

func (m malformed) Error() string { return string(m) }

// cells gathers the text of a row's cells in one buffer: cell i is text[ends[i-1]:ends[i]].
type cells struct {
	text []byte
	ends []int
}

func (c *cells) reset()   { c.text, c.ends = c.text[:0], c.ends[:0] }
func (c *cells) endCell() { c.ends = append(c.ends, len(c.text)) }
func (c *cells) add(b []byte) {
	c.text = append(c.text, b...)
	c.endCell()
}

// strings puts the cells into dst; all share one string.
func (c *cells) strings(dst []string) []string {
	s := string(c.text)
	dst = dst[:0]
	from := 0
	for _, to := range c.ends {
		dst = append(dst, s[from:to])
		from = to
	}
	return dst
}

// splitCSV splits the record at the start of w under RFC 4180, strictly: a quote inside a bare cell, or text
// behind a closing quote, is malformed. CRLF inside quotes becomes LF. It returns how long the record is and how
// many lines it takes, and moves nothing. A malformed record takes its first line only, so that
// one stray quote does not swallow the rows after it.
func splitCSV(c *cells, w *window, delimiter byte) (n, lines int, err error) {
	c.reset()
	first, err := w.line(0)
	if err != nil {
		return 0, 0, err
	}
	end, lines := first, 1
	for p := 0; ; {
		b := w.bytes()
		stop := len(content(b[:end])) // of this line
		if p >= stop || b[p] != '"' {
			cell := b[p:max(p, stop)]
			i := bytes.IndexByte(cell, delimiter)
			if i >= 0 {
				cell = cell[:i]
			}
			if bytes.IndexByte(cell, '"') >= 0 {
				return first, 1, malformed(`a quote inside a cell that does not begin with one: write "..." around the cell and "" for the quote`)
			}
			c.add(cell)
			if i < 0 {
				return end, lines, nil
			}
			p += i + 1
			continue
		}
		for p++; ; {
			i := bytes.IndexByte(b[p:end], '"')
			if i < 0 {
				part := b[p:end]
				c.text = append(c.text, content(part)...)
				if bytes.HasSuffix(part, []byte{'\n'}) {
					c.text = append(c.text, '\n')
				}
				p = end
				if end, err = w.line(p); errors.Is(err, io.EOF) || errors.Is(err, errTooLong) {
					return first, 1, malformed("a quote is opened and not closed")
				} else if err != nil {
					return 0, 0, err
				}
				lines++
				b = w.bytes()
				continue
			}
			c.text = append(c.text, b[p:p+i]...)
			p += i + 1
			if p == end || b[p] != '"' {
				break
			}
			c.text = append(c.text, '"')
			p++
		}
		c.endCell()
		switch stop = len(content(b[:end])); {
		case p >= stop:
			return end, lines, nil
		case b[p] != delimiter:
			return first, 1, malformed(fmt.Sprintf("cell %d: text behind the closing quote", len(c.ends)))
		}
		p++
	}
}

// splitARFF splits one dense row: cells apart by commas, blanks around them dropped, quoted by ' or " with backslash
// escapes. A bare ? is an empty cell.
func splitARFF(c *cells, row []byte) error {
	c.reset()
	if row[0] == '{' {
		return malformed("a sparse ARFF row: convert the file to dense rows")
	}
	for {
		row = bytes.TrimLeft(row, " \t")
		if len(row) == 0 || row[0] != '\'' && row[0] != '"' {
			cell, rest, more := bytes.Cut(row, []byte{','})
			if cell = bytes.TrimRight(cell, " \t"); len(cell) == 1 && cell[0] == '?' {
				cell = nil
			}
			c.add(cell)
			if !more {
				return nil
			}
			row = rest
			continue
		}
		rest, ok := c.unquote(row)
		if !ok {
			return malformed("a quote is opened and not closed")
		}
		c.endCell()
		if rest = bytes.TrimLeft(rest, " \t"); len(rest) == 0 {
			return nil
		}
		if rest[0] != ',' {
			return malformed(fmt.Sprintf("cell %d: text behind the closing quote", len(c.ends)))
		}
		row = rest[1:]
	}
}

// unquote appends the quoted text at the start of b, and returns what stands behind it.
func (c *cells) unquote(b []byte) (rest []byte, ok bool) {
	quote := b[0]
	for i := 1; i < len(b); i++ {
		switch {
		case b[i] == quote:
			return b[i+1:], true
		case b[i] == '\\' && i+1 < len(b):
			i++
			switch b[i] {
			case 'n':
				c.text = append(c.text, '\n')
			case 't':
				c.text = append(c.text, '\t')
			case 'r':
				c.text = append(c.text, '\r')
			default:
				c.text = append(c.text, b[i])
			}
		default:
			c.text = append(c.text, b[i])
		}
	}
	return nil, false
}

// splitSpace splits a row at runs of blanks.
func splitSpace(c *cells, row []byte) {
	c.reset()
	for {
		row = bytes.TrimLeft(row, " \t")
		if len(row) == 0 {
			return
		}
		i := bytes.IndexAny(row, " \t")
		if i < 0 {
			i = len(row)
		}
		c.add(row[:i])
		row = row[i:]
	}
}
