package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// Verdict of a check or a gate. Inconclusive is an answer: there is not enough to go by yet.
type Verdict string

const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
)

// Check is one question put to a version, and its answer.
type Check struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Value   float64 `json:"value"` // what was measured; 0 where it is no finite number, of which Why tells
	Limit   float64 `json:"limit"` // what it was held against
	// Low to High is the interval of Value where a test at fixed n makes one; both 0: there is none.
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
	// For and Against are the evidence, as bets at odds (e-values), that the limit is kept and that it is broken. Where
	// one is 20 or more, a claim wrong as often as 1 in 20 would have been made however often one looked. 0: no such test.
	For     float64 `json:"for,omitempty"`
	Against float64 `json:"against,omitempty"`
	N       int     `json:"n"` // events, or matched sets, that it is made from
	Why     string  `json:"why"`
}

// finite makes the check fit for JSON, which has no NaN.
func (c Check) finite() Check {
	for _, v := range []*float64{&c.Value, &c.Limit, &c.Low, &c.High, &c.For, &c.Against} {
		switch {
		case math.IsNaN(*v):
			*v = 0
		case math.IsInf(*v, 0):
			*v = math.Copysign(math.MaxFloat64, *v)
		}
	}
	return c
}

// Evidence is all that a gate has to say of a version at one time.
type Evidence struct {
	Gate    string  `json:"gate"`              // GateOffline or GateOnline
	Version int     `json:"version"`           //
	Against int     `json:"against,omitempty"` // the version on the other side of each pair; 0: none
	First   uint64  `json:"first,omitempty"`   // sequences of the events that it is from, both inclusive
	Last    uint64  `json:"last,omitempty"`
	Checks  []Check `json:"checks"`
}

const (
	GateOffline = "offline"
	GateOnline  = "online"
)

// Verdict fails with any check, passes with all, and is inconclusive otherwise, or without a check.
func (e *Evidence) Verdict() Verdict {
	v := Pass
	if len(e.Checks) == 0 {
		v = Inconclusive
	}
	for _, c := range e.Checks {
		switch c.Verdict {
		case Pass:
		case Fail:
			return Fail
		default:
			v = Inconclusive
		}
	}
	return v
}

// Failed names the checks that failed.
func (e *Evidence) Failed() []string { return e.named(Fail) }

func (e *Evidence) named(v Verdict) []string {
	var names []string
	for _, c := range e.Checks {
		if c.Verdict == v {
			names = append(names, c.Name)
		}
	}
	return names
}

// Sentence says the verdict and what it rests on: what failed; else what is open; else all.
func (e *Evidence) Sentence() string {
	v := e.Verdict()
	var parts []string
	for _, c := range e.Checks {
		if c.Verdict == v {
			parts = append(parts, c.Name+": "+c.Why)
		}
	}
	if len(parts) == 0 {
		return fmt.Sprintf("%s gate: %s: nothing was measured", e.Gate, v)
	}
	return fmt.Sprintf("%s gate: %s: %s", e.Gate, v, strings.Join(parts, "; "))
}

// Hash is the SHA-256, in hexadecimal, of the evidence as JSON.
func (e *Evidence) Hash() (string, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return "", fmt.Errorf("hash the evidence on version %d: %w", e.Version, err)
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}
