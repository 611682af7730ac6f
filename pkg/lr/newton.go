package lr

import (
	"context"
	"fmt"
	"math"
)

const (
	// sufficientDecrease is the share of the decrease promised by the slope that a
	// step must bring (Armijo's rule; Nocedal and Wright, Numerical Optimization,
	// 3.1).
	sufficientDecrease = 1e-4
	// objectiveNoise is the relative change of the objective that rounding may
	// feign.
	objectiveNoise = 1e-12
	maxHalvings    = 40

	// nearEnough is the decrement at which a search that rounding keeps from coming
	// nearer has converged.
	nearEnough = 1e-5

	// rankFloor is the pivot below which, at the constant model, a column counts as
	// a combination of others: 1 - R² < 1e-11.
	rankFloor = 1e-11
	// pivotFloor is the pivot below which there is nothing left but rounding.
	pivotFloor = 1e-15
	// dampings are the shares of the diagonal added until the pivots suffice.
	firstDamping, lastDamping = 1e-12, 1e-2

	// A Newton step towards a finite optimum shrinks quadratically; one along a
	// direction that separates moves the separated logits by about 1 for ever, for
	// the minimum of the tail e⁻ᵗ is always 1 away.
	settledMove    = 1e-3  // in logits: a smaller move is towards an optimum
	divergingMove  = 0.5   // a larger one, though the decrement is small, may be a separation
	separationSlip = 1e-10 // share of the largest move by which a row may lose
	marginNoise    = 1e-9  // share of the largest logit below which a margin's sign is open
	partOf         = 1e-3  // share of the largest move that counts as a part in it
)

// newton is Newton's method on the convex function loss + penalty.
func (f *fitter) newton(ctx context.Context) (*Result, error) {
	s, stop, err := f.newtonSearch(ctx)
	if err != nil {
		return nil, err
	}
	return f.result(SolverNewton, s.at, stop, s.decrement, s.iterations), nil
}

// newtonSearch ends with the Hessian and the step at the last point.
func (f *fitter) newtonSearch(ctx context.Context) (*search, Stop, error) {
	p := padded(f.cols)
	s := &search{fitter: f, chol: newCholesky(f.cols+1, p), step: make([]float64, p)}
	s.at, s.trial = newEvaluation(p).withHessian(), newEvaluation(p).withHessian()
	defer func() {
		for _, w := range f.workers {
			w.hessian, w.tile, w.rows = nil, nil, nil
		}
	}()
	if err := s.begin(ctx); err != nil {
		return nil, 0, fmt.Errorf("lr: evaluate the start: %w", err)
	}
	previous := math.Inf(1)
	for {
		if err := s.direction(ctx); err != nil {
			return nil, 0, err
		}
		settled, err := s.settled(ctx, previous)
		if err != nil {
			return nil, 0, err
		}
		switch {
		case settled && s.damped:
			return s, StopStalled, nil
		case settled:
			return s, StopConverged, nil
		case s.iterations == f.limit(100):
			return s, StopIterations, nil
		}
		previous = s.decrement
		moved, err := s.advance(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("lr: iteration %d: %w", s.iterations+1, err)
		}
		if !moved {
			return s, StopStalled, nil
		}
		s.iterations++
		f.report(SolverNewton, s.iterations, s.at.objective, s.decrement)
	}
}

// search is the state of a run.
type search struct {
	*fitter
	at, trial  *evaluation
	chol       *cholesky
	step       []float64 // to the minimum of the quadratic model: -H⁻¹ gradient, if there is no L1 part
	slope      float64   // -gradient·step >= 0: the squared decrement; with an L1 part the decrease it promises
	decrement  float64   // in standard errors
	damped     bool      // step comes from a matrix other than the Hessian
	constant   bool      // at is the constant model
	iterations int
}

// begin evaluates the better of the two starts.
func (s *search) begin(ctx context.Context) error {
	if s.warm == nil {
		return s.beginCold(ctx)
	}
	copy(s.at.theta, s.warm)
	if err := s.evaluate(ctx, s.at); err != nil {
		return err
	}
	if s.at.objective <= s.coldLoss {
		return nil
	}
	if !math.IsNaN(s.coldLoss) {
		return s.beginCold(ctx)
	}
	copy(s.trial.theta, s.cold)
	if err := s.evaluate(ctx, s.trial); err != nil {
		return err
	}
	if !(s.at.objective <= s.trial.objective) {
		s.at, s.trial = s.trial, s.at
		s.constant = true
	}
	return nil
}

