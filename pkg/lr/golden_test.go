package lr

import (
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
)

// sharedData holds data sets with coefficients, objectives and metrics that
// scikit-learn, numpy and R computed; its README.md says how.
const sharedData = "../../../shared/data"

type goldenMetrics struct {
	N       int     `json:"n"`
	Pos     int     `json:"pos"`
	LogLoss float64 `json:"logloss"`
	AUC     float64 `json:"auc"`
	Hanley  float64 `json:"auc_se_hanley"`
	AP      float64 `json:"ap"`
	Brier   float64 `json:"brier"`
	KS      float64 `json:"ks"`
	ECE     float64 `json:"ece10_width"`
	ECEMass float64 `json:"ece10_mass"`
}

type goldenFit struct {
	Status    string        `json:"status"`
	Coef      []float64     `json:"coef"`
	Intercept float64       `json:"intercept"`
	Objective float64       `json:"objective"`
	NegLogLik float64       `json:"neg_loglik"`
	Train     goldenMetrics `json:"train"`
	Test      goldenMetrics `json:"test"`
}

type goldenSplit struct {
	L2          goldenFit `json:"l2_C1"`
	Unpenalised goldenFit `json:"unpenalised"`
}

func readGolden(t testing.TB, set string) map[string]goldenSplit {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(sharedData, set, "golden.json"))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("reference figures are absent: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var g struct{ Splits map[string]goldenSplit }
	if err := json.Unmarshal(b, &g); err != nil {
		t.Fatal(err)
	}
	return g.Splits
}

