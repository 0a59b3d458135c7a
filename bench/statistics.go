//go:build linux

package main

import (
	"cmp"
	"slices"
	"time"
)

// spread is the middle of several figures, and how far they lie apart.
type spread struct{ low, median, high float64 }

func spreadOf(figures []float64) spread {
	s := slices.Sorted(slices.Values(figures))
	if len(s) == 0 {
		return spread{}
	}
	middle := (s[(len(s)-1)/2] + s[len(s)/2]) / 2
	return spread{s[0], middle, s[len(s)-1]}
}

// halfOf is the middle of many figures, and between which the middle half of
// them lies: of many, some are always far off.
func halfOf(figures []float64) spread {
	return spread{quantile(figures, 0.25), spreadOf(figures).median, quantile(figures, 0.75)}
}

// quantile returns the smallest figure that a part q of all does not exceed.
func quantile[F cmp.Ordered](figures []F, q float64) F {
	s := slices.Sorted(slices.Values(figures))
	if len(s) == 0 {
		var none F
		return none
	}
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

func p99(latencies []time.Duration) time.Duration { return quantile(latencies, 0.99) }

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
