package ingest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
)

// maxBody leaves room for headers within the message of 1 MiB that the broker and the stream take.
const maxBody = events.MaxEventBytes - 1024

// rowEvent is a row made into an event.
type rowEvent struct {
	id, entity string
	time       time.Time // zero: none
	body       []byte
	label      *int // nil: the row has none
}

// toEvent makes a row an event under the contract. A row without an id gets <source>#<row, from 1>.
func (f *File) toEvent(row *source.Row, columns []string, rec *events.Record) (e rowEvent, err error) {
	s := f.cfg.Schema
	c := &s.Contract
	var label string
	if row.JSON == nil {
		if e.body, err = s.AppendRow(nil, columns, row.Cells); err != nil {
			return e, err
		}
		if c.Label != nil {
			if i := slices.Index(columns, c.Label.Column); i >= 0 {
				label = row.Cells[i]
			}
		}
	} else {
		e.body = slices.Clone(row.JSON)
		if c.Label != nil {
			if e.body, label, err = cutText(e.body, c.Label.Column); err != nil {
				return e, err
			}
		}
	}
	if err := s.Decode(events.JSON, e.body, rec); err != nil {
		return e, err
	}
	e.id, e.entity, e.time = string(rec.ID), string(rec.Entity), rec.Time
	if e.id == "" {
		e.id = f.name + "#" + strconv.FormatInt(row.Index+1, 10)
		if c.ID != "" {
			if e.body, err = setID(e.body, c.ID, e.id); err != nil {
				return e, err
			}
			// Also, one field may be id and entity.
			if err := s.Decode(events.JSON, e.body, rec); err != nil {
				return e, err
			}
		}
	}
	if e.entity == "" {
		e.entity = e.id
	}
	if e.entity, e.body, err = hashed(c, f.cfg.EntityKey, events.JSON, e.body, e.entity); err != nil {
		return e, err
	}
	if len(e.body) > maxBody {
		return e, &events.InvalidError{Reason: fmt.Sprintf("an event of %d bytes: at most %d", len(e.body), maxBody)}
	}
	if label = strings.TrimSpace(label); label != "" {
		v := 0
		if slices.Contains(c.Label.Positive, label) {
			v = 1
		}
		e.label = &v
	}
	return e, nil
}

func (e *rowEvent) msg(kind string, history bool) (*nats.Msg, error) {
	subject, err := events.EventSubject(kind, e.entity)
	if err != nil {
		return nil, err
	}
	m := &nats.Msg{Subject: subject, Data: e.body}
	if history {
		m.Header = nats.Header{events.HeaderHistory: {"1"}}
	}
	return m, nil
}

// labelMsg is the claim of a row, or nil. It was known when it is published; of history, whose time is in the past,
// when the event's time and the delay had passed.
func (f *File) labelMsg(e *rowEvent) (*nats.Msg, error) {
	if e.label == nil {
		return nil, nil
	}
	l := events.Label{ID: e.id, Label: e.label, Source: f.name}
	if f.cfg.History && !e.time.IsZero() {
		l.KnownAt = e.time.Add(f.cfg.LabelDelay)
	}
	return f.claim(e.entity, &l)
}

// claim is the message of a label.
func (f *File) claim(entity string, l *events.Label) (*nats.Msg, error) {
	subject, err := events.LabelSubject(f.kind, entity)
	if err != nil {
		return nil, err
	}
	return &nats.Msg{Subject: subject, Data: l.Append(nil, events.JSON)}, nil
}

// eventRow makes the rows of a file of events.
func (f *File) eventRow(rec *events.Record) func(*source.Row, *source.Reader) (made, error) {
	return func(row *source.Row, r *source.Reader) (m made, err error) {
		e, err := f.toEvent(row, r.Columns(), rec)
		if err != nil {
			return m, err
		}
		if m.event, err = e.msg(f.kind, f.cfg.History); err != nil {
			return made{}, err
		}
		if f.hasLabels() && !f.delayed() {
			m.label, err = f.labelMsg(&e)
		}
		return m, err
	}
}

// delayedLabelRow makes the labels of a file of events.
func (f *File) delayedLabelRow(rec *events.Record) func(*source.Row, *source.Reader) (made, error) {
	return func(row *source.Row, r *source.Reader) (m made, err error) {
		e, err := f.toEvent(row, r.Columns(), rec)
		if err != nil {
			return m, err
		}
		if _, err := e.msg(f.kind, false); err != nil { // then there is no event either
			return m, err
		}
		m.label, err = f.labelMsg(&e)
		return m, err
	}
}

// labelRow makes the rows of a file of labels. JSON lines are labels as they stand on the wire, and an entity perhaps; a
// table has the columns id or seq, known_at (RFC 3339 with a zone; may be absent), entity (likewise), and one of
//
//	label           1 bad, 0 good, nothing or null withdrawn
//	the contract's  read as in a file of events; nothing withdrawn
func (f *File) labelRow(row *source.Row, r *source.Reader) (m made, err error) {
	var body []byte
	var entity string
	if row.JSON != nil {
		if body, entity, err = cutText(row.JSON, "entity"); err != nil {
			return m, err
		}
	} else if body, entity, err = f.labelCells(r.Columns(), row.Cells); err != nil {
		return m, err
	}
	l, err := events.DecodeLabel(events.JSON, body)
	if err != nil {
		return m, err
	}
	if l.Source == "" {
		l.Source = f.name
	}
	if entity == "" {
		entity = labelEntity(&l)
	} else if entity, _, err = hashed(&f.cfg.Schema.Contract, f.cfg.EntityKey, events.JSON, nil, entity); err != nil {
		return m, err
	}
	if m.label, err = f.claim(entity, &l); err == nil && len(m.label.Data) > maxLabel {
		return made{}, &events.InvalidError{Reason: fmt.Sprintf("a label of %d bytes: at most %d", len(m.label.Data), maxLabel)}
	}
	return m, err
}

