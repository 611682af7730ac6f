package lr

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// repeated is the sample in which each row stands as often as its weight says.
func repeated(y, p, weights []float64) (ry, rp []float64) {
	for i, w := range weights {
		for range int(w) {
			ry, rp = append(ry, y[i]), append(rp, p[i])
		}
	}
	return ry, rp
}

func TestWeightedMetricsAreThoseOfRepeatedRows(t *testing.T) {
	const seed = 601
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		y, p := randomPredictions(r, 6+r.IntN(60))
		weights := make([]float64, len(y))
		rows := 0
		for i := range weights {
			weights[i] = float64(r.IntN(4))
			if weights[i] > 0 {
				rows++
			}
		}
		got, err := EvaluateWeighted(y, p, weights)
		ry, rp := repeated(y, p, weights)
		want, wantErr := Evaluate(ry, rp)
		var one *OneClassError
		if errors.As(wantErr, &one) && errors.As(err, &one) || rows == 0 {
			continue
		}
		if err != nil || wantErr != nil {
			t.Fatal(err, wantErr)
		}
		if got.N != rows || got.Weight != float64(want.N) {
			t.Errorf("%d rows of weight %v, want %d, %d", got.N, got.Weight, rows, want.N)
		}
		for _, c := range []struct {
			what      string
			got, want float64
		}{
			{"log-loss", got.LogLoss, want.LogLoss}, {"Brier", got.Brier, want.Brier}, {"ECE", got.ECE, want.ECE},
			{"AUC", got.AUC, want.AUC}, {"Gini", got.Gini, 2*want.AUC - 1}, {"AP", got.AP, want.AP}, {"KS", got.KS, want.KS},
		} {
			checkClose(t, c.what, c.got, c.want, 1e-12)
		}

		// Nothing depends on the unit of the weights, and weights of 1 are none.
		scaled := make([]float64, len(weights))
		ones := make([]float64, len(weights))
		for i, w := range weights {
			scaled[i], ones[i] = w*3.7, 1
		}
		again, err := EvaluateWeighted(y, p, scaled)
		if err != nil {
			t.Fatal(err)
		}
		checkClose(t, "AUC SE in another unit", again.AUCSE, got.AUCSE, 1e-12)
		checkClose(t, "ECE by mass in another unit", again.ECEMass, got.ECEMass, 1e-12)
		plain, err := Evaluate(y, p)
		if err != nil {
			t.Fatal(err)
		}
		if same, err := EvaluateWeighted(y, p, ones); err != nil || same != plain {
			t.Errorf("weights of 1 give %+v, %v, none %+v", same, err, plain)
		}
		if t.Failed() {
			t.Fatalf("seed %d, y %v, p %v, weights %v", seed, y, p, weights)
		}
	}
}

// bootstrap returns the mean, standard deviation and central 95 % of a figure over
// samples of the rows.
func bootstrap(seed uint64, rows, resamples int, figure func(rows []int) float64) (mean, sd, low, high float64) {
	r := rand.New(rand.NewPCG(seed, 0))
	at := make([]int, rows)
	values := make([]float64, 0, resamples)
	for range resamples {
		for i := range at {
			at[i] = r.IntN(rows)
		}
		values = append(values, figure(at))
	}
	for _, v := range values {
		mean += v / float64(resamples)
	}
	for _, v := range values {
		sd += (v - mean) * (v - mean) / float64(resamples)
	}
	slices.Sort(values)
	return mean, math.Sqrt(sd), values[resamples/40], values[resamples-1-resamples/40]
}

