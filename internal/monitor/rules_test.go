package monitor

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/riskweir/riskweir/internal/testkit"
	"github.com/riskweir/riskweir/pkg/events"
)

var rewrite = flag.Bool("rewrite", false, "write what the rules say now into testdata/*.txt")

func TestMain(m *testing.M) { testkit.VerifyTestMain(m) }

// TestScenarios plays testdata/*.txt, a sample a second, and compares what the rules say with the indented lines
// of the file. The commands:
//
//	kind NAME lanes N               a kind whose lanes are idle at position 100
//	scorers A B ...                 who is a member and whose heart beats
//	mute A                          its heart does not beat, though it is a member
//	lane KIND N key=value ...       owner, position, epoch, attempts, tries; arrives, scores: events a second;
//	                                missing=true: it has no position
//	recreate KIND                   EVENTS is made anew
//	unseen KIND ERROR | seen KIND   its streams answer, or not
//	conflict KIND                   an event has the id of an earlier one, and other content
//	refuse KIND MODEL REVISION untrusted|unfit    scorers pass a model over
//	take KIND                       they do so no more
//	adopt WHAT/KIND/INCIDENT ...    this monitor takes over from one that had told of these
//	run N                           N seconds pass
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := play(text)
			if err != nil {
				t.Fatal(err)
			}
			if *rewrite {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, text) {
				t.Errorf("the rules say otherwise (go test -rewrite, and read the difference):\n%s", got)
			}
		})
	}
}

type stage struct {
	rules   *rules
	now     time.Time
	kinds   map[string]*stageKind
	members []string
	refused []RefusedSample
	missing []MissingSample
	mute    map[string]bool
	states  map[string]string
	out     *bytes.Buffer
}

type stageKind struct {
	created time.Time
	last    uint64
	err     string
	lanes   []stageLane

	conflict time.Time
}

// stageLane: of its waiting events one arrives every 1/arrives seconds, so that the oldest of n is n/arrives old; without
// arrivals the oldest ages.
type stageLane struct {
	LaneSample
	arrives, scores float64
	waiting         float64
}

var epochOfStage = time.Date(2026, 5, 4, 9, 0, 0, 0, time.UTC)

func play(text []byte) ([]byte, error) {
	var out bytes.Buffer
	s := &stage{rules: newRules(DefaultLimits()), now: epochOfStage, kinds: map[string]*stageKind{}, mute: map[string]bool{}, states: map[string]string{}, out: &out}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if strings.HasPrefix(line, "  ") { // what was said before
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := s.command(strings.Fields(line)); err != nil {
			return nil, fmt.Errorf("line %d, %q: %w", n, line, err)
		}
	}
	return out.Bytes(), lines.Err()
}

func (s *stage) command(f []string) error {
	kind := func() (*stageKind, error) {
		if len(f) > 1 && s.kinds[f[1]] != nil {
			return s.kinds[f[1]], nil
		}
		return nil, fmt.Errorf("no such kind")
	}
	switch f[0] {
	case "kind":
		n, err := strconv.Atoi(f[3])
		if err != nil {
			return err
		}
		k := &stageKind{created: epochOfStage.Add(-time.Hour), last: 100, lanes: make([]stageLane, n)}
		for i := range k.lanes {
			k.lanes[i].LaneSample = LaneSample{Lane: i, Found: true, Position: events.Position{Seq: 100, Epoch: 1, Incarnation: k.created}}
		}
		s.kinds[f[1]] = k
	case "scorers":
		s.members = slices.Clone(f[1:])
	case "mute":
		s.mute[f[1]] = true
	case "recreate":
		k, err := kind()
		if err != nil {
			return err
		}
		k.created = s.now
	case "unseen", "seen":
		k, err := kind()
		if err != nil {
			return err
		}
		k.err = strings.Join(f[2:], " ")
	case "conflict":
		k, err := kind()
		if err != nil {
			return err
		}
		k.conflict = s.now
	case "refuse":
		revision, err := strconv.ParseUint(f[3], 10, 64)
		if err != nil {
			return err
		}
		s.refused = append(s.refused, RefusedSample{Kind: f[1], By: s.members, RefusedModel: events.RefusedModel{
			Model: f[2], Revision: revision, Untrusted: f[4] == "untrusted", Why: "because"}})
	case "miss":
		s.missing = append(s.missing, MissingSample{Kind: f[1], Member: f[2], By: s.members})
	case "whole":
		s.missing = slices.DeleteFunc(s.missing, func(x MissingSample) bool { return x.Kind == f[1] && x.Member == f[2] })
	case "take":
		s.refused = slices.DeleteFunc(s.refused, func(x RefusedSample) bool { return x.Kind == f[1] })
	case "lane":
		k, err := kind()
		if err != nil {
			return err
		}
		i, err := strconv.Atoi(f[2])
		if err != nil || i >= len(k.lanes) {
			return fmt.Errorf("no such lane")
		}
		for _, kv := range f[3:] {
			if err := k.lanes[i].set(kv); err != nil {
				return err
			}
		}
	case "adopt":
		var told []events.Alert
		for _, x := range f[1:] {
			p := strings.Split(x, "/")
			if len(p) != 3 {
				return fmt.Errorf("%s: want what/kind/incident", x)
			}
			told = append(told, events.Alert{What: p[0], Kind: p[1], Incident: p[2], State: events.Firing, Severity: events.Page})
		}
		for _, a := range s.rules.adopt(told) {
			s.tell(a)
		}
	case "run":
		n, err := strconv.Atoi(f[1])
		if err != nil {
			return err
		}
		for range n {
			s.second()
		}
	default:
		return fmt.Errorf("no such command")
	}
	return nil
}