// table is a CSV file of numbers, by column.
func readTable(t testing.TB, name string) (header []string, rows [][]float64) {
	t.Helper()
	f, err := os.Open(filepath.Join(sharedData, name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("reference data are absent: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(z)
	r.ReuseRecord = true
	rec, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	header = append(header, rec...)
	for {
		rec, err := r.Read()
		if err == io.EOF {
			return header, rows
		}
		if err != nil {
			t.Fatal(err)
		}
		row := make([]float64, len(rec))
		for j, s := range rec {
			if row[j], err = strconv.ParseFloat(s, 64); err != nil {
				t.Fatal(err)
			}
		}
		rows = append(rows, row)
	}
}

type sample struct {
	X Matrix
	y []float64
}

// readDesign reads a design matrix: columns y, is_test, then the features.
func readDesign(t testing.TB, name string) (train, test sample) {
	t.Helper()
	header, rows := readTable(t, name)
	cols := len(header) - 2
	train.X.Cols, test.X.Cols = cols, cols
	for _, r := range rows {
		s := &train
		if r[1] == 1 {
			s = &test
		}
		s.X.Rows++
		s.X.Data = append(s.X.Data, r[2:]...)
		s.y = append(s.y, r[0])
	}
	return train, test
}

// designs are the sets whose design matrix is whole. Without a penalty some of them
// are separated, by categories that have one label only.
var designs = []struct {
	set, split string
	separation *SeparationError
}{
	{"german_credit", "mod5", nil},
	// EDUCATION 0, the level left out, has 11 rows, none in default.
	{"taiwan_default", "mod5", &SeparationError{Columns: []int{21, 22, 23, 24, 25, 26}, Rows: 11}},
	// NAICS 532112 (8 rows), three levels of LowDoc (1 + 1 + 3), and the levels left out of
	// NewExist and RevLineCr (1 + 1).
	{"sba_case", "mod5", &SeparationError{Columns: []int{16, 30, 31, 34, 35, 36, 37, 38, 39, 41}, Rows: 15}},
	// NAICS 531130 and the levels left out of three more columns: 1 + 1 + 2 + 1 rows.
	{"sba_case", "time80", &SeparationError{Columns: []int{8, 30, 31, 34, 35, 36, 37, 38, 39}, Rows: 5}},
	{"bitcoin_otc", "time80", nil},
}

func TestGoldenFit(t *testing.T) {
	for _, d := range designs {
		t.Run(d.set+"_"+d.split, func(t *testing.T) {
			t.Parallel()
			want := readGolden(t, d.set)[d.split]
			train, test := readDesign(t, d.set+"/design."+d.split+".csv.gz")

			got, err := Fit(t.Context(), train.X, train.y, Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("iterations %d, passes %d, gradient %.1e, decrement %.1e", got.Iterations, got.Passes, got.GradientNorm, got.Decrement)
			if !got.Converged {
				t.Errorf("not converged: %v", got.Stop)
			}
			checkModel(t, got.Model, want.L2)
			checkClose(t, "objective", got.Objective, want.L2.Objective, 1e-10*want.L2.Objective)
			checkGoldenMetrics(t, "train", got.Model, train, want.L2.Train)
			checkGoldenMetrics(t, "test", got.Model, test, want.L2.Test)

			got, err = Fit(t.Context(), train.X, train.y, Options{Penalty: None})
			if want.Unpenalised.Status != "converged" {
				var separation *SeparationError
				if !errors.As(err, &separation) || !reflect.DeepEqual(separation, d.separation) {
					t.Errorf("without penalty: %+v, %v, want %v (reference: %s)", got, err, d.separation, want.Unpenalised.Status)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !got.Converged {
				t.Errorf("without penalty: not converged: %v", got.Stop)
			}
			checkModel(t, got.Model, want.Unpenalised)
			checkClose(t, "objective without penalty", got.Objective, want.Unpenalised.NegLogLik, 1e-10*want.Unpenalised.NegLogLik)
			checkGoldenMetrics(t, "test without penalty", got.Model, test, want.Unpenalised.Test)
		})
	}
}

// L1 and elastic net against scikit-learn's saga, as testdata/l1_reference.py made it
// converge. The bound on the weights is what saga's own accuracy leaves.
func TestGoldenL1(t *testing.T) {
	text, err := os.ReadFile("testdata/l1_reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var reference struct {
		Fits []struct {
			Set, Split string
			C          float64   `json:"C"`
			Ratio      float64   `json:"l1_ratio"`
			Intercept  float64   `json:"intercept"`
			Coef       []float64 `json:"coef"`
			Objective  float64   `json:"objective"`
		} `json:"fits"`
	}
	if err := json.Unmarshal(text, &reference); err != nil {
		t.Fatal(err)
	}
	if len(reference.Fits) < 6 {
		t.Fatalf("%d fits, want at least 6", len(reference.Fits))
	}
	for _, want := range reference.Fits {
		t.Run(want.Set+"_"+want.Split, func(t *testing.T) {
			t.Parallel()
			train, _ := readDesign(t, want.Set+"/design."+want.Split+".csv.gz")
			opts := Options{Penalty: ElasticNet, L1Ratio: want.Ratio, C: want.C}
			if want.Ratio == 1 {
				opts.Penalty, opts.L1Ratio = L1, 0
			}
			for _, solver := range []Solver{SolverNewton, SolverLBFGS} {
				opts.Solver = solver
				opts.Tolerance = map[Solver]float64{SolverNewton: 1e-10, SolverLBFGS: 1e-8}[solver]
				got := mustFit(t, train, opts)
				checkClose(t, "objective", got.Objective, want.Objective, 1e-9*want.Objective)
				checkClose(t, "intercept", got.Model.Intercept, want.Intercept, 1e-4*math.Abs(want.Intercept))
				zeros := 0
				for j, w := range want.Coef {
					checkClose(t, "weight "+strconv.Itoa(j), got.Model.Weights[j], w, 1e-4*max(math.Abs(w), 1e-2))
					if (got.Model.Weights[j] == 0) != (w == 0) {
						t.Errorf("%v: weight %d is %g, want %g: one is exactly 0", solver, j, got.Model.Weights[j], w)
					}
					if w == 0 {
						zeros++
					}
				}
				t.Logf("%v: %d of %d are 0, %d iterations, gradient %.1g", solver, zeros, len(want.Coef), got.Iterations, got.GradientNorm)
			}
		})
	}
}

// L-BFGS and sparse rows against the same references as TestGoldenFit.
func TestGoldenFitByOtherWays(t *testing.T) {
	for _, d := range designs {
		t.Run(d.set+"_"+d.split, func(t *testing.T) {
			t.Parallel()
			want := readGolden(t, d.set)[d.split]
			train, _ := readDesign(t, d.set+"/design."+d.split+".csv.gz")
			for what, fit := range map[string]func() (*Result, error){
				"l-bfgs": func() (*Result, error) { return Fit(t.Context(), train.X, train.y, Options{Solver: SolverLBFGS}) },
				"sparse newton": func() (*Result, error) {
					return FitSparse(t.Context(), toSparse(train.X), train.y, Options{Solver: SolverNewton})
				},
				"sparse l-bfgs": func() (*Result, error) {
					return FitSparse(t.Context(), toSparse(train.X), train.y, Options{Solver: SolverLBFGS})
				},
			} {
				if what == "sparse l-bfgs" && train.X.Rows > 10_000 {
					continue // takes seconds
				}
				got, err := fit()
				if err != nil || !got.Converged {
					t.Fatalf("%s: %+v, %v", what, got, err)
				}
				t.Logf("%s: %d iterations, %d passes", what, got.Iterations, got.Passes)
				checkModel(t, got.Model, want.L2)
				checkClose(t, what+" objective", got.Objective, want.L2.Objective, 1e-10*want.L2.Objective)
			}
		})
	}
}

func checkModel(t *testing.T, got Model, want goldenFit) {
	t.Helper()
	checkClose(t, "intercept", got.Intercept, want.Intercept, 1e-7*math.Abs(want.Intercept))
	if len(got.Weights) != len(want.Coef) {
		t.Fatalf("%d weights, want %d", len(got.Weights), len(want.Coef))
	}
	for j, w := range want.Coef {
		checkClose(t, "weight "+strconv.Itoa(j), got.Weights[j], w, 1e-7*math.Abs(w))
	}
}

func checkGoldenMetrics(t *testing.T, what string, m Model, s sample, want goldenMetrics) {
	t.Helper()
	p := make([]float64, s.X.Rows)
	m.Probs(p, s.X)
	got, err := Evaluate(s.y, p)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	checkMetrics(t, what, got, want)
}

func checkMetrics(t *testing.T, what string, got Metrics, want goldenMetrics) {
	t.Helper()
	if got.N != want.N || got.Positives != want.Pos {
		t.Errorf("%s: %d rows, %d positives, want %d, %d", what, got.N, got.Positives, want.N, want.Pos)
	}
	checkClose(t, what+" log-loss", got.LogLoss, want.LogLoss, 1e-9)
	checkClose(t, what+" AUC", got.AUC, want.AUC, 1e-9)
	checkClose(t, what+" Hanley-McNeil SE", HanleyMcNeilSE(got.AUC, got.Positives, got.N-got.Positives), want.Hanley, 1e-9)
	checkClose(t, what+" AP", got.AP, want.AP, 1e-9)
	checkClose(t, what+" Brier", got.Brier, want.Brier, 1e-9)
	checkClose(t, what+" KS", got.KS, want.KS, 1e-9)
	checkClose(t, what+" ECE", got.ECE, want.ECE, 1e-9)
	checkClose(t, what+" ECE by mass", got.ECEMass, want.ECEMass, 1e-9)
}

func checkClose(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s: got %.17g, want %.17g, off by %.2g (allowed %.2g)", what, got, want, math.Abs(got-want), tolerance)
	}
}