func TestAUCIntervalAgainstBootstrap(t *testing.T) {
	const seed, rows, resamples = 602, 400, 900
	r := rand.New(rand.NewPCG(seed, 0))
	y, p := randomPredictions(r, rows)
	q := make([]float64, rows)
	weights := make([]float64, rows)
	for i := range p {
		q[i] = min(max(p[i]+0.3*(r.Float64()-0.5), 0), 1) // a worse model of the same rows
		weights[i] = 0.2 + 3*r.Float64()*r.Float64()
	}
	for name, w := range map[string][]float64{"plain": nil, "weighted": weights} {
		pick := func(at []int) (by, bp, bq, bw []float64) {
			for _, i := range at {
				by, bp, bq = append(by, y[i]), append(bp, p[i]), append(bq, q[i])
				if w != nil {
					bw = append(bw, w[i])
				}
			}
			return by, bp, bq, bw
		}
		auc := func(y, p, w []float64) float64 {
			m, err := EvaluateWeighted(y, p, w)
			if err != nil {
				t.Fatal(err)
			}
			return m.AUC
		}
		e, err := AUCInterval(y, p, w, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		_, sd, low, high := bootstrap(seed, rows, resamples, func(at []int) float64 {
			by, bp, _, bw := pick(at)
			return auc(by, bp, bw)
		})
		// The bootstrap's own relative error is 1/√(2·resamples) = 2.4 %, a percentile's more.
		checkClose(t, name+" SE", e.SE/sd, 1, 0.09)
		checkClose(t, name+" low", e.Low, low, 0.4*sd)
		checkClose(t, name+" high", e.High, high, 0.4*sd)

		c, err := CompareAUC(y, p, q, w, 0.95)
		if err != nil {
			t.Fatal(err)
		}
		_, sd, low, high = bootstrap(seed, rows, resamples, func(at []int) float64 {
			by, bp, bq, bw := pick(at)
			return auc(by, bp, bw) - auc(by, bq, bw)
		})
		checkClose(t, name+" paired SE", c.DifferenceSE/sd, 1, 0.09)
		checkClose(t, name+" paired low", c.Low, low, 0.4*sd)
		checkClose(t, name+" paired high", c.High, high, 0.4*sd)
		if alone := math.Hypot(c.SE[0], c.SE[1]); c.DifferenceSE > 0.8*alone {
			t.Errorf("%s: paired SE %v, that of two samples %v: the pairing gains nothing", name, c.DifferenceSE, alone)
		}
	}
}

// slowDeLong is the covariance of two AUCs as DeLong and others define it, pair by pair.
func slowDeLong(y, p, q []float64) (covariance float64) {
	psi := func(x, z float64) float64 {
		switch {
		case x > z:
			return 1
		case x == z:
			return 0.5
		}
		return 0
	}
	var positives, negatives []int
	for i, label := range y {
		if label == 1 {
			positives = append(positives, i)
		} else {
			negatives = append(negatives, i)
		}
	}
	m, n := float64(len(positives)), float64(len(negatives))
	auc := func(s []float64) float64 {
		sum := 0.0
		for _, i := range positives {
			for _, k := range negatives {
				sum += psi(s[i], s[k])
			}
		}
		return sum / m / n
	}
	ap, aq := auc(p), auc(q)
	s10, s01 := 0.0, 0.0
	for _, i := range positives {
		vp, vq := 0.0, 0.0
		for _, k := range negatives {
			vp += psi(p[i], p[k]) / n
			vq += psi(q[i], q[k]) / n
		}
		s10 += (vp - ap) * (vq - aq) / (m - 1)
	}
	for _, k := range negatives {
		vp, vq := 0.0, 0.0
		for _, i := range positives {
			vp += psi(p[i], p[k]) / m
			vq += psi(q[i], q[k]) / m
		}
		s01 += (vp - ap) * (vq - aq) / (n - 1)
	}
	return s10/m + s01/n
}

func TestCompareAUCAgainstItsDefinition(t *testing.T) {
	const seed = 603
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		y, p := randomPredictions(r, 6+r.IntN(50))
		_, q := randomPredictions(r, len(y))
		c, err := CompareAUC(y, p, q, nil, 0.9)
		if err != nil {
			t.Fatal(err)
		}
		if c.Lack == LackOneRow {
			continue
		}
		want := slowDeLong(y, p, p) + slowDeLong(y, q, q) - 2*slowDeLong(y, p, q)
		if c.Lack != LackNothing {
			checkClose(t, "variance", want, 0, 1e-20)
			continue
		}
		checkClose(t, "variance", c.DifferenceSE*c.DifferenceSE, want, 1e-13)
		checkClose(t, "SE of the first", c.SE[0]*c.SE[0], slowDeLong(y, p, p), 1e-13)
		checkClose(t, "z", c.Z*c.DifferenceSE, c.AUC[0]-c.AUC[1], 1e-13)
		checkClose(t, "p", c.P, math.Erfc(math.Abs(c.Z)/math.Sqrt2), 1e-12)
		back, err := CompareAUC(y, q, p, nil, 0.9)
		if err != nil || back.P != c.P || back.Difference != -c.Difference || back.Low != -c.High {
			t.Errorf("the other way round %+v, %v, was %+v", back, err, c)
		}
		if t.Failed() {
			t.Fatalf("seed %d, y %v, p %v, q %v", seed, y, p, q)
		}
	}
}

