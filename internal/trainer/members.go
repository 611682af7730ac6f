package trainer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"

	"github.com/riskweir/riskweir/internal/boost"
	"github.com/riskweir/riskweir/internal/feature"
	"github.com/riskweir/riskweir/internal/model"
	"github.com/riskweir/riskweir/pkg/events"
	"github.com/riskweir/riskweir/pkg/lr"
)

// forgets that the correction of the level is tried with; 0: none.
var forgets = [...]float64{0, 1, 0.999, 0.998}

// Later is what the members say of the test records, in their order: the online one learns each label after it has answered, as
// it does where labels come at once.
type Later struct {
	Names  []string    // ascending
	Logits [][]float64 // by member
	Fused  []float64   // logits of all together
	Gone   [][]float64 // likewise, without a member
	Rate   float64     // of the online member
}

// membersFit fits the members beside the regression, and their fusion.
//
//	training records:  |--------------------|----later 1----|----later 2----|----later 3----|
//	                    a fold's members learn from all before its later part, and answer for that;
//	                    the fusion is learned from those answers, then the members from everything
type membersFit struct {
	in          FitInput
	enc         *feature.Encoder
	x           lr.Matrix
	y           []float64
	train, test []int
	batch       lr.Model

	names  []string
	learn  *learner
	trees  *boost.Model
	card   []float64   // logits of the training records by the scorecard
	stack  [][]float64 // by member: logits of records that it had not learned from
	labels []float64   // of those
	fused  []model.Fusion
	forget float64
}

func (m *membersFit) fit(ctx context.Context, res *FitResult) error {
	m.names = []string{model.KindBatch, model.KindBoost, model.KindOnline}
	if m.in.Card != nil {
		m.names = append(m.names, model.KindScorecard)
		if err := m.score(); err != nil {
			return err
		}
	}
	foretold, err := m.pass()
	if err != nil {
		return err
	}
	if err := m.answers(ctx, foretold); err != nil {
		return err
	}
	if m.trees, err = boost.Fit(ctx, m.x, m.y, m.boosting(), nil); err != nil {
		return err
	}
	m.chooseForget()
	m.fused = m.fusions(m.stack, m.labels)
	m.learn.level = newLevel(m.forget)
	if res.Later, res.P, err = m.later(); err != nil {
		return err
	}
	res.Later.Rate = m.learn.ftrl.Options().Alpha
	res.Ensemble, err = m.ensemble()
	return err
}

func (m *membersFit) boosting() boost.Options { return boost.Options{Workers: m.in.LR.Workers} }

// score has the scorecard answer for the training records.
func (m *membersFit) score() error {
	logit, err := m.in.Card.Logit(m.in.Data.schema)
	if err != nil {
		return err
	}
	for rec := range m.in.Data.Records(m.train) {
		m.card = append(m.card, logit(rec))
	}
	return nil
}

// visiting order of n records by who learns online.
func (m *membersFit) visiting(n int) []int {
	order := Sequence(n)
	if m.in.Mixed { // a file may be sorted by anything, such as the label
		key := func(i int) uint64 {
			z := uint64(i+1) * 0x9E3779B97F4A7C15
			z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
			z = (z ^ z>>27) * 0x94D049BB133111EB
			return z ^ z>>31
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(key(a), key(b)) })
	}
	return order
}

// pass has learners with several rates go through the training records, and keeps the best and the logits that it gave before each
// label.
func (m *membersFit) pass() (foretold []float64, err error) {
	least := math.Inf(1)
	order := m.visiting(m.x.Rows)
	for _, rate := range rates {
		l, err := newLearner(m.x.Cols, rate)
		if err != nil {
			return nil, err
		}
		logits := make([]float64, m.x.Rows)
		for _, i := range order {
			if logits[i], err = l.learn(m.x.Row(i), m.y[i]); err != nil {
				return nil, err
			}
		}
		if loss := l.ftrl.Progressive().LogLoss; loss < least {
			least, m.learn, foretold = loss, l, logits
		}
	}
	if m.learn == nil {
		return nil, errors.New("no rate of the member online gives a finite loss")
	}
	return foretold, nil
}

