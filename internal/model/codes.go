package model

import (
	"fmt"
	"maps"
	"slices"

	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/pkg/events"
)

// reasonCodes has the contract's code for each field that the artifact reads.
func reasonCodes(a *Artifact, schema *events.Schema) map[string]string {
	codes := map[string]string{}
	for _, w := range a.Weights {
		codes[w.Field] = events.ReasonCode(events.Field{Name: w.Field}) // the event's own time is no field
	}
	for _, f := range a.Ensemble.cardFields() {
		codes[f] = ""
	}
	for _, f := range schema.Inputs {
		if _, reads := codes[f.Name]; reads {
			codes[f.Name] = events.ReasonCode(f)
		}
	}
	return codes
}

// codesFor are the codes of groups of columns by their names; empty ones if the artifact has none.
func (a *Artifact) codesFor(fields []string) []string {
	codes := make([]string, len(fields))
	if a.Codes == nil {
		return codes
	}
	for g, name := range fields {
		if name == Withheld {
			codes[g] = events.CodeWithheld
		} else {
			codes[g] = a.Codes[name]
		}
	}
	return codes
}

func checkCodes(codes map[string]string) error {
	if len(codes) > feature.MaxColumns {
		return fmt.Errorf("%d reason codes: want at most %d", len(codes), feature.MaxColumns)
	}
	for _, field := range slices.Sorted(maps.Keys(codes)) {
		if err := events.CheckReasonCode(codes[field]); err != nil {
			return fmt.Errorf("field %s: %w", field, err)
		}
	}
	return nil
}
