// Command race measures how fast pkg/lr fits against scikit-learn, on this machine, in one run:
// both get the same data and the same objective to reach, take turns, and use all cores.
//
//	go run ./pkg/lr/internal/race
//
// It makes a Python environment with the newest scikit-learn the first time, which takes the
// network and a minute.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/riskweir/riskweir/pkg/lr"
)

// enough is by what share the objective may lie above the optimum's.
const enough = 1e-9

type config struct {
	rounds, rows int
	cases        string
	peers        string
	python, venv string
}

func main() {
	var c config
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	flag.IntVar(&c.rounds, "rounds", 7, "turns of each")
	flag.IntVar(&c.rows, "rows", 1_000_000, "rows of each data set")
	flag.StringVar(&c.cases, "cases", "30,100,sparse", "columns of dense data, or sparse for 10000 columns with 30 numbers a row")
	flag.StringVar(&c.peers, "peers", "lbfgs,newton-cholesky,newton-cg,liblinear", "solvers of scikit-learn that may be tried")
	flag.StringVar(&c.python, "python", "python3", "interpreter that makes the environment")
	flag.StringVar(&c.venv, "venv", filepath.Join(cache, "riskweir-lr-race"), "folder of the Python environment")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "race:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, c config) error {
	python, err := preparePython(ctx, c.python, c.venv)
	if err != nil {
		return fmt.Errorf("prepare python: %w", err)
	}
	fmt.Printf("%s %s/%s, %d cores, %d rounds, seed %d, load %s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), c.rounds, seed, load())
	for _, name := range strings.Split(c.cases, ",") {
		if err := raceOn(ctx, c, python, name); err != nil {
			return fmt.Errorf("case %s: %w", name, err)
		}
	}
	return nil
}

// raceOn runs one case.
func raceOn(ctx context.Context, c config, python, name string) (err error) {
	var d *data
	solvers := []string{"lbfgs", "newton-cholesky", "liblinear"}
	if name == "sparse" {
		d = generateSparse(c.rows, 10_000)
		// newton-cholesky would need a dense Hessian of 10000² numbers.
		solvers = []string{"lbfgs", "newton-cg", "liblinear"}
	} else {
		cols, err := strconv.Atoi(name)
		if err != nil {
			return err
		}
		d = generateDense(c.rows, cols)
	}
	folder, err := os.MkdirTemp("", "lr-race-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := d.write(folder); err != nil {
		return err
	}
	p, err := startPeer(ctx, python, folder, d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	fmt.Printf("\n%s %d x %d, %d MB; %s\n", d.kind(), d.rows, d.cols, d.bytes()>>20, p.versions)

	best, err := ours(ctx, d, 1e-10)
	if err != nil {
		return err
	}
	optimum := d.objective(best.model())
	target := optimum * (1 + enough)
	fmt.Printf("optimum %.12g (tolerance 1e-10: %.0f ms, %d passes); to reach %.12g\n", optimum, 1000*best.Seconds, best.Iterations, target)

	tolerance, err := loosest(d, "pkg/lr", target, math.Inf(1), func(tolerance float64) (fitted, error) { return ours(ctx, d, tolerance) })
	if err != nil {
		return err
	}
	rival, rivalTolerance, rivalSeconds := "", 0.0, math.Inf(1)
	for _, solver := range solvers {
		if !slices.Contains(strings.Split(c.peers, ","), solver) {
			continue
		}
		t, err := loosest(d, solver, target, 8*rivalSeconds, func(tolerance float64) (fitted, error) { return p.fit(solver, tolerance) })
		if errors.Is(err, errTooSlow) {
			continue
		}
		if err != nil {
			return err
		}
		again, err := p.fit(solver, t)
		if err != nil {
			return err
		}
		if again.Seconds < rivalSeconds {
			rival, rivalTolerance, rivalSeconds = solver, t, again.Seconds
		}
	}
	if rival == "" {
		return errors.New("no solver of scikit-learn reaches the objective")
	}
	var mine, theirs, ratios []float64
	for round := range c.rounds {
		var a, b fitted
		var errA, errB error
		turns := []func(){func() { a, errA = ours(ctx, d, tolerance) }, func() { b, errB = p.fit(rival, rivalTolerance) }}
		turns[round%2]()
		turns[1-round%2]()
		if err := errors.Join(errA, errB); err != nil {
			return err
		}
		if math.Max(d.objective(a.model()), d.objective(b.model())) > target {
			return errors.New("a fit stopped short of the objective")
		}
		mine, theirs, ratios = append(mine, a.Seconds), append(theirs, b.Seconds), append(ratios, b.Seconds/a.Seconds)
	}
	extra := peak(func() { _, err = ours(ctx, d, tolerance) })
	if err != nil {
		return err
	}
	fmt.Printf("pkg/lr        %s\n", spread(mine, "ms", 1000))
	fmt.Printf("scikit-learn  %s  (%s, tol %g)\n", spread(theirs, "ms", 1000), rival, rivalTolerance)
	fmt.Printf("ratio         %s  n = %d, load %s\n", spread(ratios, "x", 1), c.rounds, load())
	if extra >= 0 {
		fmt.Printf("peak memory of pkg/lr above the data %.1f MB, %.1f %% of it\n", float64(extra)/(1<<20), 100*float64(extra)/float64(d.bytes()))
	}
	return nil
}

func ours(ctx context.Context, d *data, tolerance float64) (fitted, error) {
	start := time.Now()
	var r *lr.Result
	var err error
	opts := lr.Options{Tolerance: tolerance}
	if d.isSparse() {
		r, err = lr.FitSparse(ctx, d.sparse, d.y, opts)
	} else {
		r, err = lr.Fit(ctx, d.dense, d.y, opts)
	}
	if err != nil {
		return fitted{}, err
	}
	return fitted{Seconds: time.Since(start).Seconds(), Weights: r.Model.Weights, Intercept: r.Model.Intercept, Iterations: r.Passes}, nil
}

var errTooSlow = errors.New("too slow")

// loosest finds the largest power of ten with which the objective is reached.
func loosest(d *data, who string, target, limit float64, fit func(tolerance float64) (fitted, error)) (float64, error) {
	for exponent := 1; exponent <= 13; exponent++ {
		tolerance := math.Pow10(-exponent)
		f, err := fit(tolerance)
		if err != nil {
			return 0, err
		}
		if f.Error != "" {
			fmt.Printf("%s: %s\n", who, f.Error)
			return 0, errTooSlow
		}
		if d.objective(f.model()) <= target {
			fmt.Printf("%s reaches it with tolerance %g: %.0f ms, %d iterations or passes\n", who, tolerance, 1000*f.Seconds, f.Iterations)
			return tolerance, nil
		}
		if f.Seconds > limit {
			fmt.Printf("%s took %.0f ms with tolerance %g without reaching it: left out\n", who, 1000*f.Seconds, tolerance)
			return 0, errTooSlow
		}
	}
	fmt.Printf("%s does not reach it with any tolerance: left out\n", who)
	return 0, errTooSlow
}

// spread is the median with the least and the largest.
func spread(v []float64, unit string, scale float64) string {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	median := (s[(n-1)/2] + s[n/2]) / 2
	return fmt.Sprintf("median %.4g %s, from %.4g to %.4g", scale*median, unit, scale*s[0], scale*s[n-1])
}

// peak returns by how many bytes the process's resident memory grows while f runs, at
// most, or -1 where the system does not tell.
func peak(f func()) int {
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		f()
		return -1
	}
	before := status("VmRSS")
	f()
	return status("VmHWM") - before
}

// status reads a size in bytes from /proc/self/status.
func status(field string) int {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}

// load is the machine's load average, which says whether others were at work.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:2], " ")
}
