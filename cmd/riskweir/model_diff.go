package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/riskweir/riskweir/internal/model"
)

const modelDiffHelp = `Say what differs between two versions of a kind: what they read, how much each input weighs, what they were trained on, how they did.

Weights are compared per unit of the column, of which most are in standard deviations; the largest twenty changes are shown, all with --all.
Exit status: 0, or 2 if one of them was not found.

Example: riskweir model diff payment v3 v4`

// versionDiff is what differs between two versions.
type versionDiff struct {
	A      string        `json:"a"`
	B      string        `json:"b"`
	AUC    [2]float64    `json:"auc"`
	AUCSE  [2]float64    `json:"auc_se"`
	OnlyA  []string      `json:"only_a"` // inputs
	OnlyB  []string      `json:"only_b"`
	Moved  []weightMoved `json:"weights"` // by size of the change, largest first
	Others []valueMoved  `json:"others"`  // the rest, in the order in which they stand
}

type weightMoved struct {
	Column string  `json:"column"`
	A      float64 `json:"a"`
	B      float64 `json:"b"`
}

type valueMoved struct {
	What string `json:"what"`
	A    string `json:"a,omitempty"`
	B    string `json:"b,omitempty"`
}

// shownWeights of the page.
const shownWeights = 20

func (a *app) modelDiff(ctx context.Context, f *modelFlags, r registered) error {
	var versions [2]*model.Artifact
	for i, text := range []string{f.version, f.other} {
		v, err := model.ParseVersion(f.kind, text)
		if err != nil {
			return err
		}
		if versions[i], err = r.registry.Keyed(nil, nil).Get(ctx, f.kind, v); err != nil { // signed or not: it is only looked at
			return advised(err, f.kind)
		}
	}
	d, err := diffVersions(versions[0], versions[1])
	if err != nil {
		return err
	}
	if f.json {
		return a.printJSON(d)
	}
	_, err = fmt.Fprint(a.out, d.page(f.all))
	return err
}

func diffVersions(a, b *model.Artifact) (versionDiff, error) {
	d := versionDiff{
		A: a.Name(), B: b.Name(), AUC: [2]float64{a.Metrics.AUC, b.Metrics.AUC}, AUCSE: [2]float64{a.Metrics.AUCSE, b.Metrics.AUCSE},
		OnlyA: []string{}, OnlyB: []string{}, Moved: []weightMoved{}, Others: []valueMoved{},
	}
	before, after := map[string]float64{}, map[string]float64{}
	for _, w := range a.Weights {
		before[w.Column] = w.Weight
	}
	for _, w := range b.Weights {
		after[w.Column] = w.Weight
		was, there := before[w.Column]
		switch {
		case !there:
			d.OnlyB = append(d.OnlyB, w.Column)
		case was != w.Weight:
			d.Moved = append(d.Moved, weightMoved{w.Column, was, w.Weight})
		}
	}
	for _, w := range a.Weights {
		if _, there := after[w.Column]; !there {
			d.OnlyA = append(d.OnlyA, w.Column)
		}
	}
	slices.SortStableFunc(d.Moved, func(x, y weightMoved) int {
		switch dx, dy := math.Abs(x.B-x.A), math.Abs(y.B-y.A); {
		case dx > dy:
			return -1
		case dx < dy:
			return 1
		}
		return 0
	})
	x, err := leaves(a)
	if err != nil {
		return d, err
	}
	y, err := leaves(b)
	if err != nil {
		return d, err
	}
	d.Others = append(d.Others, movedLeaves(x, y)...)
	return d, nil
}

// leaf is a value of the artifact that is neither an object nor a list, by its path.
type leaf struct{ path, value string }

