package lr

import "fmt"

// Lack says what data lack for a figure that depends on chance. It is a value and not
// an error: too little data is a common answer, which a report shows like any other.
// Beside a Lack other than LackNothing, the figures that it concerns are 0.
type Lack int

const (
	// LackNothing: the figures stand.
	LackNothing Lack = iota
	// LackRows: no more rows than parameters.
	LackRows
	// LackInformation: a direction in which the rows say nothing about the parameters,
	// such as a constant column, a combination of other columns, or probabilities of 0 and 1
	// throughout.
	LackInformation
	// LackOneRow: a class of one row, which does not show how much its rows vary.
	LackOneRow
	// LackOverlap: the scores separate the classes, or differ nowhere, so that their variance
	// is estimated as 0.
	LackOverlap
	// LackOneClass: rows of one label only.
	LackOneClass
)

func (l Lack) String() string {
	switch l {
	case LackNothing:
		return "enough data"
	case LackRows:
		return "not enough data: no more rows than parameters"
	case LackInformation:
		return "not enough data: a parameter about which the rows say nothing"
	case LackOneRow:
		return "not enough data: a class of one row"
	case LackOverlap:
		return "not enough data: scores without variance"
	case LackOneClass:
		return "not enough data: one class only"
	}
	return fmt.Sprintf("Lack(%d)", int(l))
}
