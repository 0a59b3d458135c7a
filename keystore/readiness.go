package keystore

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Readiness says whether a node may decide: whether the store answers, and
// what is known is fresh. However many ask, the store is read at most once in
// readInterval, by one goroutine, and one that hangs holds nobody for longer
// than readTimeout. Safe for concurrent use.
type Readiness struct {
	records Records
	lease   *Lease

	mu   sync.Mutex // guards last
	last *reading   // under way, or the answer to all until it is too old
}

// reading is one read of the store, for all who wait for it.
type reading struct {
	began time.Time
	done  chan struct{}

	// After done:
	ended time.Time
	err   error
}

const (
	readInterval = time.Second
	readTimeout  = time.Second

	// nobody is looked up to see whether look-ups are answered. No key has it.
	nobody LookupID = keyIDPrefix
)

// NewReadiness returns the readiness of a node that reads records and trusts
// what it knows as long as lease does.
func NewReadiness(records Records, lease *Lease) *Readiness {
	return &Readiness{records: records, lease: lease}
}

// Check returns nil if this node may decide at now for a configuration that
// trusts as f says. Else ErrStale, or ErrUnavailable: the store does not
// answer, so that keys which are not in memory cannot be known. With f.Serve
// a node is ready without the store for as long as it goes on serving; stale
// says that it does.
func (r *Readiness) Check(ctx context.Context, now time.Time, f Freshness) (stale bool, err error) {
	err = r.read(ctx, now)
	now = now.Add(time.Since(now)) // it may have taken its time
	switch {
	case !r.lease.Valid(now, f.Bound()):
		return false, ErrStale
	case r.lease.Valid(now, f.MaxStaleness) && err == nil:
		return false, nil
	case f.Serve > 0:
		return true, nil
	default:
		return false, err
	}
}

// read returns what the store has answered of late: ErrUnavailable.
func (r *Readiness) read(ctx context.Context, now time.Time) error {
	last := r.join(now)
	late := time.NewTimer(readTimeout - now.Sub(last.began))
	defer late.Stop()
	select {
	case <-last.done:
		return last.err
	default:
	}
	select {
	case <-last.done:
		return last.err
	case <-late.C:
		return fmt.Errorf("asking the store for a sign of life: no answer in time: %w", ErrUnavailable)
	case <-ctx.Done():
		return unavailable(ctx.Err())
	}
}

// join returns the reading that counts at now. One that does not end is never
// followed by another.
func (r *Readiness) join(now time.Time) *reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil || r.last.old(now) {
		r.last = &reading{began: now, done: make(chan struct{})}
		go r.last.run(r.records)
	}
	return r.last
}

func (l *reading) old(now time.Time) bool {
	select {
	case <-l.done:
		return now.Sub(l.ended) >= readInterval
	default:
		return false
	}
}

func (l *reading) run(records Records) {
	defer close(l.done)
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	if _, _, err := records.Lookup(ctx, nobody); err != nil {
		l.err = unavailable(err)
	}
	l.ended = time.Now()
}
