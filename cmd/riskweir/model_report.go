package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/riskweir/riskweir/internal/dossier"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/trainer"
	topology "github.com/riskweir/riskweir/jetstream"
)

const modelReportHelp = `Write what is known of a version on one HTML page, for a validator: purpose, data, weights with their standard errors and signs, performance over time and
by protected group, stability, limits, approvals.

It is computed from EVENTS and LABELS as they are now, joined and encoded as the trainer does it; or from a file of labelled rows, with
--file. The page needs nothing but itself. Nothing else is written.

Examples:

  riskweir model report payment v3 --context riskweir
  riskweir model report loan v1 --file loans.csv --split time80 --out v1.html`

// reportFlags are those of model report alone.
type reportFlags struct {
	out   string
	file  trainer.OfflineConfig
	split string
	rows  int
}

func (a *app) modelReport(ctx context.Context, f *modelFlags, r registered) error {
	version, err := model.ParseVersion(f.kind, f.version)
	if err != nil {
		return err
	}
	in := dossier.Input{Schema: r.schema, Now: time.Now().UTC()}
	if in.Artifact, err = r.registry.Keyed(nil, nil).Get(ctx, f.kind, version); err != nil { // signed or not: it is told of
		return advised(err, f.kind)
	}
	in.Signed = signedText(in.Artifact, r.trust)
	rollout, _, err := r.registry.Rollout(ctx, f.kind)
	if err != nil && !errors.Is(err, model.ErrRollout) {
		return err
	}
	in.State = stageOf(rollout, version)
	if in.Log, err = approvals(ctx, r, f.kind, version); err != nil {
		return err
	}
	if err := f.report.gather(ctx, f, r, &in); err != nil {
		return err
	}
	d, err := dossier.Make(ctx, in)
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := d.WriteHTML(&page); err != nil {
		return err
	}
	file := f.report.out
	if file == "-" {
		_, err := a.out.Write(page.Bytes())
		return err
	}
	if file == "" {
		file = in.Artifact.Name() + ".html"
	}
	if err := os.WriteFile(file, page.Bytes(), 0o600); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	_, err = fmt.Fprintf(a.out, "%s: %s measured on %d records\n", file, in.Artifact.Name(), d.Overall.N)
	return err
}

// gather reads the records.
func (x *reportFlags) gather(ctx context.Context, f *modelFlags, r registered, in *dossier.Input) error {
	var err error
	if x.file.Path == "" {
		declared, err := topology.ReadKind(ctx, r.js, f.kind)
		if err != nil {
			return err
		}
		in.Gathered, err = trainer.Gather(ctx, r.js, r.schema, declared.Revision, x.rows)
		in.Source = "the streams of the kind, as they are now"
		if err == nil && in.Gathered.Data.Len() == 0 {
			err = fmt.Errorf("no event of %s has a known outcome yet: try later, or give a file of labelled rows, --file", f.kind)
		}
		return err
	}
	contract := r.schema.Contract
	x.file.Contract, x.file.Split = &contract, trainer.SplitTime80
	if x.split == trainer.SplitMod5 {
		x.file.Split = x.split
	}
	in.Source = "the file " + x.file.Path
	var train, test []int
	if in.Gathered, train, test, err = trainer.GatherFile(ctx, x.file); err != nil {
		return err
	}
	if x.split == splitNone {
		train, test = nil, slices.Concat(train, test)
	}
	in.Train, in.Test = train, test
	return nil
}

// splitNone: none of the rows was trained on.
const splitNone = "none"

func signedText(a *model.Artifact, trust *model.Trust) string {
	switch {
	case a.Signature == nil:
		return "none: a scorer that pins a key refuses it"
	case trust == nil:
		return "by " + a.Signature.Key + "; it was not checked, since no trusted key is known here"
	}
	if err := a.Verify(trust); err != nil {
		return err.Error()
	}
	return "by " + a.Signature.Key + ", which is trusted here"
}

// approvals are the changes of the rollout record that have to do with a version, the latest first.
func approvals(ctx context.Context, r registered, kind string, version int) ([]dossier.Approval, error) {
	records, err := r.registry.History(ctx, kind)
	if err != nil {
		return nil, err
	}
	var out []dossier.Approval
	before := model.Rollout{}
	for _, x := range records {
		if x.Deleted || x.Err != nil {
			continue
		}
		told := false
		for _, d := range x.Rollout.Decisions {
			if d.Version != version || x.PutBack != 0 {
				continue
			}
			told = true
			a := dossier.Approval{Revision: x.Revision, At: d.At, By: d.By, Reason: d.Reason, What: fmt.Sprintf("%s → %s", orDash(string(d.From)), d.To)}
			if d.Share != 0 {
				a.What += fmt.Sprintf(" %v", d.Share)
			}
			if len(d.Evidence.Checks) > 0 {
				a.Evidence = d.Hash[:12] + ": " + d.Evidence.Sentence()
			}
			out = append(out, a)
		}
		was, is := stageOf(before, version), stageOf(x.Rollout, version)
		if !told && was != is {
			a := dossier.Approval{Revision: x.Revision, At: x.Stored, By: x.Rollout.UpdatedBy, Reason: x.Rollout.Reason, What: orDash(was) + " → " + orDash(is)}
			if x.PutBack != 0 {
				a.By, a.Reason = "not known", fmt.Sprintf("the record of revision %d was put back", x.PutBack)
			}
			out = append(out, a)
		}
		before = x.Rollout
	}
	slices.Reverse(out)
	return out, nil
}
