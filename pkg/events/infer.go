package events

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// InferOptions are what data cannot say of itself.
type InferOptions struct {
	Entity      string   // column that names the entity
	ID          string   // column of the event's id; empty: found by name, see InferContract
	Time        string   // column of the event's time; empty: found by name
	Label       string   // column of the label; empty: none
	Positive    []string // label values that mean the bad outcome; empty: the usual ones, see InferContract
	Categorical []string // columns of codes: categories though they look like numbers
}

// InferContract makes a first contract for a table, from its columns and a sample of its rows. It
// is meant to be read and corrected by a person; the notes, a line each, say what to look at.
//
//	id        a column called id, or else the first that ends in _id, if each row has a value of its own
//	time      a column called time, timestamp, datetime or date, if all its times bear a zone
//	label     only by option; the positive values are those of 1, true, yes, y, bad, fraud that occur
//
// The columns left are fields, none of them required. Empty cells count for nothing, and neither do ?, NA, N/A,
// NaN, null and None, in any case of letters, where without them the column is no category; they become
// the field's missing values. Then:
//
//	number    every cell is a finite number, and none has a leading zero, as codes have (007)
//	bool      every cell is true or false (or True, TRUE, ...)
//	time      every cell is an RFC 3339 time with a zone
//	category  all else, and what InferOptions.Categorical names
//
// With a label, the prior is the share of positive rows.
func InferContract(kind string, columns []string, rows iter.Seq[[]string], o InferOptions) (Contract, []string, error) {
	cols := newColumns()
	for _, name := range columns {
		if _, twice := cols.index[name]; twice {
			return Contract{}, nil, fmt.Errorf("infer %s: column %q stands twice", kind, name)
		}
		cols.of(name)
	}
	for cells := range rows {
		if len(cells) != len(columns) {
			cols.ragged++
			continue
		}
		cols.rows++
		for i, text := range cells {
			cols.list[i].cell(text)
		}
	}
	return cols.contract(kind, o)
}

// InferJSON is InferContract for events in JSON. The type of a value counts, not its looks: "12" is
// a string. Names of nested values become no field, and are noted.
func InferJSON(kind string, bodies iter.Seq[[]byte], o InferOptions) (Contract, []string, error) {
	cols := newColumns()
	n := 0
	for body := range bodies {
		n++
		var r reader
		e := r.open(JSON, body)
		if e == nil {
			e = r.each(func(name string, t *token) string {
				cols.of(strings.Clone(name)).value(t)
				return ""
			})
		}
		if e != nil {
			return Contract{}, nil, fmt.Errorf("infer %s: event %d: %w", kind, n, e)
		}
		cols.rows++
	}
	return cols.contract(kind, o)
}

type columnSet struct {
	list         []*column
	index        map[string]int
	rows, ragged int
}

func newColumns() *columnSet { return &columnSet{index: map[string]int{}} }

func (s *columnSet) of(name string) *column {
	i, ok := s.index[name]
	if !ok {
		i = len(s.list)
		s.index[name] = i
		s.list = append(s.list, &column{name: name, unique: isIDName(name), values: map[string]int{}})
	}
	return s.list[i]
}

// column counts what its cells could be. A cell may be counted in several ways.
//
//	texts + words = cells that are not empty
type column struct {
	name                           string
	texts                          int // cells that are none of noValue
	words                          map[string]int
	numbers, bools, times          int // of texts
	zoneless, codes, quoted, nests int // of texts: times without a zone; leading zeros; numbers in JSON strings; nested
	dressed                        int // of texts: numbers but for separators, a currency or a per cent sign
	unique                         bool
	values                         map[string]int // how often each occurs: all while unique, else at most maxLevels
}

// maxLevels is the most values that a label may have.
const maxLevels = 64

// noValue are the words that mean no value, in small letters.
var noValue = []string{"?", "na", "n/a", "nan", "null", "none"}

func isIDName(name string) bool {
	l := strings.ToLower(name)
	return l == "id" || strings.HasSuffix(l, "_id")
}

func isTimeName(name string) bool {
	return slices.Contains([]string{"time", "timestamp", "datetime", "date"}, strings.ToLower(name))
}

