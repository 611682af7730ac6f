package lr

import (
	"context"
	"fmt"
	"math"
)

const (
	// memorySteps is how many of the last steps L-BFGS learns the curvature from.
	memorySteps = 12
	// patience is the number of steps after which SolverAuto goes over from L-BFGS to
	// Newton's method.
	patience = 25
	// separationEvery is how many steps lie between two searches for a separation.
	separationEvery = 20
	// idleSteps without a better point mean that rounding allows none.
	idleSteps = 50
)

// lbfgs searches with limited-memory BFGS updates of a preconditioner, and with an L1
// part as OWL-QN does: by the least subgradient, within the orthant that it points into.
type lbfgs struct {
	*fitter
	n         int // parameters
	at, trial *evaluation
	pre       preconditioner
	memory    []correction // oldest first
	steepest  []float64
	step      []float64
	slope     float64 // -steepest·step
	decrement float64
}

// correction is a step and how it changed the gradient.
type correction struct {
	step, change []float64
	inverse      float64 // 1/(step·change)
	share        float64
}

// preconditioner solves with a first guess of the Hessian: a full one, or its diagonal.
type preconditioner struct {
	full     *cholesky
	diagonal []float64
}

func (p preconditioner) solve(x []float64) {
	if p.full != nil {
		p.full.solve(x, x)
		return
	}
	for j, d := range p.diagonal {
		x[j] /= d
	}
}

// lbfgs takes at most the given number of steps, and also returns the last theta.
func (f *fitter) lbfgs(ctx context.Context, limit int) (*Result, []float64, error) {
	s := &lbfgs{fitter: f, n: f.cols + 1}
	s.steepest, s.step = make([]float64, s.n), make([]float64, s.n)
	if err := s.begin(ctx); err != nil {
		return nil, nil, fmt.Errorf("lr: evaluate the start: %w", err)
	}
	var (
		iterations, idle int
		best             = math.Inf(1)
		mark             = append([]float64(nil), s.at.theta...)
	)
	end := func(stop Stop) (*Result, []float64, error) {
		return f.result(SolverLBFGS, s.at, stop, s.decrement, iterations), s.at.theta, nil
	}
	for {
		s.direction()
		if s.decrement < 0.9*best {
			best, idle = s.decrement, 0
		} else {
			idle++
		}
		if f.alpha == 0 && f.lambda == 0 && iterations%separationEvery == separationEvery-1 {
			if err := s.separated(ctx, mark); err != nil {
				return nil, nil, err
			}
			copy(mark, s.at.theta)
		}
		switch {
		case s.decrement <= f.tolerance, idle >= idleSteps && s.decrement <= nearEnough:
			return end(StopConverged)
		case iterations == limit:
			return end(StopIterations)
		}
		moved, err := s.advance(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("lr: iteration %d: %w", iterations+1, err)
		}
		if !moved {
			if len(s.memory) == 0 {
				if s.decrement <= nearEnough {
					return end(StopConverged)
				}
				return end(StopStalled)
			}
			s.memory = s.memory[:0]
			continue
		}
		iterations++
		f.report(SolverLBFGS, iterations, s.at.objective, s.decrement)
	}
}

// begin evaluates the start, the better one of two if one was given, and prepares the
// preconditioner.
func (s *lbfgs) begin(ctx context.Context) error {
	p := len(s.cold)
	s.at, s.trial = newEvaluation(p), newEvaluation(p)
	s.at.objective = math.Inf(1)
	start := s.cold
	var hessian []float64
	if s.sample.worthwhile(s.fitter) {
		theta, h, err := s.sample.optimum(ctx, s.fitter, s.warm)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			start, hessian = theta, h
		}
	}
	s.sample = nil
	var diagonal []float64
	for _, theta := range [][]float64{s.warm, start} {
		if theta == nil {
			continue
		}
		e := s.trial
		copy(e.theta, theta)
		e.diagonal = make([]float64, p)
		if err := s.evaluate(ctx, e); err != nil {
			return err
		}
		if diagonal == nil || e.objective < s.at.objective {
			diagonal = e.diagonal
			s.at, s.trial = s.trial, s.at
		}
		e.diagonal = nil
	}
	s.prepare(hessian, diagonal[:s.n])
	return nil
}

// prepare makes the preconditioner: the sample's Hessian, scaled to the diagonal of
// that of all rows, or the latter alone. The diagonal also makes good for a column that
// hardly occurs in the sample.
func (s *lbfgs) prepare(hessian, diagonal []float64) {
	for j, d := range diagonal {
		if !(d >= smallest && d <= math.MaxFloat64) {
			// A column of zeros without a penalty: its weight stays as it is.
			diagonal[j] = 1
		}
	}
	s.pre.diagonal = diagonal
	if hessian == nil {
		return
	}
	p := len(s.at.theta)
	factor := make([]float64, s.n)
	for j, d := range diagonal {
		factor[j] = math.Sqrt(d / hessian[j*p+j])
	}
	for j := range s.n {
		for k := range j + 1 {
			hessian[j*p+k] = float64(float64(hessian[j*p+k]*factor[j]) * factor[k])
		}
	}
	if c := newCholesky(s.n, p); c.decompose(hessian, 0, rankFloor) < 0 {
		s.pre.full = c
	}
}

