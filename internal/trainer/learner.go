package trainer

import (
	"fmt"

	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/lr"
)

// rates that the online member is tried with; that of the least loss, each label foretold before it is learned, is kept.
var rates = [...]float64{0.03, 0.1, 0.3, 1}

// learner is the member online, and the correction of the fused level that goes with it.
type learner struct {
	ftrl  *lr.FTRL
	level level
	index []int32
	data  []float64
}

func newLearner(columns int, rate float64) (*learner, error) {
	f, err := lr.NewFTRL(lr.FTRLOptions{Cols: columns, Alpha: rate, L2: 1})
	if err != nil {
		return nil, err
	}
	return &learner{ftrl: f, level: newLevel(0)}, nil
}

// resumed goes on from where an artifact or a snapshot was made.
func resumed(o *model.Online, forget float64) (*learner, error) {
	f, err := lr.DecodeFTRL(o.State, len(o.Weights))
	if err != nil {
		return nil, fmt.Errorf("state of the member online: %w", err)
	}
	if n := f.Options().Cols; n != len(o.Weights) {
		return nil, fmt.Errorf("state of the member online has %d columns, and %d weights", n, len(o.Weights))
	}
	return &learner{ftrl: f, level: level{slope: o.Slope, shift: o.Shift, covariance: o.Covariance, forget: forget}}, nil
}

// online is what the learner has come to.
func (l *learner) online() (model.Online, error) {
	state, err := l.ftrl.MarshalBinary()
	if err != nil {
		return model.Online{}, err
	}
	m := l.ftrl.Model()
	return model.Online{Intercept: m.Intercept, Weights: m.Weights, Slope: l.level.slope, Shift: l.level.shift, Covariance: l.level.covariance, State: state}, nil
}

// sparse is a row's columns that are not 0, and their values. They are good until the next call.
func (l *learner) sparse(x []float64) ([]int32, []float64) {
	l.index, l.data = l.index[:0], l.data[:0]
	for j, v := range x {
		if v != 0 {
			l.index = append(l.index, int32(j))
			l.data = append(l.data, v)
		}
	}
	return l.index, l.data
}

// learn returns the logit from before.
func (l *learner) learn(x []float64, y float64) (float64, error) {
	index, data := l.sparse(x)
	z := l.ftrl.Logit(index, data)
	_, err := l.ftrl.Learn(index, data, y, 1)
	return z, err
}

// level corrects a fused logit, slope · logit + shift, as labels come: Kalman's filter for a logistic regression of two parameters
// (West, Harrison and Migon, Dynamic generalized linear models, 1985), which forgets by a factor for each label.
type level struct {
	slope, shift float64
	covariance   [3]float64 // slope², slope·shift, shift²
	forget       float64    // 0: it learns nothing
}

// What is not known of slope and shift: at the beginning, and at most, however long ago the last label was.
const (
	beginSlope, beginShift = 0.002, 0.02
	mostSlope, mostShift   = 0.01, 0.1
	leastSlope             = 0.05
)

func newLevel(forget float64) level {
	return level{slope: 1, covariance: [3]float64{beginSlope, 0, beginShift}, forget: forget}
}

func (l *level) of(logit float64) float64 { return float64(l.slope*logit) + l.shift }

// learn takes the label of a record with that fused logit, before correction.
func (l *level) learn(logit, y float64) {
	if l.forget == 0 {
		return
	}
	p := lr.Sigmoid(l.of(logit))
	curve := max(float64(p*(1-p)), 1e-12)
	c := &l.covariance
	c[0], c[2] = min(c[0]/l.forget, mostSlope), min(c[2]/l.forget, mostShift)
	u := [2]float64{float64(c[0]*logit) + c[1], float64(c[1]*logit) + c[2]}
	k := curve / (1 + float64(curve*(float64(u[0]*logit)+u[1])))
	c[0] -= float64(k * float64(u[0]*u[0]))
	c[1] -= float64(k * float64(u[0]*u[1]))
	c[2] -= float64(k * float64(u[1]*u[1]))
	wrong := p - y
	l.slope = max(l.slope-float64(wrong*(float64(c[0]*logit)+c[1])), leastSlope)
	l.shift -= float64(wrong * (float64(c[1]*logit) + c[2]))
}
