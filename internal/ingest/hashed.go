package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/riskweir/riskweir/pkg/events"
)

// ReadEntityKey reads the key that entities are hashed with: what stands in the file, without blanks around it. An empty name is no key.
func ReadEntityKey(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("entity key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("entity key %s can be read by others (%s): chmod 600 it", file, info.Mode().Perm())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("entity key: %w", err)
	}
	key := []byte(strings.TrimSpace(string(text)))
	if _, err := events.HashEntity(key, "", ""); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// errNoEntityKey is of a process that was not given what the contract asks for.
var errNoEntityKey = errors.New("the contract has entity_hash, and this ingest has no --entity-key")

// hashed returns the name of an entity as it is stored, and the body with it in place of the clear one. A contract without entity_hash leaves both alone.
func hashed(c *events.Contract, key []byte, enc events.Encoding, body []byte, entity string) (string, []byte, error) {
	if !c.EntityHash {
		return entity, body, nil
	}
	if key == nil {
		return "", nil, errNoEntityKey
	}
	name, err := events.HashEntity(key, c.Kind, entity)
	if err != nil {
		return "", nil, err
	}
	if c.Entity == "" || body == nil {
		return name, body, nil
	}
	span := jsonSpan
	value := []byte(`"` + name + `"`) // base64url needs no escape
	if enc == events.Msgpack {
		span = msgpackSpan
		if value, err = msgpack.Marshal(name); err != nil {
			return "", nil, fmt.Errorf("entity: %w", err)
		}
	}
	from, end, err := span(body, c.Entity)
	if err != nil {
		return "", nil, err
	}
	if end == 0 { // the body does not name it
		return name, body, nil
	}
	out := make([]byte, 0, len(body)+len(value))
	out = append(append(out, body[:from]...), value...)
	return name, append(out, body[end:]...), nil
}

var errSpan = errors.New("the body cannot be read again")

// jsonSpan is where the value of a name stands in an object; end is 0 if it does not. The strict reader has refused a name that stands twice.
func jsonSpan(body []byte, name string) (from, end int, err error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return 0, 0, errSpan
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %w", errSpan, err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return 0, 0, fmt.Errorf("%w: %w", errSpan, err)
		}
		if key == name {
			end := int(dec.InputOffset())
			return end - len(value), end, nil
		}
	}
	return 0, 0, nil
}

// msgpackSpan is the same of a map.
func msgpackSpan(body []byte, name string) (from, end int, err error) {
	in := bytes.NewReader(body)
	dec := msgpack.NewDecoder(in)
	n, err := dec.DecodeMapLen()
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", errSpan, err)
	}
	for range n {
		at := len(body) - in.Len()
		size, err := msgpackLen(body[at:])
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %w", errSpan, err)
		}
		key, err := dec.DecodeString()
		if err != nil {
			return 0, 0, fmt.Errorf("%w: %w", errSpan, err)
		}
		from = at + size
		if size, err = msgpackLen(body[from:]); err != nil {
			return 0, 0, fmt.Errorf("%w: %w", errSpan, err)
		}
		if key == name {
			return from, from + size, nil
		}
		in.Seek(int64(from+size), 0) //nolint:errcheck // within the body
	}
	return 0, 0, nil
}