func (c *column) cell(text string) {
	trimmed := strings.Trim(text, " \t")
	if trimmed == "" {
		return
	}
	if c.word(trimmed) {
		c.count(text)
		return
	}
	c.texts++
	c.count(text)
	if isDressed(trimmed) {
		c.dressed++
	}
	var n token
	literal := appendLiteral(nil, trimmed)
	switch {
	case len(literal) > 0 && scanNumber(literal, 0, &n) == len(literal) && finite(n.num):
		c.numbers++
		digits := strings.TrimLeft(trimmed, "+-")
		if len(digits) > 1 && digits[0] == '0' && isDigit(digits[1]) {
			c.codes++
		}
	default:
		if _, ok := boolText(trimmed); ok {
			c.bools++
			return
		}
		c.clock(trimmed)
	}
}

// isDressed says whether text is a number as people write them: 1,200.50, 1.200,50, 12,5, $3 or 4.5 %.
func isDressed(text string) bool {
	bare := strings.Trim(text, "+-$€£¥% ")
	if bare == "" || !isDigit(bare[0]) {
		return false
	}
	digits, dress := 0, bare != strings.Trim(text, "+-")
	for i := range len(bare) {
		switch {
		case isDigit(bare[i]):
			digits++
		case bare[i] == ',' || bare[i] == '\'' || bare[i] == ' ':
			dress = true
		case bare[i] != '.':
			return false
		}
	}
	return digits > 0 && dress
}

func (c *column) value(t *token) {
	switch t.kind {
	case kindNull:
		return
	case kindArray, kindObject:
		c.texts++
		c.nests++
		return
	case kindString:
		text := string(t.text)
		if text == "" {
			return
		}
		c.count(text)
		if c.word(text) {
			return
		}
		c.texts++
		var n token
		if scanNumber(t.text, 0, &n) == len(t.text) {
			c.quoted++
		}
		c.clock(text)
	case kindNumber:
		c.texts++
		c.count(string(t.text))
		if finite(t.num) {
			c.numbers++
		}
	case kindBool:
		c.texts++
		c.bools++
		c.count(string(t.appendText(nil)))
	}
}

// word counts a text that means no value.
func (c *column) word(text string) bool {
	if !slices.Contains(noValue, strings.ToLower(text)) {
		return false
	}
	if c.words == nil {
		c.words = map[string]int{}
	}
	c.words[text]++
	return true
}

func (c *column) clock(text string) {
	at, reason := parseTime([]byte(text))
	switch {
	case reason == "" && at.Year() >= 1 && at.Year() <= 9999 && !at.IsZero():
		c.times++
	case strings.HasPrefix(reason, "has no time zone"):
		c.zoneless++
	}
}

func (c *column) count(text string) {
	_, known := c.values[text]
	if known {
		c.unique = false
	}
	if known || c.unique || len(c.values) < maxLevels {
		c.values[text]++
	}
}

// field is the column's type, with the words that mean missing in it.
func (c *column) field() Field {
	f := Field{Name: c.name, Type: Category}
	switch {
	case c.texts == 0 || c.nests > 0:
		return f
	case c.numbers == c.texts && c.codes == 0:
		f.Type = Number
	case c.bools == c.texts:
		f.Type = Bool
	case c.times == c.texts:
		f.Type = Time
	default:
		return f
	}
	for w := range c.words {
		f.Missing = append(f.Missing, w)
	}
	slices.Sort(f.Missing)
	return f
}

