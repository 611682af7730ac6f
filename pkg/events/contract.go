package events

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// FieldType is how a field's value is read.
type FieldType string

const (
	Number   FieldType = "number"   // a finite JSON or msgpack number
	Money    FieldType = "money"    // see Field.Minor
	Category FieldType = "category" // a string; numbers and booleans are taken by their text
	Bool     FieldType = "bool"
	Time     FieldType = "time" // RFC 3339 with a zone
)

// Field is one named input of an event.
type Field struct {
	Name      string    `yaml:"name"`
	Type      FieldType `yaml:"type"`
	Required  bool      `yaml:"required,omitempty"`
	Unit      string    `yaml:"unit,omitempty"`
	Currency  string    `yaml:"currency,omitempty"`  // money: ISO 4217 code
	Minor     int       `yaml:"minor,omitempty"`     // money: 0, a decimal string or number of major units; n, an integer of units of 10^-n
	Missing   []string  `yaml:"missing,omitempty"`   // texts that mean "no value", such as 999 or ?
	Sensitive bool      `yaml:"sensitive,omitempty"` // never in logs, alerts or reasons
	Protected bool      `yaml:"protected,omitempty"` // carried to measure by, never a model input
	Key       bool      `yaml:"key,omitempty"`       // names someone, as the entity does: for memory to go by, no input of a model
	Past      bool      `yaml:"past,omitempty"`      // says how the event ended: for later events' memory, no input of a model of this one

	// What memory remembers does not depend on these, and its name is of the JSON.
	Sign string `yaml:"sign,omitempty" json:"-"` // "+": a larger value should raise the risk; "-": lower it
	Code string `yaml:"code,omitempty" json:"-"` // of reasons; none: see ReasonCode
}

// LabelColumn says which column of a file is its label.
type LabelColumn struct {
	Column   string   `yaml:"column"`
	Positive []string `yaml:"positive"` // texts that mean the bad outcome; all others mean the good one
}

// Thresholds turn a probability into a band: p >= High is high, p >= Medium is medium, the rest is low.
type Thresholds struct {
	Medium float64 `yaml:"medium"`
	High   float64 `yaml:"high"`
}

// Decisions say what follows from a band, or from a score that was not made as it should.
type Decisions struct {
	Low    string `yaml:"low"`
	Medium string `yaml:"medium"`
	High   string `yaml:"high"`
	Prior  string `yaml:"prior"`
	Stale  string `yaml:"stale"`
	Late   string `yaml:"late"`

	MemberMissing string `yaml:"member_missing"` // a member of the model did not vote
}

// Retention bounds how long the streams of a kind keep what they hold.
type Retention struct {
	Events Duration `yaml:"events"`
	Scores Duration `yaml:"scores"`
}

// Contract declares a kind: what its events look like, how its scores are decided on, how long things are kept.
type Contract struct {
	Kind        string       `yaml:"kind"`
	Version     int          `yaml:"version"`
	Description string       `yaml:"description,omitempty"`
	ID          string       `yaml:"id,omitempty"`          // field that holds the event's id; none: the stream sequence is the id
	Entity      string       `yaml:"entity,omitempty"`      // field that names the entity; it must agree with the subject
	EntityHash  bool         `yaml:"entity_hash,omitempty"` // entities are stored under a keyed hash, which ingest makes: see HashEntity
	Time        string       `yaml:"time,omitempty"`        // field that holds the event's time; none: when it was stored
	Zone        string       `yaml:"zone,omitempty"`        // IANA zone in which date parts are taken; UTC by default
	Label       *LabelColumn `yaml:"label,omitempty"`
	Fields      []Field      `yaml:"fields"`
	Memory      *Memory      `yaml:"memory,omitempty"`   // what an event remembers of those before it
	Maturity    Duration     `yaml:"maturity,omitempty"` // event age at which no label means 0; 0: never
	Prior       float64      `yaml:"prior"`              // probability before the first model
	Thresholds  Thresholds   `yaml:"thresholds"`
	Decisions   Decisions    `yaml:"decisions"`
	Lanes       int          `yaml:"lanes"` // fixed when the kind is made
	Retention   Retention    `yaml:"retention"`
	Rollout     *Rollout     `yaml:"rollout,omitempty"` // how versions of its model come into force
	Reasons     *Reasons     `yaml:"reasons,omitempty"` // what reason codes mean, in people's languages
}

// Duration is a time.Duration that YAML writes as 90d, 36h or 10s.
type Duration time.Duration

func (d Duration) String() string {
	t := time.Duration(d)
	if t != 0 && t%(24*time.Hour) == 0 {
		return strconv.FormatInt(int64(t/(24*time.Hour)), 10) + "d"
	}
	return t.String()
}

func (d Duration) MarshalYAML() (any, error) { return d.String(), nil }

func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := ParseDuration(n.Value)
	if err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	*d = Duration(v)
	return nil
}

// ParseDuration is time.ParseDuration with days: 90d.
func ParseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("duration %q: want a whole number of days such as 90d", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("duration %q: want one such as 90d, 36h or 10s", s)
	}
	return d, nil
}

// DefaultContract has every setting that a contract may leave out.
func DefaultContract() Contract {
	return Contract{
		Version:    1,
		Zone:       "UTC",
		Prior:      0.5,
		Thresholds: Thresholds{Medium: 0.1, High: 0.5},
		Decisions:  Decisions{Low: Approve, Medium: Review, High: Decline, Prior: Review, Stale: Review, Late: Review, MemberMissing: Review},
		Lanes:      8,
		Retention:  Retention{Events: Duration(30 * 24 * time.Hour), Scores: Duration(90 * 24 * time.Hour)},
	}
}

