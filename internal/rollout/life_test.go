package rollout

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// said is evidence with one check of the verdict.
func said(gate string, version, against int, v Verdict) Evidence {
	return Evidence{Gate: gate, Version: version, Against: against, Checks: []Check{{Name: "told", Verdict: v, Why: "so it was told", N: 1}}}
}

// scenario is a file of testdata: a policy, then steps. Each step is a line that begins with the time since the last one;
// the lines indented below it are all that it decides, or its error. A line that begins with = is the state then.
type scenario struct {
	policy Policy
	state  State
	now    time.Time
}

func (s *scenario) read(line string) ([]string, error) {
	words := strings.Fields(line)
	if words[0] == "policy" {
		s.policy.Mode = Mode(words[1])
		for i := 2; i < len(words); i++ {
			switch words[i] {
			case "patience":
				d, err := time.ParseDuration(words[i+1])
				if err != nil {
					return nil, err
				}
				s.policy.Patience = d
				i++
			case "shadows":
				n, err := strconv.Atoi(words[i+1])
				if err != nil {
					return nil, err
				}
				s.policy.MaxShadows = n
				i++
			case "solo":
				s.policy.Approval = Solo
			case "steps":
			default:
				f, err := strconv.ParseFloat(words[i], 64)
				if err != nil {
					return nil, err
				}
				s.policy.Steps = append(s.policy.Steps, f)
			}
		}
		return nil, s.policy.Validate()
	}
	after, err := time.ParseDuration(strings.TrimPrefix(words[0], "+"))
	if err != nil {
		return nil, err
	}
	s.now = s.now.Add(after)
	version := func(w string) int {
		n, e := strconv.Atoi(strings.TrimPrefix(w, "v"))
		if e != nil {
			err = e
		}
		return n
	}
	var in Input
	switch words[1] {
	case "tick":
		in = Tick{}
	case "propose": // v2 pass against v1
		v, against := version(words[2]), 0
		if len(words) > 5 {
			against = version(words[5])
		}
		in = Proposal{Version: v, By: "trainer", Evidence: said(GateOffline, v, against, Verdict(words[3]))}
	case "observe": // v2 canary 0.1 fail against v1
		o := Observation{Stage: Stage(words[3])}
		rest := words[4:]
		if share, e := strconv.ParseFloat(rest[0], 64); e == nil {
			o.Share, rest = share, rest[1:]
		}
		o.Evidence = said(GateOnline, version(words[2]), version(rest[2]), Verdict(rest[0]))
		in = o
	default: // promote v2 by ann
		o := Order{Verb: Verb(words[1]), Version: version(words[2]), Why: "ordered"}
		if len(words) > 4 && words[3] == "to" { // rollback v3 to v1 by ann
			o.To = version(words[4])
			words = append(words[:3], words[5:]...)
		}
		if len(words) > 4 {
			o.By = words[4]
		}
		in = o
	}
	if err != nil {
		return nil, err
	}
	next, decisions, err := s.policy.Step(s.state, in, s.now)
	if err != nil {
		return []string{"error " + err.Error()}, nil
	}
	var got []string
	for _, d := range decisions {
		line := fmt.Sprintf("v%d -> %s", d.Version, d.To)
		if d.From != "" {
			line = fmt.Sprintf("v%d %s -> %s", d.Version, d.From, d.To)
		}
		if d.Share != 0 {
			line += fmt.Sprintf(" %v", d.Share)
		}
		got = append(got, line+" by "+d.By+": "+d.Reason)
	}
	if why := broken(s.policy, s.state, next, in, decisions); why != "" {
		return nil, errors.New(why)
	}
	s.state = next
	return got, nil
}

func (s *scenario) show() string {
	text := fmt.Sprintf("= champion %d, previous %d", s.state.Champion(), s.state.Previous)
	if c := s.state.Canary(); c != 0 {
		text += fmt.Sprintf(", canary %d at %v", c, s.state.Of(c).Share)
	}
	if in := s.state.In(Shadow); len(in) > 0 {
		text += fmt.Sprintf(", shadow %v", in)
	}
	return text
}

func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.scenario")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d scenarios, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".scenario"), func(t *testing.T) { play(t, file) })
	}
}