// checkLabelColumns says what a table of labels lacks.
func (f *File) checkLabelColumns(columns []string) error {
	c := &f.cfg.Schema.Contract
	has := func(name string) bool { return name != "" && slices.Contains(columns, name) }
	if !has("id") && !has("seq") && !has(c.ID) {
		return fmt.Errorf("no column tells which event a label is for: want id or seq, there are %s", strings.Join(columns, ", "))
	}
	if !has("label") && (c.Label == nil || !has(c.Label.Column)) {
		return fmt.Errorf("no column is the label: want label, there are %s", strings.Join(columns, ", "))
	}
	return nil
}

// labelEntity names an entity for a label that does not: its subject must have one, though the event is told by id or seq.
func labelEntity(l *events.Label) string {
	if l.ID != "" {
		return l.ID
	}
	return strconv.FormatUint(l.Seq, 10)
}

// labelCells writes the cells of a label as JSON.
func (f *File) labelCells(columns, cells []string) (body []byte, entity string, err error) {
	contract := f.cfg.Schema.Contract.Label
	label := map[string]json.RawMessage{}
	for i, column := range columns {
		cell := strings.TrimSpace(cells[i])
		bad := func(want string) error {
			return &events.InvalidError{Field: column, Reason: fmt.Sprintf("is %q: want %s", cell, want)}
		}
		switch {
		case contract != nil && column == contract.Column && column != "label":
			switch {
			case cell == "":
				label["label"] = json.RawMessage("null")
			case slices.Contains(contract.Positive, cell):
				label["label"] = json.RawMessage("1")
			default:
				label["label"] = json.RawMessage("0")
			}
		case column == "label":
			switch cell {
			case "0", "1", "null":
				label["label"] = json.RawMessage(cell)
			case "":
				label["label"] = json.RawMessage("null")
			default:
				return nil, "", bad("1 (bad), 0 (good), or nothing (withdrawn)")
			}
		case cell == "":
		case column == "seq":
			if _, err := strconv.ParseUint(cell, 10, 64); err != nil {
				return nil, "", bad("an event's sequence")
			}
			label[column] = json.RawMessage(cell)
		case column == "entity":
			entity = cell
		case column == "id" || column == "known_at" || column == "source" || f.cfg.Schema.Contract.ID != "" && column == f.cfg.Schema.Contract.ID:
			if label[name(column)], err = json.Marshal(cell); err != nil {
				return nil, "", err
			}
		}
	}
	body, err = json.Marshal(label)
	return body, entity, err
}

// name of a label's field that a column stands for: what is none of its own is the contract's id.
func name(column string) string {
	switch column {
	case "id", "known_at", "source":
		return column
	}
	return "id"
}

// cutText takes a field out of a JSON object, and returns its text: a string's own, a number's or boolean's literal, ""
// for null or no such field.
func cutText(body []byte, field string) (rest []byte, text string, err error) {
	quoted, err := json.Marshal(field)
	if err != nil {
		return nil, "", err
	}
	if !bytes.Contains(body, quoted) && bytes.IndexByte(body, '\\') < 0 {
		return body, "", nil
	}
	broken := func(err error) ([]byte, string, error) {
		return nil, "", &events.InvalidError{Reason: fmt.Sprintf("not a JSON object: %v", err)}
	}
	in := json.NewDecoder(bytes.NewReader(body))
	if _, err := in.Token(); err != nil {
		return broken(err)
	}
	rest = append(make([]byte, 0, len(body)), '{')
	found := false
	for in.More() {
		from := in.InputOffset()
		key, err := in.Token()
		if err != nil {
			return broken(err)
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return broken(err)
		}
		if key != field {
			if len(rest) > 1 {
				rest = append(rest, ',')
			}
			rest = append(rest, bytes.TrimLeft(body[from:in.InputOffset()], ", \t\r\n")...)
			continue
		}
		if found {
			return nil, "", &events.InvalidError{Field: field, Reason: "stands twice"}
		}
		found = true
		switch {
		case value[0] == '"':
			if err := json.Unmarshal(value, &text); err != nil {
				return broken(err)
			}
		case value[0] == '{' || value[0] == '[':
			return nil, "", &events.InvalidError{Field: field, Reason: "is an object or an array: want a string, a number or a boolean"}
		case string(value) != "null":
			text = string(value)
		}
	}
	return append(rest, '}'), text, nil
}

// setID gives an event the id that it lacks.
func setID(body []byte, field, id string) ([]byte, error) {
	body, _, err := cutText(bytes.TrimSpace(body), field) // it may be null or empty
	if err != nil {
		return nil, err
	}
	pair, err := json.Marshal(map[string]string{field: id})
	if err != nil {
		return nil, err
	}
	inner := bytes.TrimSpace(body[1 : len(body)-1])
	if len(inner) == 0 {
		return pair, nil
	}
	return append(append(append(pair[:len(pair)-1], ','), inner...), '}'), nil
}
