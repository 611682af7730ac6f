package memory

import "math"

// acc sums up values of a series. Of the parts that its need does not name it keeps none.
type acc struct {
	n           uint64
	sum, lost   float64 // Neumaier's sum: lost is the rounding error of all additions
	mean, m2    float64 // Welford's: mean, and the sum of squares of the differences from it
	min, max    float64
	first, last int64   // time, µs: lowest and highest
	lastValue   float64 // of the highest time; of equals, of the event later in the log
}

// add takes one value. Products and sums are rounded one by one, so that every processor gives the same bits.
func (a *acc) add(need need, t int64, x float64) {
	a.n++
	if need&needSum != 0 {
		a.plus(x)
	}
	if need&needMoments != 0 {
		d := x - a.mean
		a.mean += d / float64(a.n)
		a.m2 += float64(d * (x - a.mean))
	}
	a.extremes(need, x, x, t, t, x)
}

func (a *acc) plus(x float64) {
	t := a.sum + x
	if math.Abs(a.sum) >= math.Abs(x) {
		a.lost += (a.sum - t) + x
	} else {
		a.lost += (x - t) + a.sum
	}
	a.sum = t
}

func (a *acc) extremes(need need, low, high float64, first, last int64, lastValue float64) {
	one := a.n == 1
	if need&needMin != 0 && (one || low < a.min) {
		a.min = low
	}
	if need&needMax != 0 && (one || high > a.max) {
		a.max = high
	}
	if need&needFirst != 0 && (one || first < a.first) {
		a.first = first
	}
	if need&needLast != 0 && (one || last >= a.last) {
		a.last = last
		if need&needLastValue != 0 {
			a.lastValue = lastValue
		}
	}
}

// merge takes all that b has, which came after what a has. Moments by Chan, Golub and LeVeque.
func (a *acc) merge(need need, b *acc) {
	switch {
	case b.n == 0:
		return
	case a.n == 0:
		*a = *b
		return
	}
	if need&needSum != 0 {
		a.plus(b.sum)
		a.plus(b.lost)
	}
	if need&needMoments != 0 {
		n := float64(a.n + b.n)
		d := b.mean - a.mean
		a.mean += float64(d*float64(b.n)) / n
		a.m2 += b.m2 + float64(float64(d*d)*(float64(float64(a.n)*float64(b.n))/n))
	}
	a.n += b.n
	a.extremes(need, b.min, b.max, b.first, b.last, b.lastValue)
}

func (a *acc) total() float64 { return a.sum + a.lost }

// sd is of the population.
func (a *acc) sd() float64 { return math.Sqrt(max(a.m2, 0) / float64(a.n)) }
