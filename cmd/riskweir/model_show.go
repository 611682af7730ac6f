package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/rollout"
)

// listed is one version.
type listed struct {
	Version   int       `json:"version"`
	Name      string    `json:"name"`
	State     string    `json:"state,omitempty"` // a stage, or previous
	Created   time.Time `json:"created,omitzero"`
	CreatedBy string    `json:"created_by,omitempty"`
	AUC       float64   `json:"auc"`
	AUCSE     float64   `json:"auc_se"`
	Rows      int       `json:"rows"`
	Error     string    `json:"error,omitempty"` // why it may not serve; then nothing else of it is known
}

// stageOf a version, "" where the record does not know it.
func stageOf(r model.Rollout, version int) string {
	s := r.State()
	l := s.Of(version)
	switch {
	case l == nil:
		return ""
	case l.Stage == rollout.Canary:
		return fmt.Sprintf("%s %v", l.Stage, l.Share)
	case version == s.Previous:
		return statePrevious
	}
	return string(l.Stage)
}

// statePrevious is retired, and what a rollback goes back to.
const statePrevious = "previous"

func (a *app) modelList(ctx context.Context, f *modelFlags, r registered) error {
	rollout, revision, unread := r.registry.Rollout(ctx, f.kind)
	if unread != nil && !errors.Is(unread, model.ErrRollout) {
		return unread
	}
	entries, err := r.registry.List(ctx, f.kind)
	if err != nil {
		return err
	}
	all := []listed{}
	for _, e := range entries {
		x := listed{Version: e.Version, Name: model.Name(f.kind, e.Version), State: stageOf(rollout, e.Version)}
		artifact, err := r.registry.Get(ctx, f.kind, e.Version)
		switch {
		case errors.Is(err, model.ErrArtifact):
			x.Error = err.Error()
		case err != nil:
			return err
		default:
			x.Created, x.CreatedBy, x.Rows = artifact.Created, artifact.CreatedBy, artifact.Training.Rows
			x.AUC, x.AUCSE = artifact.Metrics.AUC, artifact.Metrics.AUCSE
		}
		all = append(all, x)
	}
	if f.json {
		return a.printJSON(all)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %-11s %-15s %9s  %-20s %s\n", "version", "stage", "AUC", "rows", "trained", "by")
	for _, x := range all {
		fmt.Fprintf(&b, "%-8s %-11s ", fmt.Sprintf("v%d", x.Version), orDash(x.State))
		if x.Error != "" {
			fmt.Fprintf(&b, "cannot serve: %s\n", x.Error)
			continue
		}
		fmt.Fprintf(&b, "%-15s %9d  %-20s %s\n", fmt.Sprintf("%.4f ± %.4f", x.AUC, x.AUCSE), x.Rows, second(x.Created), x.CreatedBy)
	}
	switch {
	case unread != nil:
		fmt.Fprintf(&b, "which is in force cannot be read: %v\nscorers go on with the one before; 'riskweir model promote %s vN' writes a new record\n", unread, f.kind)
	case revision == 0:
		fmt.Fprintf(&b, "none is in force: scores are made from the prior\n")
	}
	_, err = fmt.Fprint(a.out, b.String())
	return err
}

func (a *app) modelShow(ctx context.Context, f *modelFlags, r registered) error {
	rollout, _, err := r.registry.Rollout(ctx, f.kind)
	if err != nil && (f.version == "" || !errors.Is(err, model.ErrRollout)) {
		return err
	}
	version := rollout.Champion
	if f.version != "" {
		if version, err = model.ParseVersion(f.kind, f.version); err != nil {
			return err
		}
	}
	if version == 0 {
		return fmt.Errorf("%s has no champion yet: say which version", f.kind)
	}
	artifact, err := r.registry.Keyed(nil, nil).Get(ctx, f.kind, version) // also one that nobody should serve, to be looked at
	if err != nil {
		return advised(err, f.kind)
	}
	_, unfit := model.Compile(artifact, r.schema)
	if err := artifact.Verify(r.trust); err != nil {
		unfit = err
	}
	if f.json {
		err = a.printJSON(artifact)
	} else {
		_, err = fmt.Fprint(a.out, modelPage(artifact, stageOf(rollout, version), unfit))
	}
	if err == nil && unfit != nil {
		return errBroken
	}
	return err
}

func modelPage(m *model.Artifact, state string, unfit error) string {
	var b strings.Builder
	line := func(name, format string, x ...any) {
		fmt.Fprintf(&b, "%-12s "+format+"\n", append([]any{name}, x...)...)
	}
	line(m.Name(), "%s", orDash(state))
	if unfit != nil {
		line("cannot serve", "%v", unfit)
	}
	line("trained", "%s by %s, code %s", second(m.Created), m.CreatedBy, m.Code)
	if m.Parent != 0 {
		line("parent", "v%d", m.Parent)
	}
	line("contract", "version %d, revision %d", m.Contract.Version, m.Contract.Revision)
	t := m.Training
	line("learned from", "%d rows, %d of them positive, %d good by silence", t.Rows, t.Positives, t.Silent)
	if t.Stream != "" {
		line("", "%s %d to %d, labels up to %d", t.Stream, t.FirstSeq, t.LastSeq, t.LabelsSeq)
	}
	if !t.FirstTime.IsZero() {
		line("", "events of %s to %s", second(t.FirstTime), second(t.LastTime))
	}
	line("data", "SHA-256 %s", t.DataHash)
	q := m.Metrics
	line("later rows", "%d, %d of them positive: AUC %.4f ± %.4f, log-loss %.5f, Brier %.5f, calibration error %.4f", q.Rows, q.Positives, q.AUC, q.AUCSE, q.LogLoss, q.Brier, q.ECE)
	line("checksum", "%s", m.Checksum)
	if m.Signature != nil {
		line("signed by", "%s", m.Signature.Key)
	} else {
		line("signed by", "nobody")
	}
	fmt.Fprintf(&b, "\n%-40s %12s %12s\n", "column", "weight", "baseline")
	fmt.Fprintf(&b, "%-40s %12.5g\n", "(intercept)", m.Intercept)
	for _, w := range m.Weights {
		fmt.Fprintf(&b, "%-40s %12.5g %12.5g\n", w.Column, w.Weight, w.Baseline)
	}
	return b.String()
}

// logged is one revision of the rollout record.
type logged struct {
	Revision uint64         `json:"revision"`
	Stored   time.Time      `json:"stored"`
	Deleted  bool           `json:"deleted,omitempty"`
	Record   *model.Rollout `json:"record,omitempty"`
	PutBack  uint64         `json:"put_back,omitempty"` // the earlier revision that had the same bytes
	Error    string         `json:"error,omitempty"`    // why scorers passed it over
}

func (a *app) modelLog(ctx context.Context, f *modelFlags, r registered) error {
	records, err := r.registry.Story(ctx, r.js, f.kind)
	if err != nil {
		return err
	}
	all := []logged{}
	for _, x := range records {
		l := logged{Revision: x.Revision, Stored: x.Stored, Deleted: x.Deleted, PutBack: x.PutBack}
		switch {
		case x.Err != nil:
			l.Error = x.Err.Error()
		case !x.Deleted:
			l.Record = &x.Rollout
		}
		all = append(all, l)
	}
	if f.json {
		return a.printJSON(all)
	}
	_, err = fmt.Fprint(a.out, logPage(f.kind, all))
	return err
}

func logPage(kind string, all []logged) string {
	var b strings.Builder
	if len(all) == 0 {
		return fmt.Sprintf("no version of %s has been in force: scores are made from the prior\n", kind)
	}
	fmt.Fprintf(&b, "%8s  %-20s %-9s %-9s %s\n", "revision", "stored", "champion", "before", "by, and why")
	for _, l := range slices.Backward(all) { // last first
		fmt.Fprintf(&b, "%8d  %-20s ", l.Revision, second(l.Stored))
		switch {
		case l.Deleted:
			fmt.Fprintf(&b, "%-9s %-9s the record was deleted: scorers go on with the champion before\n", "-", "-")
		case l.Record == nil:
			fmt.Fprintf(&b, "%-9s %-9s scorers passed it over: %s\n", "-", "-", l.Error)
		case l.PutBack != 0:
			fmt.Fprintf(&b, "%-9s %-9s put back as it was at revision %d, whose author and reason it has; by whom is not known\n", vN(l.Record.Champion), vN(l.Record.Previous), l.PutBack)
		default:
			fmt.Fprintf(&b, "%-9s %-9s %s: %s\n", vN(l.Record.Champion), vN(l.Record.Previous), l.Record.UpdatedBy, l.Record.Reason)
		}
		if l.Record == nil || l.PutBack != 0 {
			continue
		}
		for _, d := range l.Record.Decisions {
			fmt.Fprintf(&b, "%-32s%s\n", "", moved(&d, l.Record.Reason))
		}
	}
	fmt.Fprintf(&b, "\n'nats kv revert MODELS %s REVISION' puts a record back, and is a rollback as valid as 'riskweir model rollback': scorers follow it alike.\n"+
		"The version is not checked first then: one that cannot serve is passed over by the scorers, and the champion goes on.\n", model.RolloutKey(kind))
	return b.String()
}

// moved says what became of one version, by whom, and on what evidence, unless that has been said.
func moved(d *model.Decision, said string) string {
	was, is := cmp.Or(string(d.From), "new"), string(d.To)
	if d.Share != 0 {
		is += fmt.Sprintf(" %v", d.Share)
	}
	text := fmt.Sprintf("%s %s -> %s, by %s", cmp.Or(vN(d.Version), "-"), was, is, d.By)
	if len(d.Evidence.Checks) == 0 {
		return text + ", without evidence"
	}
	text = fmt.Sprintf("%s, evidence %.12s of events %s", text, d.Hash, eventsOf(&d.Evidence))
	if sentence := d.Evidence.Sentence(); !strings.Contains(said, sentence) {
		text += ": " + sentence
	}
	return text
}

func eventsOf(e *rollout.Evidence) string {
	if e.Last == 0 {
		return "stored before"
	}
	return fmt.Sprintf("%d to %d", e.First, e.Last)
}

func vN(version int) string {
	if version == 0 {
		return "-"
	}
	return fmt.Sprintf("v%d", version)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func second(t time.Time) string { return t.UTC().Format(time.RFC3339) }
