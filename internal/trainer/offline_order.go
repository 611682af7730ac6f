package trainer

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// OrderKey is one column that rows are put in order by.
type OrderKey struct {
	Column string
	Levels []string // the column's texts in ascending order; none: numbers, or if some cell is not one, text
	Mix    bool     // by a fixed shuffle of the column's whole numbers: see splitmix64
}

// ParseOrderKey reads COLUMN, COLUMN=v1|v2|... (ascending in this order) or ~COLUMN (shuffled by it, always the same
// way: for ties whose order in the file would tell the label).
func ParseOrderKey(s string) (OrderKey, error) {
	var k OrderKey
	name, levels, ok := strings.Cut(s, "=")
	if ok {
		k.Levels = strings.Split(levels, "|")
	}
	k.Column, k.Mix = strings.CutPrefix(name, "~")
	if k.Column == "" || k.Mix && ok {
		return OrderKey{}, fmt.Errorf("order %q: want COLUMN, COLUMN=v1|v2|... or ~COLUMN", s)
	}
	return k, nil
}

// order gathers what the rows are sorted by.
//
//	with keys, len(keys[i].cells) == rows for every i; byTime: len(times) == rows
type order struct {
	keys   []orderColumn
	byTime bool
	times  []time.Time
	rows   int
}

type orderColumn struct {
	OrderKey
	cells []string
}

func (o *order) add(columns, cells []string, t time.Time) {
	o.rows++
	for i := range o.keys {
		k := &o.keys[i]
		cell := ""
		if j := slices.Index(columns, k.Column); j >= 0 {
			cell = strings.Clone(cells[j]) // the cells of a row share one string
		}
		k.cells = append(k.cells, cell)
	}
	if o.byTime {
		o.times = append(o.times, t)
	}
}

// sorted is the rows' numbers in order; equal rows stay as they stand in the file.
func (o *order) sorted() ([]int, error) {
	rows := Sequence(o.rows)
	if o.byTime {
		slices.SortStableFunc(rows, func(a, b int) int { return o.times[a].Compare(o.times[b]) })
		return rows, nil
	}
	var compares []func(a, b int) int
	for i := range o.keys {
		c, err := o.keys[i].compare()
		if err != nil {
			return nil, err
		}
		compares = append(compares, c)
	}
	slices.SortStableFunc(rows, func(a, b int) int {
		for _, c := range compares {
			if r := c(a, b); r != 0 {
				return r
			}
		}
		return 0
	})
	return rows, nil
}

func (k *orderColumn) compare() (func(a, b int) int, error) {
	switch {
	case !slices.ContainsFunc(k.cells, func(c string) bool { return c != "" }):
		return nil, fmt.Errorf("order by %s: no row has a value there, or there is no such column", k.Column)
	case k.Mix:
		v, err := parseAll(k.cells, func(c string) (uint64, error) {
			n, err := strconv.ParseInt(c, 10, 64)
			return splitmix64(uint64(n)), err
		})
		if err != nil {
			return nil, fmt.Errorf("order by ~%s: want whole numbers: %w", k.Column, err)
		}
		return func(a, b int) int { return cmp.Compare(v[a], v[b]) }, nil
	case k.Levels != nil:
		v, err := parseAll(k.cells, func(c string) (int, error) {
			if i := slices.Index(k.Levels, c); i >= 0 {
				return i, nil
			}
			return 0, fmt.Errorf("%q is not one of %s", c, strings.Join(k.Levels, "|"))
		})
		if err != nil {
			return nil, fmt.Errorf("order by %s: %w", k.Column, err)
		}
		return func(a, b int) int { return cmp.Compare(v[a], v[b]) }, nil
	}
	v, err := parseAll(k.cells, func(c string) (float64, error) { return strconv.ParseFloat(c, 64) })
	if err != nil {
		return func(a, b int) int { return cmp.Compare(k.cells[a], k.cells[b]) }, nil
	}
	return func(a, b int) int { return cmp.Compare(v[a], v[b]) }, nil
}

func parseAll[T any](cells []string, parse func(string) (T, error)) ([]T, error) {
	out := make([]T, len(cells))
	var err error
	for i, c := range cells {
		if out[i], err = parse(c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// splitmix64 is the output of the generator of that name whose state has taken n + 1 steps from 0 (Steele, Lea, Flood,
// OOPSLA 2014): a one-to-one shuffle of 64-bit numbers.
func splitmix64(n uint64) uint64 {
	z := (n + 1) * 0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}
