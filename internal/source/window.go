package source

import (
	"bytes"
	"errors"
	"io"
)

// maxLine is a row of MaxRow bytes and its CRLF.
const maxLine = MaxRow + 2

var errTooLong = errors.New("too long")

// window is the part of a stream that is in memory: buf[start:end], of which buf[start] is byte base of the stream.
type window struct {
	r          io.Reader
	buf        []byte
	start, end int
	base       int64
	err        error // what ended r, io.EOF included
}

func (w *window) bytes() []byte { return w.buf[w.start:w.end] }

func (w *window) advance(n int) {
	w.start += n
	w.base += int64(n)
}

// fill reads once more behind end. It moves bytes, so what was sliced from the window before is no longer valid.
func (w *window) fill() {
	if w.err != nil {
		return
	}
	if w.start > 0 && len(w.buf)-w.end < len(w.buf)/2 {
		w.end = copy(w.buf, w.buf[w.start:w.end])
		w.start = 0
	}
	if w.end == len(w.buf) {
		w.buf = append(w.buf, make([]byte, max(64<<10, len(w.buf)))...)
	}
	for range 100 {
		n, err := w.r.Read(w.buf[w.end:])
		w.end += n
		w.err = err
		if n > 0 || err != nil {
			return
		}
	}
	w.err = io.ErrNoProgress
}

// line returns where the line ends that begins at offset from of the window: behind its LF, or where the stream
// ends. The error is io.EOF for no line at all, errTooLong, or that of the stream.
func (w *window) line(from int) (int, error) {
	for scan := from; ; {
		if i := bytes.IndexByte(w.buf[w.start+scan:w.end], '\n'); i >= 0 {
			if scan+i+1 > maxLine {
				return 0, errTooLong
			}
			return scan + i + 1, nil
		}
		scan = w.end - w.start
		switch {
		case scan > maxLine:
			return 0, errTooLong
		case w.err == nil:
			w.fill()
		case !errors.Is(w.err, io.EOF):
			return 0, w.err
		case scan == from:
			return 0, io.EOF
		default:
			return scan, nil
		}
	}
}

// skipLine moves behind the next LF, however far it is.
func (w *window) skipLine() error {
	for {
		if i := bytes.IndexByte(w.bytes(), '\n'); i >= 0 {
			w.advance(i + 1)
			return nil
		}
		w.advance(w.end - w.start)
		if w.err != nil {
			if errors.Is(w.err, io.EOF) {
				return nil
			}
			return w.err
		}
		w.fill()
	}
}

// discard moves n bytes on. The error is io.ErrUnexpectedEOF where the stream is shorter.
func (w *window) discard(n int64) error {
	for n > 0 {
		have := min(n, int64(w.end-w.start))
		w.advance(int(have))
		if n -= have; n == 0 {
			return nil
		}
		if w.err != nil {
			if errors.Is(w.err, io.EOF) {
				return io.ErrUnexpectedEOF
			}
			return w.err
		}
		w.fill()
	}
	return nil
}

// content is line without its LF or CRLF.
func content(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}
