package trainer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/memory"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/source"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// Splits of a file into training and test rows, by the rows' place in OfflineConfig's order.
const (
	SplitTime80 = "time80" // the last fifth is test
	SplitMod5   = "mod5"   // every fifth, from the fifth, is test
)

// OfflineConfig says how to train on a file of rows. Columns are named as in the file's header, or c1, c2, ... without one.
type OfflineConfig struct {
	Path   string
	Source source.Options

	Label    string   // column of the outcome, where a row is left out if empty; "": Contract's
	Positive []string // texts of the label that mean the bad outcome; none: Contract's, else the one of two that is 1, true or yes

	// Contract says which columns are read and as what. If nil it is made from the file: every column but Label and
	// Drop is a field; a number or a time if all of its cells can be read as one, else a category.
	Contract    *events.Contract
	Drop        []string
	Categorical []string // columns of numbers that are names, such as a postcode
	Missing     []string // COL=TEXT: the text means "no value" in that column
	Protected   []string // columns that no model may read
	Time        string   // column that holds the event's time
	Zone        string   // IANA zone in which parts of a date are taken; "": UTC

	// OrderBy is what the rows are put in order by before they are split; see ParseOrderKey. None: by Time if there
	// is one, else as they stand in the file.
	OrderBy []string
	Split   string // SplitTime80 or SplitMod5

	Known FileLabels // where the contract's memory is of labels

	Features feature.Options
	C        float64 // weight of the data against the penalty; 0: 1

	Members bool   // fit an ensemble: see FitInput
	Card    string // YAML of a scorecard, one of its members; "": there is none
}

// maxExamples bounds how many faults of a kind are shown.
const maxExamples = 5

// Offline trains on a file as the trainer does on a stream: each row becomes a record as if it had come as an event,
// and Fit does the rest. It reads the file twice, and holds the records in memory, not the file.
func Offline(ctx context.Context, cfg OfflineConfig) (Report, error) {
	encoding, err := feature.ParseEncoding(string(cfg.Features.Encoding))
	if err != nil {
		return Report{}, err
	}
	rep, data, rows, err := cfg.load(ctx)
	if err != nil {
		return Report{}, err
	}
	rep.Encoding = encoding
	in := FitInput{Data: data, Features: cfg.Features, LR: lr.Options{C: cfg.C}, Members: cfg.Members, Mixed: cfg.Split == SplitMod5}
	if cfg.Card != "" {
		if in.Card, err = readCard(cfg.Card, data.schema); err != nil {
			return Report{}, err
		}
	}
	in.Train, in.Test = partition(cfg.Split, rows)
	if rep.Fit, err = Fit(ctx, in); err != nil {
		return Report{}, fmt.Errorf("train on %s: %w", cfg.Path, err)
	}
	rep.fill(in)
	return rep, rep.members()
}

// load reads the file into a dataset, and says in which order its records are to be split. What it learns of the
// file stands in the report.
func (cfg OfflineConfig) load(ctx context.Context) (rep Report, data *Dataset, rows []int, err error) {
	if c := cfg.Contract; c != nil && c.Label != nil && cfg.Label == "" {
		cfg.Label = c.Label.Column
		if len(cfg.Positive) == 0 {
			cfg.Positive = c.Label.Positive
		}
	}
	order, err := cfg.check()
	if err != nil {
		return rep, nil, nil, err
	}
	rep = Report{File: cfg.Path, Label: cfg.Label, Split: cfg.Split}
	if rep.Contract, rep.Positive, err = cfg.contract(ctx); err != nil {
		return rep, nil, nil, err
	}
	schema, err := events.Compile(rep.Contract)
	if err != nil {
		return rep, nil, nil, fmt.Errorf("contract for %s: %w", cfg.Path, err)
	}
	plan, err := memory.Compile(schema)
	if err != nil {
		return rep, nil, nil, err
	}
	data = NewDataset(schema)
	known, err := newFileKnown(plan, cfg.Known, cfg.Label, rep.Positive)
	if err != nil {
		return rep, nil, nil, err
	}
	remembered := newRowMemory(plan, known)
	var rec events.Record
	rep.Format, err = scan(ctx, cfg.Path, cfg.Source, func(columns []string, row source.Row, fault error) error {
		rep.Rows++
		label := slices.Index(columns, cfg.Label)
		switch {
		case fault != nil:
			rep.refuse(fault)
			return nil
		case row.Cells[label] == "" && plan == nil:
			rep.Unlabelled++
			return nil
		}
		if err := readRow(schema, &rec, columns, row.Cells, cfg.Label); err != nil {
			rep.refuse(fmt.Errorf("%s:%d: %w", cfg.Path, row.Line, err))
			return nil
		}
		err := remembered.step(&rec, columns, &row)
		if _, again := errors.AsType[*repeatedRow](err); again {
			rep.refuse(fmt.Errorf("%s:%d: %w", cfg.Path, row.Line, err))
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", row.Line, err)
		}
		if row.Cells[label] == "" {
			rep.Unlabelled++
			return nil
		}
		data.Append(&rec, slices.Contains(rep.Positive, row.Cells[label]))
		order.add(columns, row.Cells, rec.Time)
		return nil
	})
	if err != nil {
		return rep, nil, nil, err
	}
	if data.Len() == 0 {
		return rep, nil, nil, fmt.Errorf("%s: none of %d rows can be trained on: %d invalid, %d without a label%s", cfg.Path, rep.Rows, rep.Invalid, rep.Unlabelled, firstOf(rep.Faults))
	}
	if rows, err = order.sorted(); err != nil {
		return rep, nil, nil, fmt.Errorf("%s: %w", cfg.Path, err)
	}
	return rep, data, rows, nil
}

