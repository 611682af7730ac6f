package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/riskweir/riskweir/pkg/lr"
)

// data is one of the generated sets.
type data struct {
	rows, cols int
	dense      lr.Matrix
	sparse     lr.Sparse // of 30 numbers a row, if Ptr is not nil
	y          []float64
}

const (
	seed     = 4
	nonzeros = 30
)

// generateDense makes standard normal columns, and labels of which a quarter or so are 1.
func generateDense(rows, cols int) *data {
	r := rand.New(rand.NewPCG(seed, uint64(cols)))
	truth := make([]float64, cols)
	for j := range truth {
		truth[j] = 1.5 * r.NormFloat64() / math.Sqrt(float64(cols))
	}
	d := &data{rows: rows, cols: cols, y: make([]float64, rows), dense: lr.Matrix{Rows: rows, Cols: cols, Data: make([]float64, rows*cols)}}
	for i := range rows {
		z := -1.0
		x := d.dense.Row(i)
		for j, w := range truth {
			x[j] = r.NormFloat64()
			z += w * x[j]
		}
		if r.Float64() < lr.Sigmoid(z) {
			d.y[i] = 1
		}
	}
	return d
}

// generateSparse puts one standard normal number into each thirtieth of a row's columns, at a
// place where any is as likely.
func generateSparse(rows, cols int) *data {
	r := rand.New(rand.NewPCG(seed, uint64(cols)))
	truth := make([]float64, cols)
	for j := range truth {
		truth[j] = 0.3 * r.NormFloat64()
	}
	d := &data{rows: rows, cols: cols, y: make([]float64, rows), sparse: lr.Sparse{Rows: rows, Cols: cols,
		Ptr: make([]int, rows+1), Index: make([]int32, rows*nonzeros), Data: make([]float64, rows*nonzeros)}}
	for i := range rows {
		z := -1.0
		for k := range nonzeros {
			lo, hi := k*cols/nonzeros, (k+1)*cols/nonzeros
			j, v := lo+r.IntN(hi-lo), r.NormFloat64()
			d.sparse.Index[i*nonzeros+k], d.sparse.Data[i*nonzeros+k] = int32(j), v
			z += truth[j] * v
		}
		d.sparse.Ptr[i+1] = (i + 1) * nonzeros
		if r.Float64() < lr.Sigmoid(z) {
			d.y[i] = 1
		}
	}
	return d
}

func (d *data) isSparse() bool { return d.sparse.Ptr != nil }

func (d *data) kind() string {
	if d.isSparse() {
		return "sparse"
	}
	return "dense"
}

func (d *data) bytes() int {
	return 8*len(d.y) + 8*len(d.dense.Data) + 8*len(d.sparse.Data) + 4*len(d.sparse.Index) + 8*len(d.sparse.Ptr)
}

// write leaves the arrays in folder for the peer.
func (d *data) write(folder string) error {
	arrays := map[string]any{"y": d.y}
	if d.isSparse() {
		ptr := make([]int64, len(d.sparse.Ptr))
		for i, p := range d.sparse.Ptr {
			ptr[i] = int64(p)
		}
		arrays["ptr"], arrays["index"], arrays["data"] = ptr, d.sparse.Index, d.sparse.Data
	} else {
		arrays["data"] = d.dense.Data
	}
	for name, array := range arrays {
		if err := writeArray(filepath.Join(folder, name), array); err != nil {
			return fmt.Errorf("write %s for the peer: %w", name, err)
		}
	}
	return nil
}

func writeArray(path string, array any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	switch a := array.(type) {
	case []float64: // in pieces, since binary.Write makes a copy
		for len(a) > 0 && err == nil {
			n := min(len(a), 1<<16)
			err = binary.Write(w, binary.LittleEndian, a[:n])
			a = a[n:]
		}
	default:
		err = binary.Write(w, binary.LittleEndian, array)
	}
	return errors.Join(err, w.Flush(), f.Close())
}

// objective is the yardstick for both: plain sums with what rounding loses added at the end
// (Neumaier's summation).
func (d *data) objective(m lr.Model) float64 {
	sum, lost := 0.0, 0.0
	add := func(v float64) {
		t := sum + v
		if math.Abs(sum) >= math.Abs(v) {
			lost += (sum - t) + v
		} else {
			lost += (v - t) + sum
		}
		sum = t
	}
	for i, y := range d.y {
		z := m.Intercept
		if d.isSparse() {
			index, values := d.sparse.Row(i)
			for k, j := range index {
				z += m.Weights[j] * values[k]
			}
		} else {
			for j, v := range d.dense.Row(i) {
				z += m.Weights[j] * v
			}
		}
		if y == 1 {
			z = -z
		}
		add(max(z, 0) + math.Log1p(math.Exp(-math.Abs(z))))
	}
	for _, w := range m.Weights {
		add(w * w / 2)
	}
	return sum + lost
}
