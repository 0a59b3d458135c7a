//go:build unix

package clustertest

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// lags are how long after its answer a change was still not in force
// elsewhere. Zero: never.
type lags []time.Duration

// quantile returns what a share of them does not exceed.
func (l lags) quantile(share float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

var buckets = []time.Duration{
	0, 500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond,
	20 * time.Millisecond, 25 * time.Millisecond, 30 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	time.Second, 10 * time.Second,
}

// String is a histogram.
func (l lags) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: p50 %v, p90 %v, p99 %v, max %v", len(l), round(l.quantile(0.5)), round(l.quantile(0.9)), round(l.quantile(0.99)), round(l.quantile(1)))
	for i, upTo := range buckets {
		n := 0
		for _, lag := range l {
			if lag <= upTo && (i == 0 || lag > buckets[i-1]) {
				n++
			}
		}
		if n > 0 {
			fmt.Fprintf(&b, "\n\t≤ %-6v %6d %s", upTo, n, strings.Repeat("#", (n*60+len(l)-1)/len(l)))
		}
	}
	return b.String()
}

func round(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }
