package events

import "errors"

// Encoding is how a message body is written.
type Encoding uint8

const (
	JSON Encoding = iota + 1
	Msgpack
)

// Content types of the two encodings, for the Content-Type header of a message
// or an HTTP body.
const (
	ContentTypeJSON    = "application/json"
	ContentTypeMsgpack = "application/msgpack"
)

func (e Encoding) String() string {
	switch e {
	case JSON:
		return "json"
	case Msgpack:
		return "msgpack"
	}
	return "unknown"
}

// ContentType is the value of a message's or an HTTP body's Content-Type header.
func (e Encoding) ContentType() string {
	if e == Msgpack {
		return ContentTypeMsgpack
	}
	return ContentTypeJSON
}

// ErrEncoding says that a body is neither a JSON object nor a msgpack map.
var ErrEncoding = errors.New("body is neither a JSON object nor a msgpack map")

// DetectEncoding tells the encoding of body by its content type or, where that is empty or
// unknown, by the first byte: no JSON object starts as a msgpack map does.
func DetectEncoding(contentType string, body []byte) (Encoding, error) {
	switch contentType {
	case ContentTypeJSON:
		return JSON, nil
	case ContentTypeMsgpack, "application/x-msgpack", "application/vnd.msgpack":
		return Msgpack, nil
	}
	for _, b := range body {
		switch {
		case b == ' ' || b == '\t' || b == '\r' || b == '\n':
			continue
		case b == '{':
			return JSON, nil
		case b&0xf0 == 0x80 || b == 0xde || b == 0xdf:
			return Msgpack, nil
		}
		break
	}
	return 0, ErrEncoding
}