func play(t *testing.T, file string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := scenario{now: epoch}
	var got, want []string
	at := 0 // line of the step that is judged
	judge := func() {
		if !slices.Equal(got, want) {
			t.Errorf("%s:%d:\n got %q\nwant %q", file, at, got, want)
		}
		got, want = nil, nil
	}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case strings.TrimSpace(line) == "" || line[0] == '#':
		case line[0] == ' ':
			want = append(want, strings.TrimSpace(line))
		case line[0] == '=':
			if have := s.show(); have != line {
				t.Errorf("%s:%d: %q, want %q", file, n, have, line)
			}
		default:
			judge()
			at = n
			if got, err = s.read(line); err != nil {
				t.Fatalf("%s:%d: %v", file, n, err)
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	judge()
}

// broken says which invariant a step broke, or nothing.
func broken(p Policy, before, after State, in Input, decisions []Decision) string {
	count := map[Stage]int{}
	for i, l := range after.Lives {
		count[l.Stage]++
		if i > 0 && after.Lives[i-1].Version >= l.Version {
			return fmt.Sprintf("versions out of order: %+v", after.Lives)
		}
		if (l.Share != 0) != (l.Stage == Canary) || l.Share != 0 && !slices.Contains(p.steps(), l.Share) {
			return fmt.Sprintf("v%d is %s with share %v", l.Version, l.Stage, l.Share)
		}
	}
	if err := after.Validate(); err != nil {
		return err.Error()
	}
	switch {
	case count[Champion] > 1 || count[Canary] > 1:
		return fmt.Sprintf("%d champions, %d canaries", count[Champion], count[Canary])
	case count[Canary] > 0 && count[Champion] == 0:
		return "a canary without a champion"
	case before.Champion() != 0 && count[Champion] == 0:
		return "the champion is gone"
	case count[Shadow] > p.maxShadows():
		return fmt.Sprintf("%d shadows", count[Shadow])
	case after.Previous != 0 && (after.Of(after.Previous) == nil || after.Of(after.Previous).Stage != Retired):
		return fmt.Sprintf("the champion before, v%d, is not retired", after.Previous)
	}
	_, ordered := in.(Order)
	stage := map[int]Stage{}
	for _, l := range before.Lives {
		stage[l.Version] = l.Stage
	}
	for _, d := range decisions {
		if d.Version == 0 && d.To == Refused && d.Evidence.Verdict() == Fail {
			continue // it has no life
		}
		if stage[d.Version] != d.From {
			return fmt.Sprintf("v%d is said to be %q, and was %q", d.Version, d.From, stage[d.Version])
		}
		stage[d.Version] = d.To
		switch {
		case d.Evidence.Gate == "" || d.Evidence.Version == 0 || d.Reason == "" || d.By == "" || d.At.IsZero():
			return fmt.Sprintf("a decision without its evidence: %+v", d)
		case d.From == Canary && d.To != Champion && d.To != RolledBack && d.To != Canary:
			return fmt.Sprintf("v%d went from canary to %s", d.Version, d.To)
		case d.From == Refused || d.From == RolledBack && !ordered:
			return fmt.Sprintf("v%d came back from %s", d.Version, d.From)
		case (d.To == Champion || d.To == Canary) && !ordered:
			back := d.Version == before.Previous && d.From == Retired && d.Evidence.Verdict() == Fail && d.Evidence.Version == before.Champion()
			forth := p.Mode == Gated && d.Evidence.Verdict() == Pass && d.Evidence.Version == d.Version
			if !back && !forth {
				return fmt.Sprintf("the gate made v%d %s on %s evidence on v%d", d.Version, d.To, d.Evidence.Verdict(), d.Evidence.Version)
			}
		}
	}
	for _, l := range after.Lives {
		if stage[l.Version] != l.Stage {
			return fmt.Sprintf("v%d is %s, and no decision made it so", l.Version, l.Stage)
		}
	}
	return ""
}

// TestRandomWalk goes where no scenario does. Inputs are of known versions, and of others; late, doubled and senseless.
func TestRandomWalk(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("ROLLOUT_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("ROLLOUT_SEED=%d", seed)
	seen := map[string]int{}
	for walk := range uint64(240) { // so many that each move below is met some ten times
		r := rand.New(rand.NewPCG(seed, walk))
		p := Policy{Mode: []Mode{Manual, Gated, Gated}[r.IntN(3)], MaxShadows: 1 + r.IntN(3)}
		if r.IntN(2) == 0 {
			p.Patience = 40 * time.Hour
		}
		for s := 0.0; len(p.Steps) < r.IntN(3) && s < 0.6; {
			s += 0.05 + 0.3*r.Float64()
			p.Steps = append(p.Steps, s)
		}
		var state State
		now := epoch
		var history []string
		for range 200 {
			now = now.Add(time.Duration(r.IntN(20)) * time.Hour)
			in := randomInput(r, p, state)
			history = append(history, fmt.Sprintf("%+v", in))
			before := fmt.Sprintf("%+v", state)
			next, decisions, err := p.Step(state, in, now)
			if fmt.Sprintf("%+v", state) != before {
				t.Fatalf("walk %d: the state before was changed by %+v", walk, in)
			}
			if err != nil && (len(decisions) > 0 || fmt.Sprintf("%+v", next) != before) {
				t.Fatalf("walk %d: %v, and yet %+v", walk, err, decisions)
			}
			if why := broken(p, state, next, in, decisions); why != "" {
				t.Fatalf("walk %d, policy %+v: %s, by\n%s\nfrom %+v\nto %+v", walk, p, why, strings.Join(history[max(0, len(history)-8):], "\n"), state, next)
			}
			for _, d := range decisions {
				if d.Version != 0 {
					seen[string(d.From)+" -> "+string(d.To)]++
				}
			}
			state = next
		}
	}
	for _, want := range []string{" -> candidate", "candidate -> refused", "candidate -> shadow", "candidate -> champion", "candidate -> canary", "candidate -> retired",
		"shadow -> canary", "shadow -> refused", "shadow -> retired", "shadow -> champion", "canary -> canary", "canary -> champion",
		"canary -> rolled back", "champion -> retired", "champion -> rolled back", "retired -> champion", "retired -> shadow", "rolled back -> champion", "rolled back -> shadow"} {
		if seen[want] == 0 {
			t.Errorf("no walk went %s: %v", want, seen)
		}
	}
	if len(seen) != 19 {
		t.Errorf("%d moves are possible, want 19: %v", len(seen), seen)
	}
}

func randomInput(r *rand.Rand, p Policy, s State) Input {
	any := func() int {
		if len(s.Lives) == 0 || r.IntN(20) == 0 {
			return r.IntN(30)
		}
		return s.Lives[max(0, len(s.Lives)-1-r.IntN(6))].Version
	}
	verdict := []Verdict{Pass, Pass, Fail, Inconclusive, Inconclusive, ""}[r.IntN(6)]
	against := s.Champion()
	if r.IntN(8) == 0 {
		against = any()
	}
	switch r.IntN(10) {
	case 0, 1:
		v := len(s.Lives) + 1
		if r.IntN(10) == 0 {
			v = any()
		}
		return Proposal{Version: v, By: "trainer", Evidence: said(GateOffline, v, against, verdict)}
	case 2:
		return Tick{}
	case 3:
		verbs := []Verb{OrderPromote, OrderRollback, OrderShadow, OrderCanary, OrderRetire, "dance"}
		return Order{Verb: verbs[r.IntN(len(verbs))], Version: any(), To: max(0, any()-r.IntN(30)), By: []string{"ann", "ann", "bob", ""}[r.IntN(4)], Why: "ordered"}
	default:
		o := Observation{Stage: Canary}
		v := any()
		if l := s.Of(v); l != nil && r.IntN(8) > 0 {
			o.Stage, o.Share = l.Stage, l.Share
			if l.Stage == Champion && r.IntN(4) > 0 {
				against = s.Previous
			}
		}
		o.Evidence = said(GateOnline, v, against, verdict)
		return o
	}
}

func TestPolicyRefused(t *testing.T) {
	for _, p := range []Policy{{Mode: "wild"}, {Steps: []float64{0.5, 0.1}}, {Steps: []float64{0}}, {Steps: []float64{0.1, 1.1}}, {Patience: -1}, {MaxShadows: -1}} {
		if p.Validate() == nil {
			t.Errorf("%+v is taken", p)
		}
	}
	if err := (Policy{Steps: []float64{0.1, 1}}).Validate(); err != nil {
		t.Error(err)
	}
}
