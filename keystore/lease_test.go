package keystore

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestLeaseValid(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		set       func(*Lease)
		staleness time.Duration
		want      bool
	}{
		"the zero lease":                {func(*Lease) {}, time.Hour, false},
		"fresh":                         {func(l *Lease) { l.Renew(now) }, time.Second, true},
		"just in time":                  {func(l *Lease) { l.Renew(now.Add(-time.Second + 1)) }, time.Second, true},
		"exactly over":                  {func(l *Lease) { l.Renew(now.Add(-time.Second)) }, time.Second, false},
		"zero staleness trusts nothing": {func(l *Lease) { l.Renew(now) }, 0, false},
		"suspended":                     {func(l *Lease) { l.Renew(now); l.Suspend() }, time.Hour, false},
		"the machine slept":             {func(l *Lease) { l.Renew(now); l.wall.Add(-int64(time.Hour)) }, time.Minute, false},
		"the wall clock was set back":   {func(l *Lease) { l.Renew(now); l.monotonic.Add(-int64(time.Hour)) }, time.Minute, false},
		"an only writer":                {func(l *Lease) { l.RenewEndless() }, 0, true},
		"an only writer, suspended":     {func(l *Lease) { l.RenewEndless(); l.Suspend() }, time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			var l Lease
			c.set(&l)
			if got := l.Valid(now, c.staleness); got != c.want {
				t.Errorf("Valid = %t", got)
			}
			if got := l.Remaining(now, c.staleness) > 0; got != c.want {
				t.Errorf("Remaining = %s", l.Remaining(now, c.staleness))
			}
		})
	}
	var l Lease
	l.Renew(now.Add(-300 * time.Millisecond))
	if got := l.Remaining(now, time.Second); got != 700*time.Millisecond {
		t.Errorf("Remaining = %s", got)
	}
}

func TestLeaseAwaitWakesTheFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lease
		woken := 0
		wake := func() {
			woken++
			go func() { time.Sleep(100 * time.Millisecond); l.Renew(time.Now()) }()
		}
		l.wake.Store(&wake)
		began := time.Now()
		if err := l.Await(context.Background(), began, Freshness{MaxStaleness: time.Second}); err != nil || woken != 1 {
			t.Errorf("Await = %v after %d wakes", err, woken)
		}
		if waited := time.Since(began); waited != 100*time.Millisecond {
			t.Errorf("waited %s for a round of 100ms", waited)
		}
		if err := l.Await(context.Background(), time.Now(), Freshness{MaxStaleness: time.Second}); err != nil || woken != 1 {
			t.Errorf("a valid lease: %v after %d wakes", err, woken)
		}
	})
}

// TestLeaseAwaitIsNotFooledByAnOldRound: a round that began too long ago does
// not end the wait.
func TestLeaseAwaitIsNotFooledByAnOldRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lease
		go func() {
			time.Sleep(50 * time.Millisecond)
			l.Renew(time.Now().Add(-time.Minute))
			time.Sleep(50 * time.Millisecond)
			l.Renew(time.Now())
		}()
		began := time.Now()
		if err := l.Await(context.Background(), began, Freshness{MaxStaleness: time.Second}); err != nil || time.Since(began) != 100*time.Millisecond {
			t.Errorf("Await = %v after %s", err, time.Since(began))
		}
	})
}

func TestLeaseAwaitIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lease
		began := time.Now()
		if err := l.Await(context.Background(), began, Freshness{MaxStaleness: time.Second}); !errors.Is(err, ErrStale) || time.Since(began) != leaseWait {
			t.Errorf("Await = %v after %s", err, time.Since(began))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		began = time.Now()
		if err := l.Await(ctx, began, Freshness{MaxStaleness: time.Second}); !errors.Is(err, ErrStale) || time.Since(began) != 10*time.Millisecond {
			t.Errorf("a caller that leaves: %v after %s", err, time.Since(began))
		}
	})
}

func TestLeaseWaitersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lease
		var waiters sync.WaitGroup
		for range maxLeaseWaiters {
			waiters.Go(func() { l.Await(context.Background(), time.Now(), Freshness{MaxStaleness: time.Second}) })
		}
		synctest.Wait()
		began := time.Now()
		if err := l.Await(context.Background(), began, Freshness{MaxStaleness: time.Second}); !errors.Is(err, ErrStale) || time.Since(began) != 0 {
			t.Errorf("one too many: %v after %s", err, time.Since(began))
		}
		waiters.Wait()
		if n := l.waiting.Load(); n != 0 {
			t.Errorf("%d places are never given back", n)
		}
	})
}