func (l *stageLane) set(kv string) error {
	key, v, _ := strings.Cut(kv, "=")
	if key == "owner" {
		l.Position.Owner = v
		return nil
	}
	if key == "missing" {
		l.Found = v != "true"
		return nil
	}
	n, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return err
	}
	switch key {
	case "position":
		l.Position.Seq = uint64(n)
	case "epoch":
		l.Position.Epoch = uint64(n)
	case "attempts":
		l.Position.Attempts = int(n)
	case "tries":
		l.Position.Tries = int(n)
	case "arrives":
		l.arrives = n
	case "scores":
		l.scores = n
	default:
		return fmt.Errorf("no such key %q", key)
	}
	return nil
}

func (l *stageLane) second() (arrived uint64) {
	scored := min(l.waiting+l.arrives, l.scores)
	l.waiting += l.arrives - scored
	if scored > 0 {
		l.Position.Seq += uint64(scored)
	}
	l.Pending = uint64(l.waiting)
	switch {
	case l.Pending == 0:
		l.Age = 0
	case scored == 0 || l.arrives == 0:
		l.Age += time.Second
	default:
		l.Age = time.Duration(l.waiting / l.arrives * float64(time.Second))
	}
	return uint64(l.arrives)
}

func (s *stage) second() {
	s.now = s.now.Add(time.Second)
	sample := Sample{At: s.now, Members: s.members}
	for _, m := range s.members {
		if !s.mute[m] {
			sample.Beating = append(sample.Beating, m)
		}
	}
	if len(sample.Beating) > 0 {
		sample.Refused, sample.Missing = s.refused, s.missing
	}
	names := make([]string, 0, len(s.kinds))
	for name := range s.kinds {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		k := s.kinds[name]
		ks := KindSample{Kind: name, Err: k.err, Created: k.created}
		for i := range k.lanes {
			k.last += k.lanes[i].second()
			ks.Lanes = append(ks.Lanes, k.lanes[i].LaneSample)
		}
		ks.LastSeq, ks.Stored = max(k.last, 1_000_000), k.last
		if !k.conflict.IsZero() {
			ks.Conflict = &ConflictSample{Seq: 99, First: 7, Age: s.now.Sub(k.conflict)}
		}
		if k.err != "" {
			ks = KindSample{Kind: name, Err: k.err}
		}
		sample.Kinds = append(sample.Kinds, ks)
	}
	for _, a := range s.rules.step(sample) {
		s.tell(a)
	}
	for _, k := range s.rules.status(s.now) {
		for _, l := range k.Lanes {
			name := fmt.Sprintf("%s/%d", k.Kind, l.Lane)
			if s.states[name] != l.State && (s.states[name] != "" || l.State != Idle) {
				fmt.Fprintf(s.out, "  %s %s %s\n", s.at(), name, l.State)
			}
			s.states[name] = l.State
		}
	}
}

func (s *stage) at() string { return s.now.Sub(epochOfStage).String() }

func (s *stage) tell(a events.Alert) {
	fmt.Fprintf(s.out, "  %s %s %s %s", s.at(), strings.ToUpper(a.State), a.Severity, a.What)
	if a.Kind != "" {
		fmt.Fprintf(s.out, " %s", a.Kind)
	}
	if a.Lane != nil {
		fmt.Fprintf(s.out, "/%d", *a.Lane)
	}
	fmt.Fprintf(s.out, " %s [%s]", a.Cause, a.Incident)
	if a.State == events.Firing {
		keys := make([]string, 0, len(a.Evidence))
		for k := range a.Evidence {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			fmt.Fprintf(s.out, " %s=%q", k, a.Evidence[k])
		}
	}
	fmt.Fprintln(s.out)
}

func TestRateForgets(t *testing.T) {
	var r rate
	for range 100 {
		r.observe(200, time.Second)
	}
	if r.perSecond < 199.9 || r.perSecond > 200.1 {
		t.Errorf("%v: want 200", r.perSecond)
	}
	r.observe(0, rateMemory)
	if r.perSecond < 73 || r.perSecond > 74 { // 200/e
		t.Errorf("%v after a silence of one memory: want 200/e", r.perSecond)
	}
}
