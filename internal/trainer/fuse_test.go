package trainer

import (
	"context"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/lr"
)

// TestFuse on members of which the first two know something, the second exaggerates, the third is noise and the fourth is wrong: no
// weight is below 0, the truth is found, and no step to either side of the optimum is better.
func TestFuse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	const n = 20_000
	members, y := make([][]float64, 4), make([]float64, n)
	for i := range n {
		a, b := r.NormFloat64(), r.NormFloat64()
		for k, z := range []float64{a, 3 * b, r.NormFloat64(), -a} {
			members[k] = append(members[k], z)
		}
		if r.Float64() < lr.Sigmoid(a+b-2) {
			y[i] = 1
		}
	}
	w, bias := fuse(members[:3], y)
	for k, want := range []float64{1, 1.0 / 3, 0} {
		if math.Abs(w[k]-want) > 0.08 || w[k] < 0 {
			t.Errorf("weight %d is %.3f, want about %.3f", k, w[k], want)
		}
	}
	if math.Abs(bias+2) > 0.1 {
		t.Errorf("bias is %.3f, want about -2", bias)
	}
	f := fusing{members: members[:3], y: y, x: make([]float64, 4)}
	best := f.loss(append(w, bias))
	for k := range 4 {
		for _, d := range []float64{-1e-3, 1e-3} {
			theta := append(append([]float64{}, w...), bias)
			if theta[k] += d; theta[k] < 0 && k < 3 {
				continue
			}
			if l := f.loss(theta); l < best {
				t.Errorf("weights %v, bias %v: %+g of number %d is better by %g", w, bias, d, k, best-l)
			}
		}
	}
	if w, _ := fuse(members[3:], y); math.Abs(w[0]-leastSay) > 1e-12 {
		t.Errorf("a member that is wrong has weight %v, want %v", w[0], leastSay)
	}
}

// TestLevelFollows: after a jump of the rate it is right again within some thousand labels, and without forgetting it is not.
func TestLevelFollows(t *testing.T) {
	after := func(forget float64) (shift float64) {
		r := rand.New(rand.NewPCG(2, 2))
		l := newLevel(forget)
		for i := range 24_000 {
			z, jump := r.NormFloat64()-2, 0.0
			if i >= 20_000 {
				jump = 1.5
			}
			y := 0.0
			if r.Float64() < lr.Sigmoid(z+jump) {
				y = 1
			}
			l.learn(z, y)
		}
		return l.of(-2) + 2
	}
	if got := after(0.998); math.Abs(got-1.5) > 0.35 {
		t.Errorf("the shift is %.3f after a jump of 1.5", got)
	}
	if got := after(1); got > 1 {
		t.Errorf("without forgetting the shift is %.3f", got)
	}
	if got := after(0); got != 0 {
		t.Errorf("switched off, the shift is %.3f", got)
	}
}

func TestMembersAreTheSameForAnyNumberOfWorkers(t *testing.T) {
	d := payments(t, 5, 2000)
	var first FitResult
	for i, workers := range []int{1, 2, 5} {
		r, err := Fit(context.Background(), FitInput{Data: d, Members: true, LR: lr.Options{Workers: workers}})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = r
		} else if !reflect.DeepEqual(r, first) {
			t.Errorf("with %d workers the result is another", workers)
		}
	}
}

// TestAnArtifactScoresAsItsFitDid: what a scorer computes from the encoded artifact is what the trainer measured, to rounding; and the
// state of the member online goes on from there.
func TestAnArtifactScoresAsItsFitDid(t *testing.T) {
	d := payments(t, 6, 2000)
	in := FitInput{Data: d, Members: true}
	in.Train, in.Test = Time80(Sequence(d.Len()))
	r, err := Fit(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	a := r.Artifact("payment", "test", d.Time(0), 0, model.ContractRef{Version: 1}, model.Training{Rows: 1600, Positives: 100})
	a.Version = 1
	text, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := model.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := model.Compile(back, d.Schema())
	if err != nil {
		t.Fatal(err)
	}
	if p.Out() != "" {
		t.Fatalf("left out: %s (%v)", p.Out(), p.Unusable())
	}
	fixed, err := p.Without(model.KindOnline)
	if err != nil {
		t.Fatal(err)
	}
	var scratch model.Scratch
	logits := make([]float64, 3)
	i := 0
	for rec := range d.Records(in.Test) {
		p.Logits(logits, rec, &scratch)
		for k, name := range r.Later.Names {
			if want := r.Later.Logits[k][i]; name != model.KindOnline && math.Abs(logits[k]-want) > 1e-9 {
				t.Fatalf("record %d: logit of %s is %v, the fit had %v", i, name, logits[k], want)
			}
		}
		if got := fixed.Score(rec, &scratch).P; math.Abs(got-r.P[i]) > 1e-9 {
			t.Fatalf("record %d: p is %v, the fit had %v", i, got, r.P[i])
		}
		i++
	}
	for _, m := range back.Ensemble.Members {
		if m.Kind == model.KindOnline {
			online, err := model.ReadOnline(m)
			if err != nil {
				t.Fatal(err)
			}
			l, err := resumed(online, back.Ensemble.Forget)
			if err != nil {
				t.Fatal(err)
			}
			again, err := l.online()
			if err != nil || !reflect.DeepEqual(&again, online) {
				t.Errorf("resumed it is %+v (%v), was %+v", again, err, online)
			}
		}
	}
}
