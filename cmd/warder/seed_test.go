package main_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// newSeed returns what makes the choices of a test repeatable: printed, and
// given back by the environment variable name.
func newSeed(t *testing.T, name string) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv(name); text != "" {
		given, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		seed = given
	}
	t.Logf("%s=%d", name, seed)
	return seed
}
