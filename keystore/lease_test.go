package keystore

import (
	"context"
	"errors"
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