// leaves of an artifact in their order, without its weights, which stand apart, and what must differ.
func leaves(a *model.Artifact) ([]leaf, error) {
	c := *a
	c.Weights, c.Checksum, c.Signature, c.Fingerprint, c.Version = nil, "", nil, "", 0
	body, err := c.Canonical()
	if err != nil {
		return nil, fmt.Errorf("compare %s: %w", a.Name(), err)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var out []leaf
	if err := walk(dec, "", &out); err != nil {
		return nil, fmt.Errorf("compare %s: %w", a.Name(), err)
	}
	return slices.DeleteFunc(out, func(l leaf) bool { return l.path == "version" || l.path == "weights" || l.path == "fingerprint" }), nil
}

// walk reads one value.
func walk(dec *json.Decoder, path string, out *[]leaf) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, composed := tok.(json.Delim)
	if !composed {
		*out = append(*out, leaf{path, fmt.Sprint(tok)})
		return nil
	}
	for i := 0; dec.More(); i++ {
		at := path + "[" + strconv.Itoa(i) + "]"
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			at = strings.TrimPrefix(path+"."+fmt.Sprint(key), ".")
		}
		from := len(*out)
		if err := walk(dec, at, out); err != nil {
			return err
		}
		if delim == '[' {
			named((*out)[from:], at, path)
		}
	}
	_, err = dec.Token() // the end of it
	return err
}

// named puts the name of an element of a list in the place of its number: fields that moved up are no other fields.
func named(element []leaf, at, list string) {
	for _, key := range []string{".field", ".column", ".name"} {
		i := slices.IndexFunc(element, func(l leaf) bool { return l.path == at+key })
		if i < 0 {
			continue
		}
		name := list + "[" + element[i].value + "]"
		for j := range element {
			element[j].path = name + strings.TrimPrefix(element[j].path, at)
		}
		return
	}
}

// movedLeaves are those that are not the same in both.
func movedLeaves(a, b []leaf) []valueMoved {
	before, after := map[string]string{}, map[string]string{}
	for _, l := range a {
		before[l.path] = l.value
	}
	for _, l := range b {
		after[l.path] = l.value
	}
	var out []valueMoved
	for _, l := range a {
		if now, there := after[l.path]; !there || now != l.value {
			out = append(out, valueMoved{l.path, l.value, now})
		}
	}
	for _, l := range b {
		if _, there := before[l.path]; !there {
			out = append(out, valueMoved{l.path, "", l.value})
		}
	}
	return out
}

func (d versionDiff) page(all bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s\n\nAUC      %.4f ± %.4f -> %.4f ± %.4f, each on later rows of its own\n", d.A, d.B, d.AUC[0], d.AUCSE[0], d.AUC[1], d.AUCSE[1])
	for _, x := range []struct {
		what    string
		columns []string
	}{{"only in the first", d.OnlyA}, {"only in the second", d.OnlyB}} {
		if len(x.columns) > 0 {
			fmt.Fprintf(&b, "inputs   %s: %s\n", x.what, strings.Join(x.columns, ", "))
		}
	}
	if len(d.OnlyA)+len(d.OnlyB) == 0 {
		fmt.Fprintf(&b, "inputs   the same\n")
	}
	shown := d.Moved
	if !all {
		shown = shown[:min(len(shown), shownWeights)]
	}
	if len(shown) > 0 {
		fmt.Fprintf(&b, "\n%-40s %12s %12s %12s\n", "weight", "first", "second", "change")
		for _, w := range shown {
			note := ""
			if w.A*w.B < 0 {
				note = "  the sign has turned"
			}
			fmt.Fprintf(&b, "%-40s %12.5g %12.5g %+12.5g%s\n", w.Column, w.A, w.B, w.B-w.A, note)
		}
		if left := len(d.Moved) - len(shown); left > 0 {
			fmt.Fprintf(&b, "and %d smaller ones: --all\n", left)
		}
	}
	if len(d.Others) > 0 {
		b.WriteString("\n")
		for _, x := range d.Others {
			if !all && strings.HasPrefix(x.What, "spec.") && x.A != "" && x.B != "" {
				continue // means and deviations, which move with the rows
			}
			fmt.Fprintf(&b, "%-40s %s -> %s\n", x.What, orDash(clipped(x.A)), orDash(clipped(x.B)))
		}
	}
	return b.String()
}

func clipped(s string) string {
	const most = 70
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
