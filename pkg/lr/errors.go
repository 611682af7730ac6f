package lr

import (
	"fmt"
	"strconv"
	"strings"
)

// ShapeError says that a length or a dimension does not fit the others.
type ShapeError struct {
	What string // what was measured, such as "rows of X" or "length of y"
	Got  int
	Want string // what it must be, such as "at least 1"
}

func (e *ShapeError) Error() string {
	return fmt.Sprintf("lr: %s is %d, want %s", e.What, e.Got, e.Want)
}

// ValueError names one number that cannot be worked with, and where it stands.
type ValueError struct {
	What  string // "X", "y", "p", or a field of Options
	Row   int    // index of the row, or -1 when the number belongs to no row
	Col   int    // index of the column, or -1 when it belongs to no column
	Value float64
	Want  string
}

func (e *ValueError) Error() string {
	var b strings.Builder
	b.WriteString("lr: " + e.What)
	if e.Row >= 0 {
		fmt.Fprintf(&b, " row %d", e.Row)
	}
	if e.Col >= 0 {
		fmt.Fprintf(&b, " column %d", e.Col)
	}
	fmt.Fprintf(&b, " is %v, want %s", e.Value, e.Want)
	return b.String()
}

// OptionError names a setting in [Options] that has no meaning.
type OptionError struct {
	Option string // name of the field
	Value  float64
	Want   string
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("lr: option %s is %v, want %s", e.Option, e.Value, e.Want)
}

// OneClassError says that every row that counts has the same label, so that
// there is nothing to tell apart.
type OneClassError struct {
	Class int // the label that is there: 0 or 1
	N     int // rows that have it; for Fit, those of weight above 0
}

func (e *OneClassError) Error() string {
	return fmt.Sprintf("lr: all %d rows have label %d, want both 0 and 1", e.N, e.Class)
}

// SeparationError says that the likelihood has no maximum at finite weights: a
// hyperplane has all of one class on one side, or on the plane itself, so the
// weights would grow for ever (Albert and Anderson, Biometrika 71, 1984).
//
// With an L2 penalty an optimum always exists.
type SeparationError struct {
	// Complete: the plane misclassifies no row and touches none. Otherwise some
	// rows lie on it (quasi-complete separation), as when one category has only
	// one label.
	Complete bool
	// Columns that have a part in the direction in which the weights grow,
	// ascending.
	Columns []int
	// Rows that the direction tells apart, of weight above 0: all of them when
	// Complete.
	Rows int
}

func (e *SeparationError) Error() string {
	kind := "quasi-complete"
	if e.Complete {
		kind = "complete"
	}
	return fmt.Sprintf("lr: %s separation of %d rows by %s: no finite maximum exists; use an L2 penalty, or drop or merge columns",
		kind, e.Rows, columnList(e.Columns))
}

// RankError says that without a penalty the weights are not determined: a
// column is a linear combination of the columns before it and the constant.
type RankError struct {
	Column   int
	Constant bool // the column has one value only, so the intercept stands for it
}

func (e *RankError) Error() string {
	why := "is a linear combination of the columns before it and the intercept"
	if e.Constant {
		why = "is constant, which the intercept already expresses"
	}
	return fmt.Sprintf("lr: column %d %s, so its weight is not determined; use an L2 penalty or drop it", e.Column, why)
}

// columnList names up to eight columns.
func columnList(cols []int) string {
	if len(cols) == 1 {
		return "column " + strconv.Itoa(cols[0])
	}
	const most = 8
	var b strings.Builder
	b.WriteString("columns ")
	for i, c := range cols[:min(len(cols), most)] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(c))
	}
	if len(cols) > most {
		fmt.Fprintf(&b, " and %d more", len(cols)-most)
	}
	return b.String()
}
