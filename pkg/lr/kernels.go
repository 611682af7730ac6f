package lr

// The inner loops over rows of a dense matrix, row by row. Each has a twin in assembly where
// there is one for the CPU, with the same bits. d is the number of columns, and of weights,
// center, g, h, sum, low and high; x has n rows of d numbers.

// rowLogitsGo sets z to first + Σⱼ weightsⱼ(xⱼ - centerⱼ). Eight strands sum every eighth
// column each, from 0 on, and are added as written below.
func rowLogitsGo(z, x, weights, center []float64, first float64) {
	d := len(weights)
	x, center = x[:len(z)*d], center[:d]
	for i := range z {
		row := x[i*d : (i+1)*d]
		v, c := weights, center
		var s0, s1, s2, s3, s4, s5, s6, s7 float64
		for len(row) >= 8 && len(v) >= 8 && len(c) >= 8 {
			s0 += float64(v[0] * (row[0] - c[0]))
			s1 += float64(v[1] * (row[1] - c[1]))
			s2 += float64(v[2] * (row[2] - c[2]))
			s3 += float64(v[3] * (row[3] - c[3]))
			s4 += float64(v[4] * (row[4] - c[4]))
			s5 += float64(v[5] * (row[5] - c[5]))
			s6 += float64(v[6] * (row[6] - c[6]))
			s7 += float64(v[7] * (row[7] - c[7]))
			row, v, c = row[8:], v[8:], c[8:]
		}
		if len(row) >= 4 && len(v) >= 4 && len(c) >= 4 {
			s0 += float64(v[0] * (row[0] - c[0]))
			s1 += float64(v[1] * (row[1] - c[1]))
			s2 += float64(v[2] * (row[2] - c[2]))
			s3 += float64(v[3] * (row[3] - c[3]))
			switch len(row) {
			case 7:
				s6 += float64(v[6] * (row[6] - c[6]))
				fallthrough
			case 6:
				s5 += float64(v[5] * (row[5] - c[5]))
				fallthrough
			case 5:
				s4 += float64(v[4] * (row[4] - c[4]))
			}
		} else {
			switch len(row) {
			case 3:
				s2 += float64(v[2] * (row[2] - c[2]))
				fallthrough
			case 2:
				s1 += float64(v[1] * (row[1] - c[1]))
				fallthrough
			case 1:
				s0 += float64(v[0] * (row[0] - c[0]))
			}
		}
		z[i] = first + (((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7)))
	}
}

// rowGradientGo adds Σᵢ rᵢ(xᵢ - center) to g, from the first row to the last.
func rowGradientGo(g, x, center, r []float64) {
	d := len(g)
	center = center[:d]
	for len(r) >= 4 && len(x) >= 4*d {
		a0, a1, a2, a3 := x[:d][:len(g)], x[d : 2*d][:len(g)], x[2*d : 3*d][:len(g)], x[3*d : 4*d][:len(g)]
		center := center[:len(g)]
		r0, r1, r2, r3 := r[0], r[1], r[2], r[3]
		for j, v := range g {
			c := center[j]
			v += float64(r0 * (a0[j] - c))
			v += float64(r1 * (a1[j] - c))
			v += float64(r2 * (a2[j] - c))
			v += float64(r3 * (a3[j] - c))
			g[j] = v
		}
		r, x = r[4:], x[4*d:]
	}
	for i, v := range r {
		row := x[i*d : (i+1)*d]
		for j := range g {
			g[j] += float64(v * (row[j] - center[j]))
		}
	}
}

// rowSquaresGo adds Σᵢ curveᵢ(xᵢ - center)² to h, from the first row to the last.
func rowSquaresGo(h, x, center, curve []float64) {
	d := len(h)
	for i, k := range curve {
		row := x[i*d : (i+1)*d][:len(h)]
		center := center[:len(h)]
		for j, v := range h {
			u := row[j] - center[j]
			h[j] = v + float64(float64(k*u)*u)
		}
	}
}

// rowRangesGo adds the rows to sum, from the first to the last, and widens low and high by
// them. A NaN leaves low and high as they are.
func rowRangesGo(sum, low, high, x []float64) {
	d := len(sum)
	for len(x) >= 4*d {
		a0, a1, a2, a3 := x[:d], x[d:2*d], x[2*d:3*d], x[3*d:4*d]
		a1, a2, a3 = a1[:len(a0)], a2[:len(a0)], a3[:len(a0)]
		low, high, sum := low[:len(a0)], high[:len(a0)], sum[:len(a0)]
		for j, v0 := range a0 {
			v1, v2, v3 := a1[j], a2[j], a3[j]
			sum[j] = sum[j] + v0 + v1 + v2 + v3
			l, h := low[j], high[j]
			if v0 < l {
				l = v0
			}
			if v0 > h {
				h = v0
			}
			if v1 < l {
				l = v1
			}
			if v1 > h {
				h = v1
			}
			if v2 < l {
				l = v2
			}
			if v2 > h {
				h = v2
			}
			if v3 < l {
				l = v3
			}
			if v3 > h {
				h = v3
			}
			low[j], high[j] = l, h
		}
		x = x[4*d:]
	}
	for ; len(x) >= d; x = x[d:] {
		for j, v := range x[:d] {
			sum[j] += v
			if v < low[j] {
				low[j] = v
			}
			if v > high[j] {
				high[j] = v
			}
		}
	}
}

// rowHessianGo adds Σᵢ curveᵢ·xᵢ·xᵢᵀ up to the diagonal, and what it likes above it, to h, of p rows
// of p numbers, p even. x has rows of stride numbers, a multiple of 16, of which the first p count.
func rowHessianGo(h, x, curve []float64, p, stride int) {
	for i, c := range curve {
		row := x[i*stride : i*stride+p]
		for j, v := range row {
			curved := float64(c * v)
			sums := h[j*p : j*p+j+1]
			for k, u := range row[:len(sums)] {
				sums[k] += float64(curved * u)
			}
		}
	}
}
