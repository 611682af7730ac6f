package chaos

import (
	"reflect"
	"testing"
	"time"
)

var someTerms = []Terms{
	{Name: "a", Quiet: 5 * time.Second},
	{Name: "b", Least: 2 * time.Second, Most: 9 * time.Second, Quiet: 8 * time.Second},
	{Name: "c", Least: 3 * time.Second, Most: 3 * time.Second, Quiet: 20 * time.Second},
}

func TestPlan(t *testing.T) {
	const length = 10 * time.Minute
	terms := map[string]Terms{}
	for _, f := range someTerms {
		terms[f.Name] = f
	}
	var first []Step
	for seed := range uint64(200) {
		steps, err := Plan(seed, length, someTerms)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Plan(seed, length, someTerms)
		if err != nil || !reflect.DeepEqual(steps, again) {
			t.Fatalf("seed %d gives two plans (%v)", seed, err)
		}
		count := map[string]int{}
		free := warmUp
		for i, s := range steps {
			f := terms[s.Fault]
			if s.At < free || s.Hold < f.Least || s.Hold > max(f.Least, f.Most) {
				t.Fatalf("seed %d, step %d: %+v; free from %s, terms %+v", seed, i, s, free, f)
			}
			free = s.At + s.Hold + f.Quiet
			count[s.Fault]++
		}
		if free > length {
			t.Fatalf("seed %d: the last fault is over at %s", seed, free)
		}
		for name := range terms { // by rounds: what fits in comes about equally often
			if count[name] < len(steps)/len(terms)-1 {
				t.Fatalf("seed %d: %d steps, %v", seed, len(steps), count)
			}
		}
		switch {
		case seed == 0:
			first = steps
		case reflect.DeepEqual(first, steps):
			t.Fatalf("seeds 0 and %d give the same plan", seed)
		}
	}
}

func TestPlanOfTooShortATime(t *testing.T) {
	if steps, err := Plan(1, 6*time.Second, someTerms); err == nil {
		t.Errorf("%+v", steps)
	}
	if steps, err := Plan(1, time.Hour, nil); err == nil {
		t.Errorf("%+v", steps)
	}
	// The short one alone fits.
	steps, err := Plan(1, 14*time.Second, someTerms)
	if err != nil || len(steps) != 1 || steps[0].Fault != "a" {
		t.Errorf("%+v, %v", steps, err)
	}
}

func TestChoose(t *testing.T) {
	got, err := Choose(someTerms, []string{"c", "a"})
	if err != nil || len(got) != 2 || got[0].Name != "a" || got[1].Name != "c" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Choose(someTerms, []string{"a", "z"}); err == nil {
		t.Error("a fault that there is not was chosen")
	}
	if got, err := Choose(someTerms, nil); err != nil || len(got) != 3 {
		t.Errorf("%+v, %v", got, err)
	}
}
