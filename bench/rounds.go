//go:build linux

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// rounds are figures that were taken again and again: one column for each.
type rounds struct {
	columns   [][]float64
	disturbed int // how many of them the machine was taken away in
	leftOut   int // how many more there were of those
}

// takeRounds takes n rounds in which the machine was there for this program,
// after a first one that is thrown away: pools, buffers and branch predictors
// are filled then. After twice as many it makes do with what there is.
func takeRounds(n int, round func(i int) ([]float64, error)) (rounds, error) {
	var calm, disturbed [][]float64
	for i := 0; len(calm) < n && i <= 2*n; i++ {
		begun, stolen := time.Now(), stolenTime()
		figures, err := round(i)
		if err != nil {
			return rounds{}, err
		}
		switch {
		case i == 0:
		case float64(stolenTime()-stolen) > mostStolen*float64(time.Since(begun)):
			disturbed = append(disturbed, figures)
		default:
			calm = append(calm, figures)
		}
	}
	return pick(n, calm, disturbed), nil
}

// pick takes n rounds, calm ones first, as far as there are that many.
func pick(n int, calm, disturbed [][]float64) rounds {
	fill := min(n-len(calm), len(disturbed))
	taken := slices.Concat(calm, disturbed[:fill])
	r := rounds{columns: make([][]float64, len(taken[0])), disturbed: fill, leftOut: len(disturbed) - fill}
	for _, figures := range taken {
		for i, figure := range figures {
			r.columns[i] = append(r.columns[i], figure)
		}
	}
	return r
}

// String says how many rounds there were, for a table's heading.
func (r rounds) String() string {
	s := fmt.Sprintf("%d rounds", len(r.columns[0]))
	if r.disturbed > 0 {
		s += fmt.Sprintf(", in %d of which other guests disturbed", r.disturbed)
	}
	if r.leftOut > 0 {
		s += fmt.Sprintf(" (%d more, which other guests disturbed, are left out)", r.leftOut)
	}
	return s
}

// mostStolen is which part of a round's time a hypervisor may give to others.
// How long somebody waits at the worst says nothing of a server that was not
// let run.
const mostStolen = 0.01

// stolenTime returns how long the processors were not let run although they had
// something to do (proc(5), "steal").
func stolenTime() time.Duration {
	text, _ := os.ReadFile("/proc/stat") // where it is not told, nothing is taken
	line, _, _ := strings.Cut(string(text), "\n")
	const tick, position = 10 * time.Millisecond, 8
	field := strings.Fields(line)
	if len(field) <= position {
		return 0
	}
	ticks, _ := strconv.Atoi(field[position])
	return time.Duration(ticks) * tick
}
