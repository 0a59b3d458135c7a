//go:build linux

package main

import (
	"errors"
	"slices"
	"testing"
)

// Disturbed rounds count only where there are too few calm ones, and the
// heading of the table says of both how many.
func TestPick(t *testing.T) {
	calm, disturbed := [][]float64{{1, 10}, {2, 20}}, [][]float64{{8, 80}, {9, 90}}
	for _, c := range []struct {
		n      int
		first  []float64
		second []float64
		said   string
	}{
		{2, []float64{1, 2}, []float64{10, 20}, "2 rounds (2 more, which other guests disturbed, are left out)"},
		{3, []float64{1, 2, 8}, []float64{10, 20, 80}, "3 rounds, in 1 of which other guests disturbed (1 more, which other guests disturbed, are left out)"},
		{4, []float64{1, 2, 8, 9}, []float64{10, 20, 80, 90}, "4 rounds, in 2 of which other guests disturbed"},
	} {
		got := pick(c.n, calm, disturbed)
		if !slices.Equal(got.columns[0], c.first) || !slices.Equal(got.columns[1], c.second) || got.String() != c.said {
			t.Errorf("%d of 2 calm and 2 disturbed ones: %v, %q", c.n, got.columns, got)
		}
	}
}

// The first round warms up and is not counted, and one that fails ends all.
func TestTakeRounds(t *testing.T) {
	got, err := takeRounds(2, func(i int) ([]float64, error) { return []float64{float64(i)}, nil })
	if err != nil || len(got.columns[0]) != 2 || slices.Contains(got.columns[0], 0) {
		t.Errorf("%v %v", got.columns, err)
	}
	failure := errors.New("no answer")
	if _, err := takeRounds(2, func(int) ([]float64, error) { return nil, failure }); !errors.Is(err, failure) {
		t.Errorf("got %v, want %v", err, failure)
	}
}