// ParseContract reads one contract in YAML over DefaultContract. Unknown keys are errors.
func ParseContract(text []byte) (Contract, error) {
	c := DefaultContract()
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			return c, errors.New("contract is empty")
		}
		return c, fmt.Errorf("contract: %w", err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return c, errors.New("contract: something follows it: want one document")
	}
	return c, c.Validate()
}

// YAML writes the contract so that ParseContract reads it back.
func (c Contract) YAML() ([]byte, error) {
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("contract %s: %w", c.Kind, err)
	}
	return b.Bytes(), nil
}

// maxContractFields leaves room for id, entity, time and label.
const maxContractFields = MaxFields - 4

// Validate returns all that is wrong with the contract, joined.
func (c Contract) Validate() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("contract %s: "+format, append([]any{c.Kind}, a...)...))
	}
	if err := CheckKind(c.Kind); err != nil {
		errs = append(errs, err)
	}
	if c.Version < 1 {
		bad("version %d: want 1 or more", c.Version)
	}
	if c.Lanes < 1 || c.Lanes > MaxLanes {
		bad("lanes %d: want 1 to %d", c.Lanes, MaxLanes)
	}
	if _, err := time.LoadLocation(c.Zone); err != nil {
		bad("zone %q: %v", c.Zone, err)
	} else if c.Zone == "Local" {
		bad("zone Local differs from machine to machine: name one such as Europe/Berlin")
	}
	if !(c.Prior >= 0 && c.Prior <= 1) {
		bad("prior %v: want a probability", c.Prior)
	}
	if t := c.Thresholds; !(t.Medium >= 0 && t.Medium <= t.High && t.High <= 1) {
		bad("thresholds medium %v, high %v: want 0 <= medium <= high <= 1", t.Medium, t.High)
	}
	d := c.Decisions
	for _, x := range []struct{ name, v string }{{"low", d.Low}, {"medium", d.Medium}, {"high", d.High}, {"prior", d.Prior}, {"stale", d.Stale}, {"late", d.Late}, {"member_missing", d.MemberMissing}} {
		if x.v != Approve && x.v != Review && x.v != Decline {
			bad("decision for %s is %q: want approve, review or decline", x.name, x.v)
		}
	}
	if c.Retention.Events < Duration(time.Minute) || c.Retention.Scores < c.Retention.Events {
		bad("retention events %s, scores %s: want events >= 1m, and scores no shorter, since a position must outlive its event", c.Retention.Events, c.Retention.Scores)
	}
	switch {
	case len(c.Fields) == 0:
		bad("no fields")
	case len(c.Fields) > maxContractFields:
		bad("%d fields: at most %d", len(c.Fields), maxContractFields)
	case c.EntityHash && c.ID != "" && c.ID == c.Entity:
		bad("field %s is the id and the entity, and entity_hash would change the id: take another id", c.ID)
	case c.Time != "" && (c.Time == c.ID || c.Time == c.Entity):
		bad("field %s is the time and the id or entity as well", c.Time)
	case c.Label != nil && slices.Contains([]string{c.ID, c.Entity, c.Time}, c.Label.Column):
		bad("label column %s is the id, entity or time as well", c.Label.Column)
	}
	seen := map[string]bool{}
	for _, f := range c.Fields {
		switch {
		case f.Name == "" || len(f.Name) > 128 || !utf8.ValidString(f.Name):
			bad("field name %q: want 1 to 128 bytes of UTF-8", f.Name)
		case seen[f.Name]:
			bad("field %s stands twice", f.Name)
		case f.Name == c.ID || f.Name == c.Entity || f.Name == c.Time:
			bad("field %s is the event's id, entity or time: take it from the fields", f.Name)
		case c.Label != nil && f.Name == c.Label.Column:
			bad("field %s is the label: a model that reads it would know the answer", f.Name)
		}
		seen[f.Name] = true
		switch f.Type {
		case Number, Category, Bool, Time:
			if f.Currency != "" || f.Minor != 0 {
				bad("field %s: currency and minor belong to type money", f.Name)
			}
		case Money:
			if len(f.Currency) != 3 {
				bad("field %s: money needs a currency such as EUR", f.Name)
			}
			if f.Minor < 0 || f.Minor > 4 {
				bad("field %s: minor %d: want 0 to 4", f.Name, f.Minor)
			}
		default:
			bad("field %s: type %q: want number, money, category, bool or time", f.Name, f.Type)
		}
	}
	if c.Label != nil && (c.Label.Column == "" || len(c.Label.Positive) == 0) {
		bad("label needs a column and at least one positive value")
	}
	if c.Memory != nil {
		errs = append(errs, c.Memory.validate(&c))
	}
	if c.Rollout != nil {
		errs = append(errs, c.Rollout.validate(&c))
	}
	errs = append(errs, c.checkReasons())
	return errors.Join(errs...)
}

// Band of a probability under the contract's thresholds.
func (c *Contract) Band(p float64) string {
	switch {
	case p >= c.Thresholds.High:
		return BandHigh
	case p >= c.Thresholds.Medium:
		return BandMedium
	}
	return BandLow
}

// Decide says what follows from a score's mode and band.
func (c *Contract) Decide(mode, band string) string {
	base, _, missing := strings.Cut(mode, "-")
	switch {
	case base == ModePrior:
		return c.Decisions.Prior
	case base == ModeStale && missing:
		return stricter(c.Decisions.Stale, c.Decisions.MemberMissing)
	case base == ModeStale:
		return c.Decisions.Stale
	case base == ModeLate:
		return c.Decisions.Late
	case missing:
		return c.Decisions.MemberMissing
	}
	switch band {
	case BandHistory:
		return None
	case BandLow:
		return c.Decisions.Low
	case BandMedium:
		return c.Decisions.Medium
	}
	return c.Decisions.High
}
