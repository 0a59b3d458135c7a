package keystore

import (
	"math"
	"testing"
	"time"
)

func TestNodePending(t *testing.T) {
	const beat = 1_000_000_000
	at := func(d time.Duration) Instant { return beat + Instant(d/time.Microsecond) }
	for name, c := range map[string]struct {
		applied Revision
		bound   time.Duration
		now     Instant
		want    bool
	}{
		"has applied it":                       {7, time.Hour, at(0), false},
		"has applied more":                     {8, time.Hour, at(0), false},
		"has not, and lives":                   {6, 10 * time.Second, at(0), true},
		"at the end of its bound":              {6, 10 * time.Second, at(10 * time.Second), true},
		"just within the tenth more":           {6, 10 * time.Second, at(11*time.Second - time.Microsecond), true},
		"the tenth is over":                    {6, 10 * time.Second, at(11 * time.Second), false},
		"has applied nothing":                  {0, 10 * time.Second, at(time.Second), true},
		"decides nothing":                      {0, 0, at(0), false},
		"a bound below what is counted":        {0, 1, at(0), true},
		"a bound below zero":                   {0, -time.Hour, at(0), false},
		"the store's clock was set back":       {6, time.Second, at(-time.Hour), true},
		"whatever stands in the registry":      {6, math.MaxInt64, at(24 * 365 * time.Hour), true},
		"a heartbeat of long ago, bound hours": {6, time.Hour, at(67 * time.Minute), false},
	} {
		n := Node{Applied: Position{Revision: c.applied}, Bound: c.bound, Heartbeat: beat}
		if got := n.Pending(7, c.now); got != c.want {
			t.Errorf("%s: pending = %t", name, got)
		}
	}
}

func TestNodeLeaseLeft(t *testing.T) {
	n := Node{Heartbeat: 1_000_000, Bound: 5 * time.Second}
	for now, want := range map[Instant]time.Duration{1_000_000: 5 * time.Second, 4_000_000: 2 * time.Second, 6_000_000: 0, 9_000_000: 0} {
		if got := n.LeaseLeft(now); got != want {
			t.Errorf("at %d: %s, want %s", now, got, want)
		}
	}
}
