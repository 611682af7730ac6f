package trainer

import (
	"iter"
	"math"
	"time"

	"github.com/riskweir/riskweir/pkg/events"
)

// Dataset holds labelled records of one schema, field by field: 8 bytes a number, 4 a category. What it gives back
// encodes to the same bits as what it was given. It is not safe for concurrent use.
type Dataset struct {
	schema *events.Schema
	fields []storedField
	times  []int64 // Unix seconds, which is all that a date part needs
	labels []bool  // true: the bad outcome
}

// storedField holds one value a record, in numbers or in codes by the field's type.
type storedField struct {
	numbers []float64 // NaN: missing
	codes   []uint32  // of texts; 0: missing
	texts   [][]byte  // texts[0] is not used
	code    map[string]uint32
}

// NewDataset makes an empty set of records that were decoded under the schema.
func NewDataset(schema *events.Schema) *Dataset {
	d := &Dataset{schema: schema, fields: make([]storedField, len(schema.Inputs))}
	for i, f := range schema.Inputs {
		if f.Type == events.Category {
			d.fields[i].texts = [][]byte{nil}
			d.fields[i].code = map[string]uint32{}
		}
	}
	return d
}

// Append copies a record with its label, true for the bad outcome. The caller appends in time order if
// the split is to be one in time, and has set rec.Time to when the event was stored if it gave none.
func (d *Dataset) Append(rec *events.Record, bad bool) {
	for i := range d.fields {
		f, v := &d.fields[i], &rec.Values[i]
		switch {
		case f.code == nil && v.State == events.HasNum:
			f.numbers = append(f.numbers, v.Num)
		case f.code == nil:
			f.numbers = append(f.numbers, math.NaN())
		case v.State == events.HasText:
			c, ok := f.code[string(v.Text)]
			if !ok {
				c = uint32(len(f.texts))
				text := string(v.Text)
				f.texts = append(f.texts, []byte(text))
				f.code[text] = c
			}
			f.codes = append(f.codes, c)
		default:
			f.codes = append(f.codes, 0)
		}
	}
	d.times = append(d.times, rec.Time.Unix())
	d.labels = append(d.labels, bad)
}

func (d *Dataset) Schema() *events.Schema { return d.schema }

func (d *Dataset) Len() int { return len(d.labels) }

// Label is 1 for the bad outcome and 0 for the good one.
func (d *Dataset) Label(i int) float64 {
	if d.labels[i] {
		return 1
	}
	return 0
}

// Time of record i, to the second.
func (d *Dataset) Time(i int) time.Time { return time.Unix(d.times[i], 0).UTC() }

// Record puts record i into rec, without its id and entity. Texts alias the dataset.
func (d *Dataset) Record(i int, rec *events.Record) {
	if len(rec.Values) != len(d.fields) {
		rec.Values = make([]events.Value, len(d.fields))
	}
	rec.ID, rec.Entity, rec.Unknown = nil, nil, 0
	rec.Time = d.Time(i)
	for j := range d.fields {
		f, v := &d.fields[j], &rec.Values[j]
		*v = events.Value{}
		switch {
		case f.code == nil && !math.IsNaN(f.numbers[i]):
			v.State, v.Num = events.HasNum, f.numbers[i]
		case f.code != nil && f.codes[i] != 0:
			v.State, v.Text = events.HasText, f.texts[f.codes[i]]
		}
	}
}

// Records yields the records at the given indices, in one record that is used again.
func (d *Dataset) Records(index []int) iter.Seq[*events.Record] {
	return func(yield func(*events.Record) bool) {
		var rec events.Record
		for _, i := range index {
			d.Record(i, &rec)
			if !yield(&rec) {
				return
			}
		}
	}
}
