package keystore

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// readable is a store of which a test says whether it can be read.
func readable(t *testing.T, lease *Lease) (r *Readiness, store *faultStore, fail func(error)) {
	t.Helper()
	store = newFaultStore()
	return NewReadiness(store, lease), store, func(err error) {
		store.hook(func(h *hooks) { h.beforeLookup = func(LookupID) error { return err } })
	}
}

func TestReadiness(t *testing.T) {
	deny, serve := Freshness{MaxStaleness: 10 * time.Second}, Freshness{MaxStaleness: 10 * time.Second, Serve: time.Minute}
	broken := errors.New("disk")
	for name, c := range map[string]struct {
		age   time.Duration // of what is known; negative: nothing is
		store error
		f     Freshness
		stale bool
		want  error
	}{
		"fresh":                                 {0, nil, deny, false, nil},
		"over":                                  {11 * time.Second, nil, deny, false, ErrStale},
		"fresh, without the store":              {0, broken, deny, false, ErrUnavailable},
		"over, without the store":               {11 * time.Second, broken, deny, false, ErrStale},
		"no lease":                              {-1, nil, serve, false, ErrStale},
		"no freshness is asked for":             {0, nil, Freshness{}, false, ErrStale},
		"serving, fresh":                        {0, nil, serve, false, nil},
		"serving, fresh, without the store":     {0, broken, serve, true, nil},
		"serving on what is too old":            {11 * time.Second, broken, serve, true, nil},
		"serving no more":                       {71 * time.Second, broken, serve, false, ErrStale},
		"serving no more, though it could read": {71 * time.Second, nil, serve, false, ErrStale},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lease := new(Lease)
				if c.age >= 0 {
					lease.Renew(time.Now().Add(-c.age))
				}
				r, _, fail := readable(t, lease)
				fail(c.store)
				stale, err := r.Check(t.Context(), time.Now(), c.f)
				if stale != c.stale || !errors.Is(err, c.want) {
					t.Errorf("stale %t, %v; want %t, %v", stale, err, c.stale, c.want)
				}
			})
		})
	}
}

// An only writer's lease has no end, and its store is asked all the same.
func TestReadinessOfAnOnlyWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lease := new(Lease)
		lease.RenewEndless()
		r, _, fail := readable(t, lease)
		f := Freshness{MaxStaleness: time.Second}
		if _, err := r.Check(t.Context(), time.Now(), f); err != nil {
			t.Error(err)
		}
		fail(errors.New("disk"))
		time.Sleep(readInterval)
		if _, err := r.Check(t.Context(), time.Now(), f); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		fail(nil)
		lease.Suspend()
		time.Sleep(readInterval)
		if _, err := r.Check(t.Context(), time.Now(), f); !errors.Is(err, ErrStale) {
			t.Error(err)
		}
	})
}

// However many ask, the store is read once a second.
func TestReadinessIsSharedByAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lease := new(Lease)
		lease.RenewEndless()
		r, store, _ := readable(t, lease)
		f := Freshness{MaxStaleness: time.Second}
		const seconds, callers, askings = 5, 20, 50
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				for range seconds * askings {
					if _, err := r.Check(t.Context(), time.Now(), f); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Second / askings)
				}
			})
		}
		all.Wait()
		if n := store.asked(); n < seconds-1 || n > seconds {
			t.Errorf("the store was read %d times in %d s", n, seconds)
		}
	})
}

// A store that hangs, whatever it is told, costs one goroutine and nobody more
// than a second.
func TestReadinessOfAStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lease := new(Lease)
		lease.RenewEndless()
		r, store, _ := readable(t, lease)
		hang := make(chan struct{})
		store.hook(func(h *hooks) { h.beforeLookup = func(LookupID) error { <-hang; return nil } })
		f := Freshness{MaxStaleness: time.Second}
		before := runtime.NumGoroutine()
		for i := range 10 {
			began := time.Now()
			if _, err := r.Check(t.Context(), began, f); !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
			if waited := time.Since(began); i == 0 && waited != readTimeout || i > 0 && waited != 0 {
				t.Errorf("caller %d waited for %s", i, waited)
			}
			time.Sleep(readInterval)
		}
		if n := runtime.NumGoroutine(); n > before+1 || store.asked() > 1 {
			t.Errorf("%d goroutines more, %d reads", n-before, store.asked())
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.Check(ctx, time.Now(), f); !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
		close(hang)
		time.Sleep(readInterval) // what it says so late counts for as long as any answer
		if _, err := r.Check(t.Context(), time.Now(), f); err != nil {
			t.Errorf("the store answers again: %v", err)
		}
	})
}
