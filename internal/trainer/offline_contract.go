package trainer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
)

// maxLabelTexts bounds the texts that a label column is looked at for.
const maxLabelTexts = 32

// inspector reads all rows once to learn what their columns hold. A column is a number if Schema.SetText takes
// every cell for one, so that the second reading cannot refuse what the first one took.
type inspector struct {
	cfg     *OfflineConfig
	missing map[string][]string // column -> texts that mean "no value"

	columns []string
	number  *trial
	time    *trial
	labels  []string // in the order of appearance, at most maxLabelTexts + 1
}

// trial is a schema that takes every column for the one type, and which columns have not broken it.
type trial struct {
	schema *events.Schema
	rec    events.Record
	holds  []bool // by column
}

// contract is the one given, or else what the file's columns say; and the texts of the label that mean the bad outcome.
func (cfg *OfflineConfig) contract(ctx context.Context) (events.Contract, []string, error) {
	in := &inspector{cfg: cfg, missing: map[string][]string{}}
	for _, m := range cfg.Missing {
		column, text, ok := strings.Cut(m, "=")
		if !ok || column == "" {
			return events.Contract{}, nil, fmt.Errorf("missing %q: want COLUMN=TEXT", m)
		}
		in.missing[column] = append(in.missing[column], text)
	}
	if _, err := scan(ctx, cfg.Path, cfg.Source, in.row); err != nil {
		return events.Contract{}, nil, err
	}
	if in.columns == nil {
		return events.Contract{}, nil, fmt.Errorf("%s has no rows", cfg.Path)
	}
	positive, err := in.positive()
	if err != nil {
		return events.Contract{}, nil, err
	}
	if cfg.Contract != nil {
		return *cfg.Contract, positive, nil
	}
	c := in.offlineContract(func(i int) events.FieldType {
		switch {
		case slices.Contains(cfg.Categorical, in.columns[i]):
			return events.Category
		case in.number.holds[i]:
			return events.Number
		case in.time.holds[i]:
			return events.Time
		}
		return events.Category
	})
	c.Label = &events.LabelColumn{Column: cfg.Label, Positive: positive}
	return c, positive, nil
}

// offlineContract has a field for each column that is neither the label nor dropped.
func (in *inspector) offlineContract(typeOf func(column int) events.FieldType) events.Contract {
	c := events.DefaultContract()
	c.Kind = "offline"
	c.Time = in.cfg.Time
	if in.cfg.Zone != "" {
		c.Zone = in.cfg.Zone
	}
	for i, name := range in.columns {
		if name == in.cfg.Label || name == in.cfg.Time || slices.Contains(in.cfg.Drop, name) {
			continue
		}
		c.Fields = append(c.Fields, events.Field{
			Name: name, Type: typeOf(i), Missing: in.missing[name], Protected: slices.Contains(in.cfg.Protected, name),
		})
	}
	return c
}

func (in *inspector) row(columns []string, row source.Row, fault error) error {
	if in.columns == nil {
		if err := in.start(columns); err != nil {
			return err
		}
	}
	if fault != nil {
		return nil
	}
	label := row.Cells[slices.Index(columns, in.cfg.Label)]
	if label != "" && len(in.labels) <= maxLabelTexts && !slices.Contains(in.labels, label) {
		in.labels = append(in.labels, label)
	}
	in.number.see(columns, row.Cells)
	in.time.see(columns, row.Cells)
	return nil
}

func (in *inspector) start(columns []string) error {
	in.columns = slices.Clone(columns)
	named := slices.Concat(in.cfg.Drop, in.cfg.Categorical, in.cfg.Protected, []string{in.cfg.Label})
	if in.cfg.Time != "" {
		named = append(named, in.cfg.Time)
	}
	for column := range in.missing {
		named = append(named, column)
	}
	for _, name := range named {
		if !slices.Contains(columns, name) {
			return fmt.Errorf("no column %s: the file has %s", name, shortList(columns, 40))
		}
	}
	if in.cfg.Contract != nil {
		in.number, in.time = &trial{}, &trial{}
		return nil
	}
	var err error
	if in.number, err = in.newTrial(events.Number); err != nil {
		return err
	}
	in.time, err = in.newTrial(events.Time)
	return err
}

func (in *inspector) newTrial(t events.FieldType) (*trial, error) {
	c := in.offlineContract(func(int) events.FieldType { return t })
	schema, err := events.Compile(c)
	if err != nil {
		return nil, err
	}
	tr := &trial{schema: schema, holds: make([]bool, len(in.columns))}
	tr.rec.Reset(schema)
	for i, name := range in.columns {
		tr.holds[i] = slices.ContainsFunc(c.Fields, func(f events.Field) bool { return f.Name == name }) && !slices.Contains(in.cfg.Categorical, name)
	}
	return tr, nil
}

func (t *trial) see(columns, cells []string) {
	t.rec.Reset(t.schema)
	for i := range t.holds {
		if t.holds[i] {
			t.holds[i] = t.schema.SetText(&t.rec, columns[i], cells[i]) == nil
		}
	}
}

// positive is OfflineConfig.Positive, or what the label's texts say by themselves.
func (in *inspector) positive() ([]string, error) {
	shown := shortList(in.labels, maxExamples)
	if p := in.cfg.Positive; len(p) > 0 {
		for _, text := range p {
			if !slices.Contains(in.labels, text) && len(in.labels) <= maxLabelTexts {
				return nil, fmt.Errorf("label %s is never %q: it is %s", in.cfg.Label, text, shown)
			}
		}
		return p, nil
	}
	var found []string
	for _, text := range in.labels {
		switch strings.ToLower(text) {
		case "1", "true", "yes":
			found = append(found, text)
		}
	}
	if len(in.labels) != 2 || len(found) != 1 {
		return nil, fmt.Errorf("label %s is %s: say which of them mean the bad outcome", in.cfg.Label, shown)
	}
	return found, nil
}

func shortList(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