func TestAUCLacks(t *testing.T) {
	y := []float64{0, 0, 1, 1}
	p := []float64{0.1, 0.2, 0.3, 0.4}
	e, err := AUCInterval(y, p, nil, 0.95)
	if err != nil || e != (AUCEstimate{N: 4, Positives: 2, AUC: 1, Level: 0.95, Lack: LackOverlap}) {
		t.Errorf("separated: %+v, %v", e, err)
	}
	e, err = AUCInterval([]float64{0, 0, 0, 1}, p, nil, 0.95)
	if err != nil || e.Lack != LackOneRow || e.SE != 0 || e.N != 4 {
		t.Errorf("one positive: %+v, %v", e, err)
	}
	// By another monotone scale the same order.
	q := []float64{0.2, 0.5, 0.6, 0.99}
	c, err := CompareAUC([]float64{0, 1, 0, 1}, p, q, nil, 0.95)
	if err != nil || c.Lack != LackOverlap || c.Difference != 0 || c.P != 0 || c.AUC != [2]float64{0.75, 0.75} {
		t.Errorf("the same order: %+v, %v", c, err)
	}
	for _, check := range []struct {
		err  error
		want string
	}{
		{second(AUCInterval(y, p, []float64{1, 1, 0, 0}, 0.95)), "lr: all 2 rows have label 0, want both 0 and 1"},
		{second(AUCInterval(y, p, nil, 1)), "lr: option Level is 1, want above 0 and below 1"},
		{second(AUCInterval(y, p, []float64{1, 2, -1, 0}, 0.9)), "lr: weights row 2 is -1, want 0 or between 1e-90 and 1e+90"},
		{second(AUCInterval(y, p, []float64{1}, 0.9)), "lr: length of weights is 1, want one a row, 4"},
		{second(AUCInterval(y, p, make([]float64, 4), 0.9)), "lr: option weights is 0, want at least one row of weight above 0"},
		{second(CompareAUC(y, p, q[:3], nil, 0.9)), "lr: length of q is 3, want that of y, 4"},
		{second(CompareAUC(y, p, []float64{0, 0, math.NaN(), 0}, nil, 0.9)), "lr: q row 2 is NaN, want between 0 and 1"},
		{second(EvaluateWeighted(y, p, []float64{math.Inf(1), 0, 0, 0})), "lr: weights row 0 is +Inf, want 0 or between 1e-90 and 1e+90"},
	} {
		if check.err == nil || check.err.Error() != check.want {
			t.Errorf("%v, want %s", check.err, check.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestBrierParts(t *testing.T) {
	const seed = 604
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		y, p := randomPredictions(r, 3+r.IntN(60))
		weights := make([]float64, len(y))
		for i := range weights {
			weights[i] = float64(1 + r.IntN(3))
		}
		ry, rp := repeated(y, p, weights)
		for _, bins := range []Bins{{}, {Count: 1}, {Count: 7}, {Count: 5, EqualCount: true}, {Count: 1000, EqualCount: true}} {
			d, err := DecomposeBrier(y, p, weights, bins)
			if err != nil {
				t.Fatal(err)
			}
			b, err := Brier(ry, rp)
			if err != nil {
				t.Fatal(err)
			}
			checkClose(t, "Brier", d.Brier, b, 1e-13)
			checkClose(t, "sum", d.Reliability-d.Resolution+d.Uncertainty+d.Within, b, 1e-13)
			if d.Reliability < 0 || d.Resolution < 0 || d.Resolution > d.Uncertainty+1e-13 || d.N != len(y) {
				t.Errorf("%+v", d)
			}
			switch {
			case bins.Count == 0:
				checkClose(t, "within equal p", d.Within, 0, 1e-15)
				// By its definition, value by value.
				sum := map[float64][2]float64{}
				for i, v := range rp {
					s := sum[v]
					sum[v] = [2]float64{s[0] + 1, s[1] + ry[i]}
				}
				rel := 0.0
				for v, s := range sum {
					rel += s[0] / float64(len(rp)) * (v - s[1]/s[0]) * (v - s[1]/s[0])
				}
				checkClose(t, "reliability", d.Reliability, rel, 1e-13)
			case bins.Count == 1:
				checkClose(t, "resolution of one bin", d.Resolution, 0, 1e-15)
			}
			table, err := CalibrationTable(y, p, weights, bins, 0.9)
			if err != nil {
				t.Fatal(err)
			}
			checkTable(t, table, len(ry), d)
			if !bins.EqualCount && bins.Count > 0 {
				e, err := ECE(ry, rp, bins.Count)
				if err != nil {
					t.Fatal(err)
				}
				sum := 0.0
				for _, c := range table {
					sum += c.Weight / float64(len(ry)) * math.Abs(c.MeanP-c.Rate)
				}
				checkClose(t, "ECE", sum, e, 1e-13)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d, y %v, p %v, weights %v", seed, y, p, weights)
		}
	}
}

func checkTable(t *testing.T, table []CalibrationBin, weight int, d BrierParts) {
	t.Helper()
	n, positives, sum, last := 0, 0, 0.0, -1.0
	for _, c := range table {
		n += c.N
		positives += c.Positives
		sum += c.Weight
		if !(c.MinP > last && c.MinP <= c.MeanP && c.MeanP <= c.MaxP && c.Low <= c.Rate && c.Rate <= c.High && c.Low >= 0 && c.High <= 1 && c.High > c.Low && c.N > 0) {
			t.Errorf("bin %+v after %v", c, last)
		}
		last = c.MaxP
	}
	if n != d.N || positives != d.Positives || sum != float64(weight) || len(table) != d.Bins {
		t.Errorf("%d bins of %d rows, %d positives, weight %v, want %+v", len(table), n, positives, sum, d)
	}
}

func TestCalibrationTableByHand(t *testing.T) {
	// Ten rows at 0.2 of which 3 are positive, and two at 0.9.
	var y, p []float64
	for i := range 10 {
		label := 0.0
		if i < 3 {
			label = 1
		}
		y, p = append(y, label), append(p, 0.2)
	}
	y, p = append(y, 1, 1), append(p, 0.9, 0.9)
	table, err := CalibrationTable(y, p, nil, Bins{Count: 4, EqualCount: true}, 0.95)
	if err != nil || len(table) != 2 {
		t.Fatal(table, err)
	}
	// Wilson's interval of 3 in 10, as is in many tables.
	checkClose(t, "low", table[0].Low, 0.10779126740630082, 1e-9)
	checkClose(t, "high", table[0].High, 0.6032218525388546, 1e-9)
	if table[1].High != 1 || table[1].N != 2 || table[1].Rate != 1 {
		t.Errorf("%+v", table[1])
	}
	for _, err := range []error{
		second(CalibrationTable(y, p, nil, Bins{Count: -1}, 0.9)), second(CalibrationTable(y, p, nil, Bins{Count: 1<<20 + 1}, 0.9)),
		second(CalibrationTable(y, p, nil, Bins{}, 0)), second(DecomposeBrier(nil, nil, nil, Bins{})),
	} {
		if err == nil {
			t.Error("bad input is no error")
			continue
		}
		mustBeTyped(t, err)
	}
}

func TestLift(t *testing.T) {
	y := []float64{1, 0, 1, 0, 0, 1, 0, 0, 0, 0}
	p := []float64{0.9, 0.8, 0.7, 0.5, 0.5, 0.5, 0.5, 0.2, 0.1, 0.1}
	got, err := Lift(y, p, nil, 0.1, 0.3, 0.5, 1)
	if err != nil {
		t.Fatal(err)
	}
	want := []LiftRow{
		{0.1, 1, 0.9, 1, 1, 1. / 3, 1 / 0.3},
		{0.3, 3, 0.7, 2, 2. / 3, 2. / 3, 2. / 3 / 0.3},
		{0.5, 5, 0.5, 2.5, 0.5, 2.5 / 3, 0.5 / 0.3}, // half of the four at 0.5
		{1, 10, 0.1, 3, 0.3, 1, 1},
	}
	for k, w := range want {
		g := got[k]
		for _, c := range [][2]float64{{g.Fraction, w.Fraction}, {g.N, w.N}, {g.Threshold, w.Threshold}, {g.Positives, w.Positives}, {g.Precision, w.Precision}, {g.Recall, w.Recall}, {g.Lift, w.Lift}} {
			checkClose(t, "lift", c[0], c[1], 1e-14)
		}
	}
	// Where no fraction cuts ties, it is the recall of the rows sorted.
	const seed = 605
	r := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		n := 5 + r.IntN(100)
		y, p := make([]float64, n), make([]float64, n)
		y[0] = 1
		for i := range p {
			p[i] = r.Float64()
			y[i] = max(y[i], float64(r.IntN(2)))
		}
		k := 1 + r.IntN(n)
		rows, err := Lift(y, p, nil, float64(k)/float64(n))
		if err != nil {
			t.Fatal(err)
		}
		order := ascending(p)
		slices.Reverse(order)
		found, all := 0.0, 0.0
		for i, at := range order {
			all += y[at]
			if i < k {
				found += y[at]
			}
		}
		checkClose(t, "recall", rows[0].Recall, found/all, 1e-12)
		// Weights of 2 throughout change nothing.
		double := make([]float64, n)
		for i := range double {
			double[i] = 2
		}
		again, err := Lift(y, p, double, float64(k)/float64(n))
		if err != nil {
			t.Fatal(err)
		}
		checkClose(t, "lift", again[0].Lift, rows[0].Lift, 1e-12)
		checkClose(t, "n", again[0].N, rows[0].N, 1e-9)
	}
	for _, f := range []float64{0, -0.1, 1.1, math.NaN()} {
		if _, err := Lift(y, p, nil, 0.5, f); err == nil {
			t.Errorf("fraction %v is no error", f)
		}
	}
	if _, err := Lift([]float64{0, 0}, []float64{0, 1}, nil, 0.5); err == nil {
		t.Error("no positives are no error")
	}
}
