//go:build race

package trainer

// The race detector makes numbers slow: under it only small data sets are trained on.
const raceEnabled = true
