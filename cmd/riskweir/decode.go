package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/choria-io/fisk"
	"github.com/vmihailenco/msgpack/v5"
)

// maxDecoded bounds one value on stdin.
const maxDecoded = 8 << 20

func (a *app) decode(cmd *fisk.CmdClause) {
	a.run(cmd, func(context.Context) error { return decode(os.Stdin, a.out) })
}

// decode writes each msgpack value of in as one line of JSON; lines that are JSON already pass through, so that a mixed
// stream of scores can be piped.
func decode(in io.Reader, out io.Writer) error {
	r := bufio.NewReaderSize(in, 64<<10)
	w := bufio.NewWriter(out)
	for n := 1; ; n++ {
		b, err := skipBlank(r)
		if errors.Is(err, io.EOF) {
			return w.Flush()
		}
		if err == nil && b == '{' {
			err = passLine(r, w)
		} else if err == nil {
			err = transcode(r, w)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("value %d on stdin: %w", n, err), w.Flush())
		}
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
}

func skipBlank(r *bufio.Reader) (byte, error) {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if b != '\n' && b != '\r' {
			return b, r.UnreadByte()
		}
	}
}

func passLine(r *bufio.Reader, w *bufio.Writer) error {
	line, err := r.ReadBytes('\n')
	if errors.Is(err, io.EOF) {
		err = nil
	}
	line = bytes.TrimRight(line, "\r\n")
	if err == nil && !json.Valid(line) {
		err = errors.New("begins as JSON and is none")
	}
	if err != nil {
		return err
	}
	if _, err := w.Write(line); err != nil {
		return err
	}
	return w.WriteByte('\n')
}

// transcode reads one value and nothing behind it: the reader is shared with what follows.
func transcode(r *bufio.Reader, w *bufio.Writer) error {
	dec := msgpack.NewDecoder(&bounded{r: r, left: maxDecoded})
	v, err := dec.DecodeInterface()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("is no msgpack: %w", err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("has no JSON form: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	return w.WriteByte('\n')
}

var errTooLong = fmt.Errorf("longer than %d bytes", maxDecoded)

// bounded is a reader that can be stepped back by one byte, which keeps the decoder from reading ahead.
type bounded struct {
	r    *bufio.Reader
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

func (b *bounded) ReadByte() (byte, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	b.left--
	return b.r.ReadByte()
}

func (b *bounded) UnreadByte() error {
	b.left++
	return b.r.UnreadByte()
}