func (s *search) beginCold(ctx context.Context) error {
	s.constant = true
	copy(s.at.theta, s.cold)
	return s.evaluate(ctx, s.at)
}

// direction computes the Newton step, with damping if the Hessian is not positive
// definite in floating point.
func (s *search) direction(ctx context.Context) error {
	if s.lambda > 0 {
		return s.proximalStep()
	}
	s.damped = false
	floor := pivotFloor
	if s.alpha == 0 && s.iterations == 0 {
		floor = rankFloor
	}
	failed := s.chol.decompose(s.at.hessian, 0, floor)
	if failed >= 0 && floor == rankFloor {
		if s.constant {
			// The intercept's own pivot is the weight of the rows, above 0.
			col := failed - 1
			return &RankError{Column: col, Constant: s.width[col] < smallest}
		}
		// Far out the Hessian can fail without a lack of rank.
		if err := s.beginCold(ctx); err != nil {
			return fmt.Errorf("lr: evaluate the start: %w", err)
		}
		return s.direction(ctx)
	}
	for ridge := firstDamping; failed >= 0; ridge *= 100 {
		if ridge > lastDamping {
			return fmt.Errorf("lr: iteration %d: the curvature of parameter %d (0 is the intercept) is not a positive number", s.iterations, failed)
		}
		s.damped = true
		failed = s.chol.decompose(s.at.hessian, ridge, pivotFloor)
	}
	n := s.chol.n
	s.chol.solve(s.step[:n], s.at.gradient[:n])
	for j, v := range s.step[:n] {
		s.step[j] = -v
	}
	s.slope = max(-dot(s.at.gradient, s.step), 0)
	s.decrement = math.Sqrt(s.slope / s.meanRow)
	return nil
}

// settled tells whether the optimum is reached. Without a penalty a small
// decrement is not enough, since it also falls towards 0 where the weights grow
// for ever: there the step must be small too, and where it is not, a separation
// may be proved.
func (s *search) settled(ctx context.Context, previous float64) (bool, error) {
	settled := s.decrement <= s.tolerance ||
		s.decrement <= nearEnough && s.decrement > 0.5*previous
	if s.alpha > 0 || s.lambda > 0 || s.decrement > 1 {
		return settled, nil
	}
	least, most, _, err := s.margins(ctx, s.step, 0)
	if err != nil {
		return false, fmt.Errorf("lr: iteration %d: %w", s.iterations, err)
	}
	if most >= divergingMove && least >= -separationSlip*most {
		return false, s.separation(ctx, s.step, most, least > marginNoise*most)
	}
	return settled && most <= settledMove, nil
}

// separation describes direction, along which the weights would grow for ever; most is
// the largest move of a logit.
func (f *fitter) separation(ctx context.Context, direction []float64, most float64, complete bool) error {
	e := &SeparationError{Complete: complete, Rows: f.rows}
	if !complete {
		var err error
		if _, _, e.Rows, err = f.margins(ctx, direction, partOf*most); err != nil {
			return fmt.Errorf("lr: count separated rows: %w", err)
		}
	}
	largest := 0.0
	for j, spread := range f.spread {
		largest = max(largest, math.Abs(direction[j+1])*spread)
	}
	for j, spread := range f.spread {
		if math.Abs(direction[j+1])*spread > partOf*largest {
			e.Columns = append(e.Columns, j)
		}
	}
	return e
}

// advance moves along step as far as lowers the objective sufficiently: all of it,
// or a half, a quarter, ... It reports false if none does.
func (s *search) advance(ctx context.Context) (moved bool, err error) {
	noise := float64(objectiveNoise * math.Abs(s.at.objective))
	size := 1.0
	for range maxHalvings {
		for j, v := range s.at.theta {
			s.trial.theta[j] = v + float64(size*s.step[j])
		}
		if err := s.evaluate(ctx, s.trial); err != nil {
			return false, err
		}
		if s.trial.objective <= s.at.objective-float64(sufficientDecrease*size*s.slope)+noise {
			s.at, s.trial = s.trial, s.at
			s.constant = false
			return true, nil
		}
		size /= 2
	}
	return false, nil
}
