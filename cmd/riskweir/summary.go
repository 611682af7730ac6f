package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/internal/verify"
	"github.com/riskweir/riskweir/pkg/events"
)

// summary is what 'riskweir up' ends with.
type summary struct {
	Kind            string   `json:"kind"`
	Seconds         float64  `json:"seconds"` // that the source ran
	Verified        bool     `json:"verified"`
	OK              bool     `json:"ok"` // verified, and nothing missing, doubled, out of order or unknown
	Events          uint64   `json:"events"`
	Scored          uint64   `json:"scored"`
	Invalid         uint64   `json:"invalid"`
	Repeat          uint64   `json:"repeat,omitempty"`
	Conflict        uint64   `json:"conflict,omitempty"`
	Missing         uint64   `json:"missing"`
	Duplicate       uint64   `json:"duplicate"`
	Disorder        uint64   `json:"disorder"`
	ModelVersions   int      `json:"model_versions"`
	Champion        string   `json:"champion,omitempty"`
	LatencyP50Ms    *float64 `json:"latency_p50_ms"` // event stored -> score committed; null: nothing was scored
	LatencyP99Ms    *float64 `json:"latency_p99_ms"`
	EventsPerSecond float64  `json:"events_per_second"` // outcomes committed in this run
	Restarts        int      `json:"restarts"`          // of children that died
	Line            string   `json:"verify,omitempty"`

	again string // the command that verifies later
}

func (s *summary) take(r verify.Report) {
	s.Verified, s.OK = true, r.OK()
	s.Events, s.Scored, s.Invalid, s.Repeat, s.Conflict = r.Events, r.Scored, r.Invalid, r.Repeat, r.Conflict
	s.Missing, s.Duplicate, s.Disorder = r.Missing, r.Duplicate, r.Disorder
	s.Line = r.String()
}

// fillSummary adds what is not verify's.
func (u *upRun) fillSummary(ctx context.Context, s *summary) {
	quantile := func(q float64) *float64 {
		d, ok := u.pulse.latency(q)
		if !ok {
			return nil
		}
		v := float64(d.Microseconds()) / 1000
		return &v
	}
	s.LatencyP50Ms, s.LatencyP99Ms = quantile(.5), quantile(.99)
	if s.Seconds > 0 {
		s.EventsPerSecond = float64(int(u.pulse.outcomes()/s.Seconds*10)) / 10
	}
	for _, c := range u.sup.Status() {
		s.Restarts += c.Restarts
	}
	if u.kind == "" {
		return
	}
	s.ModelVersions, s.Champion = modelVersions(ctx, u.js, u.kind)
}

func modelVersions(ctx context.Context, js natsjs.JetStream, kind string) (n int, champion string) {
	kv, err := js.KeyValue(ctx, events.ModelsBucket)
	if err != nil {
		return 0, ""
	}
	registry := model.NewRegistry(kv)
	if list, err := registry.List(ctx, kind); err == nil {
		n = len(list)
	}
	if r, _, err := registry.Rollout(ctx, kind); err == nil && r.Champion > 0 {
		champion = model.Name(kind, r.Champion)
	}
	return n, champion
}

func (s summary) write(w io.Writer, form string) error {
	if form == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(s)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nran %.1f s", s.Seconds)
	if s.Restarts > 0 {
		fmt.Fprintf(&b, ", %d restart(s) of children that died", s.Restarts)
	}
	fmt.Fprintf(&b, "\nscored   %.0f a second", s.EventsPerSecond)
	if s.LatencyP50Ms != nil {
		fmt.Fprintf(&b, ", latency p50 %.1f ms, p99 %.1f ms (stored -> score committed)", *s.LatencyP50Ms, *s.LatencyP99Ms)
	}
	fmt.Fprintf(&b, "\nmodels   %d version(s)", s.ModelVersions)
	if s.Champion != "" {
		fmt.Fprintf(&b, ", %s in force", s.Champion)
	}
	switch {
	case s.Verified:
		fmt.Fprintf(&b, "\nverify   %s\n", s.Line)
	case s.Kind == "":
		b.WriteString("\nverify   no single kind to verify: riskweir verify KIND, while it runs\n")
	default:
		fmt.Fprintf(&b, "\nverify   not within the time that a Ctrl-C leaves; later: %s\n", s.again)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return errors.Join(errors.New("write the summary"), err)
	}
	return nil
}
