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
	"github.com/vmihailenco/msgpack/v5/msgpcode"
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
	var line []byte
	var err error
	for more := true; more && err == nil; {
		var part []byte
		if part, err = r.ReadSlice('\n'); len(line)+len(part) > maxDecoded {
			return errTooLong
		}
		line = append(line, part...)
		if more = errors.Is(err, bufio.ErrBufferFull); more || errors.Is(err, io.EOF) {
			err = nil
		}
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
	v, err := decodeValue(dec, maxDepth)
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

// maxDepth of values in values: the decoder's own recursion has no bound, and 8 MiB can hold eight million levels.
const maxDepth = 100

var errTooDeep = fmt.Errorf("more than %d values in each other", maxDepth)

func decodeValue(dec *msgpack.Decoder, depth int) (any, error) {
	if depth == 0 {
		return nil, errTooDeep
	}
	code, err := dec.PeekCode()
	if err != nil {
		return nil, err
	}
	switch {
	case msgpcode.IsFixedArray(code), code == msgpcode.Array16, code == msgpcode.Array32:
		n, err := dec.DecodeArrayLen()
		if err != nil {
			return nil, err
		}
		all := []any{}
		for range n {
			v, err := decodeValue(dec, depth-1)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		return all, nil
	case msgpcode.IsFixedMap(code), code == msgpcode.Map16, code == msgpcode.Map32:
		n, err := dec.DecodeMapLen()
		if err != nil {
			return nil, err
		}
		all := map[string]any{}
		for range n {
			name, err := dec.DecodeString()
			if err != nil {
				return nil, err
			}
			if _, twice := all[name]; twice {
				return nil, fmt.Errorf("the name %.64q stands twice", name)
			}
			if all[name], err = decodeValue(dec, depth-1); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	return dec.DecodeInterface()
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