// minAnswers is what a fusion is learned from at least, of either label; with fewer all members have the same weight.
const minAnswers = 10

// folds of n training records: what is learned from, and what is answered.
func (m *membersFit) folds(n int) (folds [][2][]int) {
	all := Sequence(n)
	if !m.in.Mixed {
		for _, tenths := range []int{4, 6, 8} {
			folds = append(folds, [2][]int{all[:n*tenths/10], all[n*tenths/10 : n*(tenths+2)/10]})
		}
		return folds
	}
	const mixed = 5
	for f := range mixed {
		var fold [2][]int
		for _, i := range all {
			part := 0
			if i%mixed == f {
				part = 1
			}
			fold[part] = append(fold[part], i)
		}
		folds = append(folds, fold)
	}
	return folds
}

// answers fits the members of each fold, and has them answer for its later part.
func (m *membersFit) answers(ctx context.Context, foretold []float64) error {
	m.stack = make([][]float64, len(m.names))
	for _, fold := range m.folds(m.x.Rows) {
		x, y := m.rows(fold[0])
		if bad := count(y); bad == 0 || bad == len(y) || len(fold[1]) == 0 {
			continue
		}
		batch, err := lr.Fit(ctx, x, y, m.in.LR)
		if err != nil {
			return err
		}
		trees, err := boost.Fit(ctx, x, y, m.boosting(), nil)
		if err != nil {
			return err
		}
		for _, i := range fold[1] {
			row := m.x.Row(i)
			m.stack[0] = append(m.stack[0], batch.Model.Logit(row))
			m.stack[1] = append(m.stack[1], trees.Logit(row))
			m.stack[2] = append(m.stack[2], foretold[i])
			if m.in.Card != nil {
				m.stack[3] = append(m.stack[3], m.card[i])
			}
			m.labels = append(m.labels, m.y[i])
		}
	}
	return nil
}

func (m *membersFit) rows(index []int) (lr.Matrix, []float64) {
	if n := len(index); n > 0 && index[n-1] == n-1 { // the first n
		return lr.Matrix{Rows: n, Cols: m.x.Cols, Data: m.x.Data[:n*m.x.Cols]}, m.y[:n]
	}
	x, y := lr.Matrix{Rows: len(index), Cols: m.x.Cols, Data: make([]float64, len(index)*m.x.Cols)}, make([]float64, len(index))
	for at, i := range index {
		copy(x.Row(at), m.x.Row(i))
		y[at] = m.y[i]
	}
	return x, y
}

// fusions of every set of members but the empty one.
func (m *membersFit) fusions(stack [][]float64, labels []float64) []model.Fusion {
	var all []model.Fusion
	bad := count(labels)
	for mask := 1; mask < 1<<len(m.names); mask++ {
		var f model.Fusion
		var logits [][]float64
		for i, name := range m.names {
			if mask>>i&1 == 1 {
				f.Members = append(f.Members, name)
				logits = append(logits, stack[i])
			}
		}
		if bad < minAnswers || len(labels)-bad < minAnswers {
			for range f.Members {
				f.Weights = append(f.Weights, 1/float64(len(f.Members)))
			}
		} else {
			f.Weights, f.Bias = fuse(logits, labels)
		}
		all = append(all, f)
	}
	return all
}

// chooseForget learns a fusion from the first half of the answers, and takes the correction that does best on the second.
func (m *membersFit) chooseForget() {
	half := len(m.labels) / 2
	bad := count(m.labels[:half])
	if m.in.Mixed || bad < minAnswers || half-bad < minAnswers {
		return // where there is no time nothing drifts
	}
	first := make([][]float64, len(m.names))
	for i := range first {
		first[i] = m.stack[i][:half]
	}
	weights, bias := fuse(first, m.labels[:half])
	least := math.Inf(1)
	for _, forget := range forgets {
		l, sum := newLevel(forget), 0.0
		for i := half; i < len(m.labels); i++ {
			z := bias
			for k, w := range weights {
				z += float64(w * m.stack[k][i])
			}
			sum += loss(m.labels[i], lr.Sigmoid(l.of(z)))
			l.learn(z, m.labels[i])
		}
		if sum < least {
			least, m.forget = sum, forget
		}
	}
}

