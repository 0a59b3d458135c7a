package keystore

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Meter is what one key does on this node: how often it was used since the
// last flush, when each secret was last used, and its place in its limit. The
// nil Meter counts nothing and lets nothing through that has a limit.
//
// Counting is one atomic addition. Safe for concurrent use.
type Meter struct {
	meters       *Meters
	key          KeyID
	organization string

	counts [outcomes]atomic.Uint32
	used   [2]atomic.Uint64 // by the parity of the generation; see use
	listed atomic.Bool      // among those to be flushed

	// arrival is when, on the clock of sinceStart, the key would have used up
	// what its limit gives, counted request by request (the generic cell rate
	// algorithm; ITU-T I.371). One in the past is a limit not used at all.
	arrival atomic.Int64
}

// Pass counts a request that goes on, made with a secret of generation gen.
func (m *Meter) Pass(gen Generation, now time.Time) {
	if m == nil {
		return
	}
	if last := &m.used[gen&1]; last.Load() != use(gen, now) {
		last.Store(use(gen, now))
	}
	m.Refuse(OutcomeAllowed)
}

// Refuse counts a request that ended with an outcome.
func (m *Meter) Refuse(o Outcome) {
	if m == nil {
		return
	}
	m.count(o, 1)
}

func (m *Meter) count(o Outcome, requests uint32) {
	m.counts[o].Add(requests)
	if !m.listed.Load() && m.listed.CompareAndSwap(false, true) {
		m.meters.list(m)
	}
}

// A use is a generation, of which the low bits do, and a second. The two
// secrets that a key can have are of generations that follow each other.
const (
	useSecondBits  = 40
	useGenerations = 1<<(64-useSecondBits) - 1
)

func use(gen Generation, now time.Time) uint64 {
	return uint64(gen)&useGenerations<<useSecondBits | uint64(now.Unix())&(1<<useSecondBits-1)
}

// Allowance is what a limit still gives.
type Allowance struct {
	Limit     Limit
	Remaining uint32        // requests that would pass now
	Reset     time.Duration // until the whole burst is there again
	Retry     time.Duration // until one more request passes; zero: now
}

// LimitedError carries what the exceeded limit still gives. It is an ErrLimited.
type LimitedError struct{ Allowance Allowance }

func (e *LimitedError) Error() string {
	return fmt.Sprintf("%v: %v, in %v again", ErrLimited, e.Allowance.Limit, e.Allowance.Retry)
}

// Unwrap makes errors.Is(err, ErrLimited) true.
func (e *LimitedError) Unwrap() error { return ErrLimited }

// processStart is the zero of the limits' clock, which is monotonic: no step of
// the wall clock gives or takes requests.
var processStart = time.Now()

func sinceStart(now time.Time) time.Duration { return now.Sub(processStart) }

// maxLate is how long after its time a request may still ask for its place in
// a limit: one that came before others must not take back what they used.
const maxLate = time.Minute

// take takes one request from the limit; false if it has none left.
func (m *Meter) take(l Limit, now time.Time) (Allowance, bool) {
	if m == nil {
		return Allowance{Limit: l, Retry: time.Second}, false
	}
	interval, at := l.interval(), sinceStart(now)
	whole := interval * time.Duration(l.Burst)
	for {
		old := m.arrival.Load()
		from := max(time.Duration(old), at)
		if from > at+whole+maxLate {
			from = at + whole // it was used up under an earlier limit, which was slower
		}
		due := from + interval
		if ahead := due - at; ahead > whole {
			if int64(from) != old {
				m.arrival.CompareAndSwap(old, int64(from))
			}
			return Allowance{Limit: l, Reset: ahead - interval, Retry: ahead - whole}, false
		}
		if m.arrival.CompareAndSwap(old, int64(due)) {
			ahead := due - at
			return Allowance{Limit: l, Remaining: uint32((whole - ahead) / interval), Reset: ahead}, true
		}
	}
}

// left is what take would return. It takes nothing.
func (m *Meter) left(l Limit, now time.Time) (Allowance, bool) {
	if m == nil {
		return m.take(l, now)
	}
	var same Meter
	same.arrival.Store(m.arrival.Load())
	return same.take(l, now)
}

// spent reports whether some of a limit is used up at now.
func (m *Meter) spent(now time.Time) bool { return time.Duration(m.arrival.Load()) > sinceStart(now) }
