package events

import (
	"math"
	"strconv"
	"unsafe"
)

// pow10 holds the powers of ten that a float64 holds exactly.
var pow10 = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// scanNumber reads the number that starts at b[i] by the grammar of RFC 8259 and
// returns the position behind it, or -1. What follows it is the caller's to judge.
//
// t.num has the bits of strconv.ParseFloat on the literal; beyond the range it is an infinity.
func scanNumber(b []byte, i int, t *token) int {
	start := i
	neg := i < len(b) && b[i] == '-'
	if neg {
		i++
	}
	if i >= len(b) || !isDigit(b[i]) {
		return -1
	}
	// mant * 10^exp is the literal's magnitude while !cut.
	var mant uint64
	exp, cut := 0, false
	const safe = (math.MaxUint64 - 9) / 10 // the largest mant to which any digit can be added
	if b[i] == '0' {
		i++
		if i < len(b) && isDigit(b[i]) {
			return -1
		}
	} else {
		for ; i < len(b) && isDigit(b[i]); i++ {
			d := uint64(b[i] - '0')
			if cut || mant > safe && (mant > math.MaxUint64/10 || d > math.MaxUint64-mant*10) {
				cut = true
				continue
			}
			mant = mant*10 + d
		}
	}
	t.kind, t.isInt, t.neg, t.mag, t.big = kindNumber, true, neg, mant, cut
	if i < len(b) && b[i] == '.' {
		t.isInt = false
		i++
		if i >= len(b) || !isDigit(b[i]) {
			return -1
		}
		for ; i < len(b) && isDigit(b[i]); i++ {
			if cut || mant > safe {
				cut = true
				continue
			}
			mant = mant*10 + uint64(b[i]-'0')
			exp--
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		t.isInt = false
		i++
		eneg := false
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			eneg = b[i] == '-'
			i++
		}
		if i >= len(b) || !isDigit(b[i]) {
			return -1
		}
		e := 0
		for ; i < len(b) && isDigit(b[i]); i++ {
			if e < 10000 { // far beyond the range of a float64
				e = e*10 + int(b[i]-'0')
			}
		}
		if eneg {
			e = -e
		}
		exp += e
	}
	t.text = b[start:i]
	// Clinger's fast path: both factors are exact, so the one rounding is the right one.
	if !cut && mant < 1<<53 && exp >= -22 && exp <= 22 {
		f := float64(mant)
		if exp < 0 {
			f /= pow10[-exp]
		} else {
			f *= pow10[exp]
		}
		if neg {
			f = -f
		}
		t.num = f
		return i
	}
	t.num = parseFloat(t.text)
	return i
}

// parseFloat is strconv.ParseFloat on a valid literal: an infinity beyond the range.
func parseFloat(b []byte) float64 {
	f, _ := strconv.ParseFloat(unsafe.String(unsafe.SliceData(b), len(b)), 64) // out of range: told by the infinity
	return f
}

func isDigit(c byte) bool { return c-'0' <= 9 }

// minorUnits is the float64 nearest to an integer token divided by 10^minor.
func minorUnits(t *token, minor int, div float64) float64 {
	if !t.big && t.mag <= 1<<53 {
		f := float64(t.mag) / div
		if t.neg {
			return -f
		}
		return f
	}
	// The integer itself would be rounded: let one rounding do both.
	var buf [64]byte
	b := append(t.appendText(buf[:0]), "e-"...)
	return parseFloat(strconv.AppendInt(b, int64(minor), 10))
}

// appendFloat writes f as encoding/json does: the shortest text that reads back to the same bits.
// What is not finite becomes null, since JSON has no word for it.
func appendFloat(dst []byte, f float64) []byte {
	abs := math.Abs(f)
	switch {
	case !(abs <= math.MaxFloat64):
		return append(dst, "null"...)
	case abs != 0 && (abs < 1e-6 || abs >= 1e21):
		dst = strconv.AppendFloat(dst, f, 'e', -1, 64)
		// e-09 is written e-9
		if n := len(dst); n >= 4 && dst[n-4] == 'e' && (dst[n-3] == '-' || dst[n-3] == '+') && dst[n-2] == '0' {
			dst[n-2] = dst[n-1]
			dst = dst[:n-1]
		}
		return dst
	}
	return strconv.AppendFloat(dst, f, 'f', -1, 64)
}
