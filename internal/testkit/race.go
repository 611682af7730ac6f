//go:build race

package testkit

// Raced: the race detector makes everything ten times slower, the broker too.
const Raced = true