func partition(how string, rows []int) (train, test []int) {
	if how == SplitMod5 {
		return Mod5(rows)
	}
	return Time80(rows)
}

// check refuses what can be told to be wrong without the file.
func (cfg *OfflineConfig) check() (*order, error) {
	switch {
	case cfg.Path == "-":
		return nil, errors.New("training reads its rows twice: give a file, not stdin")
	case cfg.Label == "":
		return nil, errors.New("no label: name its column")
	case cfg.Split != SplitTime80 && cfg.Split != SplitMod5:
		return nil, fmt.Errorf("split %q: want %s or %s", cfg.Split, SplitTime80, SplitMod5)
	case cfg.Contract != nil && (len(cfg.Drop) > 0 || len(cfg.Categorical) > 0 || len(cfg.Missing) > 0 || len(cfg.Protected) > 0 || cfg.Time != "" || cfg.Zone != ""):
		return nil, errors.New("a contract says itself what its fields are: leave out drop, categorical, missing, protected, time and zone")
	}
	o := &order{}
	for _, text := range cfg.OrderBy {
		k, err := ParseOrderKey(text)
		if err != nil {
			return nil, err
		}
		o.keys = append(o.keys, orderColumn{OrderKey: k})
	}
	o.byTime = len(o.keys) == 0 && (cfg.Time != "" || cfg.Contract != nil && cfg.Contract.Time != "")
	return o, nil
}

// readRow makes a record of a row, as if it had come as an event.
func readRow(schema *events.Schema, rec *events.Record, columns, cells []string, label string) error {
	rec.Reset(schema)
	for i, c := range columns {
		if c == label {
			continue
		}
		if err := schema.SetText(rec, c, cells[i]); err != nil {
			return err
		}
	}
	if err := schema.Check(rec); err != nil {
		return err
	}
	if c := schema.Contract.Time; c != "" && rec.Time.IsZero() {
		return fmt.Errorf("field %s: has no time, and a row of a file has no other", c)
	}
	return nil
}

// scan calls f for each row of the file. fault says why a row is malformed: it has no cells then.
func scan(ctx context.Context, path string, o source.Options, f func(columns []string, row source.Row, fault error) error) (format source.Format, err error) {
	r, err := source.Open(path, o)
	if err != nil {
		return "", fmt.Errorf("open rows: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	if r.Format() == source.JSONLines {
		return "", fmt.Errorf("%s: offline training reads csv, arff and space-separated columns, not JSON lines: convert it to CSV", path)
	}
	for {
		if err := ctx.Err(); err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
		row, err := r.Next()
		var malformed *source.RowError
		switch {
		case errors.Is(err, io.EOF):
			return r.Format(), nil
		case errors.As(err, &malformed):
			err = f(r.Columns(), source.Row{Index: row.Index, Line: row.Line}, malformed)
		case err == nil:
			err = f(r.Columns(), row, nil)
		}
		if err != nil {
			return "", fmt.Errorf("read %s: %w", path, err)
		}
	}
}

func firstOf(faults []string) string {
	if len(faults) == 0 {
		return ""
	}
	return "; the first: " + strings.TrimSpace(faults[0])
}

// readCard reads a scorecard and checks it against the contract.
func readCard(path string, schema *events.Schema) (*model.Scorecard, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("scorecard: %w", err)
	}
	card, err := model.ParseScorecard(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := card.Check(schema); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return card, nil
}