func (s *columnSet) contract(kind string, o InferOptions) (Contract, []string, error) {
	if s.rows == 0 {
		return Contract{}, nil, fmt.Errorf("infer %s: no rows", kind)
	}
	for _, name := range append([]string{o.Entity, o.ID, o.Time, o.Label}, o.Categorical...) {
		if _, ok := s.index[name]; name != "" && !ok {
			return Contract{}, nil, fmt.Errorf("infer %s: no column %q", kind, name)
		}
	}
	c := DefaultContract()
	c.Kind, c.Entity, c.ID, c.Time = kind, o.Entity, o.ID, o.Time
	var notes []string
	note := func(format string, a ...any) { notes = append(notes, fmt.Sprintf(format, a...)) }
	if s.ragged > 0 {
		note("%d rows do not have a cell for each column: left out", s.ragged)
	}
	if o.Label != "" {
		if err := s.label(&c, o); err != nil {
			return Contract{}, nil, fmt.Errorf("infer %s: %w", kind, err)
		}
	}
	for _, x := range s.list {
		taken := x.name == o.Label || x.name == o.Entity
		if c.Time == "" && !taken && isTimeName(x.name) && x.field().Type == Time && len(x.words) == 0 {
			c.Time = x.name
		}
		if x.unique && x.texts == s.rows && !taken && x.name != c.Time && (c.ID == "" || o.ID == "" && strings.EqualFold(x.name, "id") && !strings.EqualFold(c.ID, "id")) {
			c.ID = x.name
		}
	}
	for _, x := range s.list {
		if x.name == c.ID || x.name == c.Entity || x.name == c.Time || x.name == o.Label {
			continue
		}
		f := x.field()
		if slices.Contains(o.Categorical, x.name) {
			f = Field{Name: x.name, Type: Category}
		}
		switch {
		case x.nests > 0:
			note("%s: nested, so no field: it is kept with the event and ignored", x.name)
			continue
		case x.texts == 0:
			note("%s: has no value in these rows: taken for a category", x.name)
		case f.Type == Category && x.zoneless > 0:
			note("%s: holds times without a zone: a category now; give them a zone to make it a time", x.name)
		case f.Type == Category && x.texts > 0 && x.dressed > 0 && x.dressed+x.numbers == x.texts:
			note("%s: numbers with separators, a currency or a per cent sign: a category now, of which a model learns little; write them as 1200.50 to make it a number", x.name)
		case f.Type == Category && x.codes > 0 && x.numbers == x.texts:
			note("%s: numbers with leading zeros: taken for codes, a category", x.name)
		case f.Type == Category && x.quoted == x.texts:
			note("%s: numbers in strings: a category now; if it is an amount make it money, with its currency", x.name)
		}
		c.Fields = append(c.Fields, f)
	}
	if i, ok := s.index[c.Time]; ok && s.list[i].times < s.list[i].texts {
		x := s.list[i]
		if x.times == 0 {
			return Contract{}, nil, fmt.Errorf("infer %s: %s is to be the event's time, and no value of it is an RFC 3339 time with a zone, such as 2026-01-31T08:30:00Z: every row would be refused", kind, x.name)
		}
		note("%s: is the event's time, and %d of %d are no RFC 3339 times with a zone", x.name, x.texts-x.times, x.texts)
	}
	if c.Time == "" {
		note("no column is the event's time: events bear the time at which they are stored")
	}
	if c.Entity == "" {
		note("no column is the entity: whoever publishes must name it in the subject")
	}
	return c, notes, c.Validate()
}

// label finds the positive values, and the prior that follows from them.
func (s *columnSet) label(c *Contract, o InferOptions) error {
	x := s.list[s.index[o.Label]]
	positive := o.Positive
	if len(positive) == 0 {
		for v := range x.values {
			if slices.Contains([]string{"1", "true", "yes", "y", "bad", "fraud"}, strings.ToLower(v)) {
				positive = append(positive, v)
			}
		}
		slices.Sort(positive)
	}
	if len(x.values) >= maxLevels {
		return fmt.Errorf("label %s has %d values or more: that is no label", x.name, maxLevels)
	}
	if len(positive) == 0 {
		return errors.New("label " + x.name + ": which of its values mean the bad outcome? Say so: none of them is 1, true, yes, y, bad or fraud")
	}
	bad, all := 0, 0
	for v, n := range x.values {
		all += n
		if slices.Contains(positive, v) {
			bad += n
		}
	}
	c.Label = &LabelColumn{Column: x.name, Positive: positive}
	if bad > 0 && bad < all {
		share, err := strconv.ParseFloat(strconv.FormatFloat(float64(bad)/float64(all), 'g', 4, 64), 64)
		if err != nil {
			return err
		}
		c.Prior = share
	}
	return nil
}
