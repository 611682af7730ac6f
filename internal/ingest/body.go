package ingest

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"

	"github.com/riskweir/riskweir/pkg/events"
)

const mediaTypes = "application/json, application/x-ndjson or application/msgpack"

// items are the events or labels of a body, in their order.
type items struct {
	bodies [][]byte
	enc    events.Encoding
	many   bool // an array or lines, be it of one
}

// read takes in a body. The answer is nil, or says what is wrong with it.
func (s *Server) read(w http.ResponseWriter, q *request) (items, func(), *answer) {
	fail := func(status int, reason string) (items, func(), *answer) {
		a := refuse(status, "", reason)
		return items{}, func() {}, &a
	}
	if enc := q.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return fail(http.StatusUnsupportedMediaType, fmt.Sprintf("content encoding %q: send the body as it is", clip(enc)))
	}
	tooLarge := fmt.Sprintf("a body of more than %d bytes", MaxBody)
	hold := q.ContentLength
	switch {
	case hold > MaxBody:
		io.CopyN(io.Discard, q.Body, MaxBody) //nolint:errcheck // a peer that is still writing would not see the answer
		return fail(http.StatusRequestEntityTooLarge, tooLarge)
	case hold < 0: // not said
		hold = MaxBody
	}
	release := func() { s.held.Add(-hold) }
	if s.held.Add(hold) > maxInFlight {
		release()
		return fail(http.StatusServiceUnavailable, "not accepted: too much is under way; try again")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, q.Body, MaxBody))
	if err == nil {
		its, fault := split(q.Header.Get("Content-Type"), body)
		if fault == nil {
			return its, release, nil
		}
		release()
		return items{}, func() {}, fault
	}
	release()
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return fail(http.StatusRequestEntityTooLarge, tooLarge)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail(http.StatusRequestTimeout, "the body did not come in time")
	}
	return fail(http.StatusBadRequest, fmt.Sprintf("the body cannot be read: %v", err))
}

// split takes a body apart. The bodies alias it.
func split(contentType string, body []byte) (items, *answer) {
	fail := func(status int, format string, a ...any) (items, *answer) {
		x := refuse(status, "", fmt.Sprintf(format, a...))
		return items{}, &x
	}
	media := ""
	if contentType != "" {
		var err error
		if media, _, err = mime.ParseMediaType(contentType); err != nil {
			return fail(http.StatusUnsupportedMediaType, "content type %q: want %s", clip(contentType), mediaTypes)
		}
	}
	text := bytes.TrimLeft(body, " \t\r\n")
	if len(text) == 0 {
		return fail(http.StatusBadRequest, "the body is empty")
	}
	var its items
	var err error
	switch media {
	case "":
		switch {
		case text[0] == '{':
			its = items{enc: events.JSON, bodies: [][]byte{body}}
		case text[0] == '[':
			its, err = splitJSON(text)
		case body[0] >= 0x80:
			its, err = splitMsgpack(body)
		default:
			return fail(http.StatusUnsupportedMediaType, "neither JSON nor msgpack, and no content type: want %s", mediaTypes)
		}
	case events.ContentTypeJSON:
		if its = (items{enc: events.JSON, bodies: [][]byte{body}}); text[0] == '[' {
			its, err = splitJSON(text)
		}
	case "application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines":
		its = items{enc: events.JSON, many: true}
		for line := range bytes.Lines(body) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				its.bodies = append(its.bodies, line)
			}
			if len(its.bodies) > MaxItems {
				break
			}
		}
	case events.ContentTypeMsgpack, "application/x-msgpack", "application/vnd.msgpack":
		its, err = splitMsgpack(body)
	default:
		return fail(http.StatusUnsupportedMediaType, "content type %q: want %s", clip(media), mediaTypes)
	}
	switch {
	case errors.Is(err, errTooMany) || len(its.bodies) > MaxItems:
		return fail(http.StatusRequestEntityTooLarge, "more than %d items", MaxItems)
	case err != nil:
		return fail(http.StatusBadRequest, "%v", err)
	case len(its.bodies) == 0:
		return fail(http.StatusBadRequest, "no items")
	}
	return its, nil
}

var errTooMany = errors.New("too many items")