// fusion of a set of members, by mask.
func (m *membersFit) fusion(mask int, logits []float64) float64 {
	f := m.fused[mask-1]
	z, at := f.Bias, 0
	for i := range m.names {
		if mask>>i&1 == 1 {
			z += float64(f.Weights[at] * logits[i])
			at++
		}
	}
	return z
}

const onlinePlace = 2

// later has the members answer for the test records, and the online one learn from them. p is of all but the online one.
func (m *membersFit) later() (*Later, []float64, error) {
	n := len(m.test)
	x, y := m.in.Data.encode(m.enc, m.test), m.in.Data.targets(m.test)
	l := &Later{Names: m.names, Fused: make([]float64, n)}
	for range m.names {
		l.Logits = append(l.Logits, make([]float64, n))
		l.Gone = append(l.Gone, make([]float64, n))
	}
	if m.in.Card != nil {
		logit, err := m.in.Card.Logit(m.in.Data.schema)
		if err != nil {
			return nil, nil, err
		}
		i := 0
		for rec := range m.in.Data.Records(m.test) {
			l.Logits[3][i] = logit(rec)
			i++
		}
	}
	p := make([]float64, n)
	all := 1<<len(m.names) - 1
	logits := make([]float64, len(m.names))
	for _, i := range m.visiting(n) {
		row := x.Row(i)
		l.Logits[0][i], l.Logits[1][i] = m.batch.Logit(row), m.trees.Logit(row)
		z, err := m.learn.learn(row, y[i])
		if err != nil {
			return nil, nil, err
		}
		l.Logits[onlinePlace][i] = z
		for k := range logits {
			logits[k] = l.Logits[k][i]
		}
		fused := m.fusion(all, logits)
		l.Fused[i] = m.learn.level.of(fused)
		for k := range m.names {
			l.Gone[k][i] = m.fusion(all&^(1<<k), logits)
			if k != onlinePlace {
				l.Gone[k][i] = m.learn.level.of(l.Gone[k][i])
			}
		}
		p[i] = lr.Sigmoid(l.Gone[onlinePlace][i])
		m.learn.level.learn(fused, y[i])
	}
	return l, p, nil
}

func (m *membersFit) ensemble() (*model.Ensemble, error) {
	online, err := m.learn.online()
	if err != nil {
		return nil, err
	}
	e := &model.Ensemble{Fusions: m.fused, Forget: m.forget}
	for _, name := range m.names {
		member := model.Member{Kind: name}
		switch name {
		case model.KindBoost:
			member.Body, err = json.Marshal(m.trees)
		case model.KindOnline:
			member.Body, err = json.Marshal(online)
		case model.KindScorecard:
			member.Body, err = json.Marshal(m.in.Card)
		}
		if err != nil {
			return nil, fmt.Errorf("write member %s: %w", name, err)
		}
		e.Members = append(e.Members, member)
	}
	return e, nil
}

// card of a kind, if there is a directory of them and one that fits. One that does not is told of, and models are trained without.
func (t *Trainer) card(kind string, schema *events.Schema) *model.Scorecard {
	if t.cfg.Scorecards == "" || t.cfg.Single {
		return nil
	}
	card, err := readCard(filepath.Join(t.cfg.Scorecards, kind+".yaml"), schema)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.trouble(err)
	}
	return card
}

// loss of one record, in nats; kept finite where a probability is 0 or 1.
func loss(y, p float64) float64 {
	if y == 0 {
		p = 1 - p
	}
	return -lr.Log(max(p, 1e-15))
}