func TestFreshnessBound(t *testing.T) {
	for f, want := range map[Freshness]time.Duration{
		{}:                                      0,
		{Serve: time.Hour}:                      0, // what trusts nothing serves nothing
		{MaxStaleness: -1, Serve: 5}:            0,
		{MaxStaleness: 5, Serve: -1}:            5,
		{MaxStaleness: 5}:                       5,
		{MaxStaleness: 5, Serve: 7}:             12,
		{MaxStaleness: 5, Serve: math.MaxInt64}: math.MaxInt64,
	} {
		if got := f.Bound(); got != want {
			t.Errorf("%+v: %d, want %d", f, got, want)
		}
	}
}

// TestServeBeyondTheLease: a request waits for the follower first. Once one
// has waited in vain the others do not, and from the bound on nobody passes.
func TestServeBeyondTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lease
		woken := 0
		wake := func() { woken++ }
		l.wake.Store(&wake)
		f := Freshness{MaxStaleness: time.Second, Serve: 10 * time.Second}
		l.Renew(time.Now())
		check := func(want error, wait time.Duration) {
			t.Helper()
			began := time.Now()
			if err := l.Await(context.Background(), began, f); err != want || time.Since(began) != wait {
				t.Errorf("Await = %v after %s; want %v after %s", err, time.Since(began), want, wait)
			}
		}
		time.Sleep(time.Second - 1)
		if check(nil, 0); woken != 0 {
			t.Error("within the lease the follower is woken")
		}
		time.Sleep(time.Second)
		check(nil, leaseWait)
		for range 3 {
			woken = 0
			if check(nil, 0); woken != 1 {
				t.Errorf("a request that does not wait wakes the follower %d times", woken)
			}
		}
		l.Renew(time.Now()) // a round succeeds, and then the store is gone again
		time.Sleep(2 * time.Second)
		check(nil, leaseWait)
		check(nil, 0)
		time.Sleep(11*time.Second - 2*time.Second - leaseWait)
		check(ErrStale, leaseWait)
	})
}

// TestServeHasAnEnd: either clock says so, or a purge, whether or not a
// request has waited in vain before.
func TestServeHasAnEnd(t *testing.T) {
	f := Freshness{MaxStaleness: time.Minute, Serve: time.Hour}
	for name, end := range map[string]func(*Lease){
		"the bound":                   func(*Lease) { time.Sleep(61 * time.Minute) },
		"the machine slept":           func(l *Lease) { l.wall.Add(-int64(61 * time.Minute)) },
		"the wall clock was set back": func(l *Lease) { l.monotonic.Add(-int64(61 * time.Minute)); l.wall.Add(int64(time.Hour)) },
		"a purge":                     (*Lease).Suspend,
		"the zero lease":              func(l *Lease) { l.set(0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for _, waited := range []bool{false, true} {
					var l Lease
					l.Renew(time.Now())
					end(&l)
					if waited {
						l.vain.Store(l.monotonic.Load())
					}
					if err := l.Await(context.Background(), time.Now(), f); err != ErrStale {
						t.Errorf("waited before = %t: %v", waited, err)
					}
				}
			})
		})
	}
}

func TestServeEndsWhileARequestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lease
		l.Renew(time.Now())
		time.Sleep(61*time.Minute - leaseWait)
		if err := l.Await(context.Background(), time.Now(), Freshness{time.Minute, time.Hour}); err != ErrStale {
			t.Errorf("Await = %v", err)
		}
	})
}

// TestServeDoesNotWaitInCrowds: who finds no place to wait is served, and does
// not keep others from waiting for the round that may come.
func TestServeDoesNotWaitInCrowds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Lease
		f := Freshness{MaxStaleness: time.Second, Serve: time.Hour}
		l.Renew(time.Now())
		time.Sleep(2 * time.Second)
		l.waiting.Store(maxLeaseWaiters)
		began := time.Now()
		if err := l.Await(context.Background(), began, f); err != nil || time.Since(began) != 0 {
			t.Errorf("one too many: %v after %s", err, time.Since(began))
		}
		l.waiting.Store(0)
		go func() { time.Sleep(50 * time.Millisecond); l.Renew(time.Now()) }()
		began = time.Now()
		if err := l.Await(context.Background(), began, f); err != nil || time.Since(began) != 50*time.Millisecond {
			t.Errorf("the next: %v after %s", err, time.Since(began))
		}
		time.Sleep(2 * time.Second)
		left, cancel := context.WithCancel(context.Background())
		cancel()
		if err := l.Await(left, time.Now(), f); err != ErrStale {
			t.Errorf("a caller that has left: %v", err)
		}
	})
}