func splitJSON(text []byte) (items, error) {
	its := items{enc: events.JSON, many: true}
	in := json.NewDecoder(bytes.NewReader(text))
	if _, err := in.Token(); err != nil {
		return its, fmt.Errorf("not a JSON array: %w", err)
	}
	for in.More() {
		if len(its.bodies) == MaxItems {
			return its, errTooMany
		}
		var one json.RawMessage
		if err := in.Decode(&one); err != nil {
			return its, fmt.Errorf("not a JSON array: item %d: %w", len(its.bodies), err)
		}
		its.bodies = append(its.bodies, one)
	}
	if _, err := in.Token(); err != nil {
		return its, fmt.Errorf("not a JSON array: %w", err)
	}
	if rest := bytes.TrimSpace(text[in.InputOffset():]); len(rest) > 0 {
		return its, errors.New("text behind the JSON array")
	}
	return its, nil
}

// splitMsgpack takes a map as one item, and an array as many.
func splitMsgpack(body []byte) (items, error) {
	its := items{enc: events.Msgpack}
	count, at := uint64(0), 0
	switch c := body[0]; {
	case c&0xf0 == 0x90:
		count, at = uint64(c&0x0f), 1
	case c == 0xdc && len(body) >= 3:
		count, at = uint64(binary.BigEndian.Uint16(body[1:])), 3
	case c == 0xdd && len(body) >= 5:
		count, at = uint64(binary.BigEndian.Uint32(body[1:])), 5
	case c == 0xdc || c == 0xdd:
		return its, errCutMsgpack
	default:
		its.bodies = [][]byte{body}
		return its, nil
	}
	its.many = true
	if count > MaxItems {
		return its, errTooMany
	}
	for i := range count {
		n, err := msgpackLen(body[at:])
		if err != nil {
			return its, fmt.Errorf("item %d: %w", i, err)
		}
		its.bodies = append(its.bodies, body[at:at+n])
		at += n
	}
	if at != len(body) {
		return its, fmt.Errorf("%d bytes behind the msgpack array", len(body)-at)
	}
	return its, nil
}

var errCutMsgpack = errors.New("msgpack ends in the middle of a value")

// msgpackLen is the length of the value at the start of b, however deep it is: nothing is recursive.
func msgpackLen(b []byte) (int, error) {
	at := 0
	for left := uint64(1); left > 0; left-- {
		if at >= len(b) {
			return 0, errCutMsgpack
		}
		c := b[at]
		at++
		var skip, children uint64
		size := 0 // bytes of a length that follows
		switch {
		case c <= 0x7f || c >= 0xe0 || c == 0xc0 || c == 0xc2 || c == 0xc3:
		case c <= 0x8f:
			children = 2 * uint64(c&0x0f)
		case c <= 0x9f:
			children = uint64(c & 0x0f)
		case c <= 0xbf:
			skip = uint64(c & 0x1f)
		case c == 0xcc || c == 0xd0:
			skip = 1
		case c == 0xcd || c == 0xd1:
			skip = 2
		case c == 0xca || c == 0xce || c == 0xd2:
			skip = 4
		case c == 0xcb || c == 0xcf || c == 0xd3:
			skip = 8
		case c >= 0xd4 && c <= 0xd8: // fixext: type and 1, 2, 4, 8 or 16 bytes
			skip = 1 + 1<<(c-0xd4)
		case c == 0xc4 || c == 0xd9 || c == 0xc7:
			size = 1
		case c == 0xc5 || c == 0xda || c == 0xc8 || c == 0xdc || c == 0xde:
			size = 2
		case c == 0xc6 || c == 0xdb || c == 0xc9 || c == 0xdd || c == 0xdf:
			size = 4
		default:
			return 0, fmt.Errorf("0x%02x is no msgpack", c)
		}
		if size > 0 {
			if len(b)-at < size {
				return 0, errCutMsgpack
			}
			var n uint64
			for _, x := range b[at : at+size] {
				n = n<<8 | uint64(x)
			}
			at += size
			switch c {
			case 0xdc, 0xdd:
				children = n
			case 0xde, 0xdf:
				children = 2 * n
			case 0xc7, 0xc8, 0xc9:
				skip = n + 1
			default:
				skip = n
			}
		}
		if skip > uint64(len(b)-at) || children > uint64(len(b)-at) {
			return 0, errCutMsgpack
		}
		at += int(skip)
		left += children
	}
	return at, nil
}
