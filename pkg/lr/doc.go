// Package lr is a logistic regression: fit, predict, explain, measure.
package lr