// direction computes the step.
func (s *lbfgs) direction() {
	for j := range s.steepest {
		s.steepest[j] = s.fitter.steepest(s.at, j)
	}
	for {
		s.quasiNewton()
		s.slope = -dot(s.steepest, s.step)
		if s.slope > 0 || len(s.memory) == 0 {
			break
		}
		s.memory = s.memory[:0]
	}
	s.slope = max(s.slope, 0)
	s.decrement = math.Sqrt(s.slope / s.meanRow)
}

// quasiNewton is the two-loop recursion (Nocedal and Wright, Numerical Optimization,
// algorithm 7.4).
func (s *lbfgs) quasiNewton() {
	for j, g := range s.steepest {
		s.step[j] = -g
	}
	for i := len(s.memory) - 1; i >= 0; i-- {
		c := &s.memory[i]
		c.share = float64(c.inverse * dot(c.step, s.step))
		addMultiple(s.step, -c.share, c.change)
	}
	s.pre.solve(s.step)
	if last := len(s.memory) - 1; last >= 0 && s.pre.full == nil {
		// The diagonal knows nothing of how columns go together: the last step tells
		// the size (7.20).
		c := s.memory[last]
		scaled := 0.0
		for j, y := range c.change {
			scaled += float64(y * y / s.pre.diagonal[j])
		}
		size := 1 / float64(c.inverse*scaled)
		for j := range s.step {
			s.step[j] *= size
		}
	}
	for _, c := range s.memory {
		addMultiple(s.step, c.share-float64(c.inverse*dot(c.change, s.step)), c.step)
	}
	if s.lambda == 0 {
		return
	}
	for j, g := range s.steepest {
		if j > 0 && float64(s.step[j]*g) >= 0 {
			s.step[j] = 0
		}
	}
}

func addMultiple(dst []float64, size float64, src []float64) {
	src = src[:len(dst)]
	for j := range dst {
		dst[j] += float64(size * src[j])
	}
}

// advance moves along step as far as lowers the objective sufficiently and learns from
// it. It reports false if no size does.
func (s *lbfgs) advance(ctx context.Context) (moved bool, err error) {
	noise := float64(objectiveNoise * math.Abs(s.at.objective))
	size := 1.0
	for range maxHalvings {
		promised := s.moveTrial(size)
		if err := s.evaluate(ctx, s.trial); err != nil {
			return false, err
		}
		excess := s.trial.objective - s.at.objective
		if excess <= noise-float64(sufficientDecrease*promised) {
			s.learn()
			s.at, s.trial = s.trial, s.at
			return true, nil
		}
		// The minimum of the parabola through what is known, if it is a sensible place.
		next := float64(0.5*size) * (promised / (excess + promised))
		if !(next >= 0.1*size) {
			next = 0.1 * size
		}
		size = min(next, 0.5*size)
	}
	return false, nil
}

// moveTrial sets the trial point and returns the decrease that the slope promises. With
// an L1 part a weight that would change its sign becomes 0.
func (s *lbfgs) moveTrial(size float64) (promised float64) {
	theta := s.trial.theta
	for j, v := range s.step {
		old := s.at.theta[j]
		t := old + float64(size*v)
		if s.lambda > 0 && j > 0 {
			orthant := sign(old)
			if orthant == 0 {
				orthant = -sign(s.steepest[j])
			}
			if sign(t) != orthant {
				t = 0
			}
		}
		theta[j] = t
		promised -= float64(s.steepest[j] * (t - old))
	}
	return promised
}

// learn adds the step from at to trial to the memory.
func (s *lbfgs) learn() {
	var c correction
	if len(s.memory) == memorySteps {
		c = s.memory[0]
		copy(s.memory, s.memory[1:])
		s.memory = s.memory[:memorySteps-1]
	} else {
		c.step, c.change = make([]float64, s.n), make([]float64, s.n)
	}
	for j := range c.step {
		c.step[j] = s.trial.theta[j] - s.at.theta[j]
		c.change[j] = s.trial.gradient[j] - s.at.gradient[j]
	}
	product := dot(c.step, c.change)
	// Less is rounding.
	if !(product > 1e-14*math.Sqrt(float64(dot(c.step, c.step)*dot(c.change, c.change)))) {
		return
	}
	c.inverse = 1 / product
	s.memory = append(s.memory, c)
}

// separated looks for a separation along the way from mark.
func (s *lbfgs) separated(ctx context.Context, mark []float64) error {
	way := make([]float64, len(mark))
	for j := range way {
		way[j] = s.at.theta[j] - mark[j]
	}
	least, most, _, err := s.margins(ctx, way, 0)
	if err != nil {
		return fmt.Errorf("lr: look for a separation: %w", err)
	}
	if most >= divergingMove && least >= -separationSlip*most {
		return s.separation(ctx, way, most, least > marginNoise*most)
	}
	return nil
}
