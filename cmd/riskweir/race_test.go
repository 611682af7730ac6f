//go:build race

package main

// slow is how much longer everything takes: the children are built with the race detector too.
const slow = 4
