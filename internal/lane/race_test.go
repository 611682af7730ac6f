//go:build race

package lane

// raced: the race detector makes a schedule ten times slower.
const raced = true
