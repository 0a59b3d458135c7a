package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// applied records what a follower does.
type applied struct {
	order  []string
	fail   error // of the next Apply
	follow func() Position
}

func (a *applied) Reset(s Snapshot) error {
	a.order = append(a.order, fmt.Sprintf("reset %d", s.Head.Revision))
	return nil
}

func (a *applied) Apply(c Change, head Revision) error {
	if a.follow != nil && a.follow().Revision >= c.Revision {
		a.order = append(a.order, "published too early")
	}
	if err := a.fail; err != nil {
		a.fail = nil
		return err
	}
	a.order = append(a.order, fmt.Sprintf("%d of %d", c.Revision, head))
	return nil
}

func TestFollowerAppliesInOrder(t *testing.T) {
	n := newNode(t, 16, 0)
	got := &applied{}
	n.follower.config.Appliers = append(n.follower.config.Appliers, got)
	got.follow = n.follower.Applied
	for range 3 {
		rec, _ := n.newKey("")
		n.store.put(t, &rec)
	}
	n.catchUp(t)
	if want := []string{"2 of 4", "3 of 4", "4 of 4"}; !slices.Equal(got.order, want) {
		t.Errorf("applied %q, want %q", got.order, want)
	}
	if n.follower.Applied() != n.store.head() {
		t.Errorf("position %+v, head %+v", n.follower.Applied(), n.store.head())
	}
}

// TestFollowerReadsTruncatedBatches: a round goes on to the head, and only
// then renews the lease.
func TestFollowerReadsTruncatedBatches(t *testing.T) {
	n := newNode(t, 16, time.Second)
	rec, _ := n.storedKey(t, "")
	n.see(t, LookupID(rec.ID))
	n.lease.Suspend()
	rounds := 0
	n.store.hook(func(h *hooks) {
		h.batch = func(b Batch) Batch {
			if rounds++; rounds > 1 && n.lease.Valid(time.Now(), time.Hour) {
				t.Error("the lease was renewed short of the head")
			}
			b.Changes = b.Changes[:min(1, len(b.Changes))]
			return b
		}
	})
	for i := range 5 {
		rec.Name = fmt.Sprint(i)
		n.store.put(t, &rec)
	}
	n.catchUp(t)
	if rounds != 5 || n.follower.Applied() != n.store.head() || n.warm(t, LookupID(rec.ID)).Name != "4" {
		t.Errorf("%d reads to %+v of %+v", rounds, n.follower.Applied(), n.store.head())
	}
	if !n.lease.Valid(time.Now(), time.Second) {
		t.Error("a round that reached the head did not renew the lease")
	}
}

// TestFollowerDistrustsASilentGap: nothing to read and yet not at the head is
// a missing row.
func TestFollowerDistrustsASilentGap(t *testing.T) {
	n := newNode(t, 16, time.Second)
	n.lease.Suspend()
	n.store.hook(func(h *hooks) { h.batch = func(b Batch) Batch { b.Changes = nil; return b } })
	rec, _ := n.newKey("")
	n.store.put(t, &rec)
	if err := n.follower.round(context.Background(), reasonDue); err == nil || n.lease.Valid(time.Now(), time.Hour) {
		t.Errorf("a round that lacks a row: %v", err)
	}
}

// TestLeaseIsTimedFromBeforeTheRound: a slow round gives a shorter lease.
func TestLeaseIsTimedFromBeforeTheRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, time.Second)
		n.store.hook(func(h *hooks) {
			h.changes = func(Position) error { time.Sleep(3 * time.Second); return nil }
		})
		began := time.Now()
		n.catchUp(t)
		if !n.lease.Valid(began.Add(5*time.Second-1), 5*time.Second) || n.lease.Valid(began.Add(5*time.Second), 5*time.Second) {
			t.Error("the lease does not run from before the first query")
		}
	})
}

// TestFailedRoundRenewsNothing: of many writers, each lives on the lease it has.
func TestFailedRoundRenewsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, time.Second)
		rec, secret := n.storedKey(t, "")
		n.store.hook(func(h *hooks) { h.changes = func(Position) error { return errFault } })
		n.run(t)
		time.Sleep(900 * time.Millisecond)
		if _, err := n.authenticate(&rec, secret, time.Now()); err != nil {
			t.Errorf("within the lease: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := n.authenticate(&rec, secret, time.Now()); !errors.Is(err, ErrStale) {
			t.Errorf("after the lease: %v", err)
		}
		if err := <-n.failures; !errors.Is(err, errFault) {
			t.Errorf("reported %v", err)
		}
		n.store.hook(func(h *hooks) { h.changes = nil })
		if _, err := n.authenticate(&rec, secret, time.Now()); err != nil {
			t.Errorf("after the outage, a request waits for a round: %v", err)
		}
	})
}

// TestPositionLost: after a restore nothing old is served, and nothing is
// trusted before all was read anew.
func TestPositionLost(t *testing.T) {
	for name, restore := range map[string]func(*node){
		"another mark":  func(n *node) { n.store.restore(n.store.head().Revision) },
		"a head behind": func(n *node) { n.store.restore(n.store.head().Revision - 1) },
		"a longer branch": func(n *node) {
			n.store.restore(2)
			n.store.append(KindOrganization, "default", nil)
			n.store.append(KindOrganization, "default", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, 16, 0)
			kept, keptSecret := n.storedKey(t, "kept")
			lost, lostSecret := n.storedKey(t, "lost")
			for _, r := range []*Record{&kept, &lost} {
				n.see(t, LookupID(r.Current.AccessKey))
			}
			seen := &applied{}
			n.follower.config.Appliers = append(n.follower.config.Appliers, seen)
			restore(n)
			distrusted := false
			n.store.hook(func(h *hooks) {
				h.snapshot = func() error { distrusted = !n.lease.Valid(time.Now(), time.Hour); return nil }
			})
			n.catchUp(t)
			if !distrusted || len(seen.order) != 1 {
				t.Errorf("trusted while reloading = %t; applied %q", !distrusted, seen.order)
			}
			if n.view.Len() != 0 || n.follower.Applied() != n.store.head() {
				t.Errorf("%d keys survived the purge; at %+v of %+v", n.view.Len(), n.follower.Applied(), n.store.head())
			}
			_, err := n.authenticate(&lost, lostSecret, time.Now())
			if stillThere := n.store.keys[lost.ID].ID != ""; stillThere != (err == nil) {
				t.Errorf("the key that the restore took: %v", err)
			}
			if _, err := n.authenticate(&kept, keptSecret, time.Now()); err != nil {
				t.Errorf("the key that it kept: %v", err)
			}
		})
	}
}

// TestReloadThatFailsTrustsNothing: until one succeeds.
func TestReloadThatFailsTrustsNothing(t *testing.T) {
	for _, interval := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			n := newNode(t, 16, interval)
			rec, secret := n.storedKey(t, "")
			n.store.restore(n.store.head().Revision)
			n.store.hook(func(h *hooks) { h.snapshot = func() error { return errFault } })
			if err := n.follower.round(context.Background(), reasonDue); !errors.Is(err, errFault) {
				t.Errorf("round = %v", err)
			}
			if _, err := n.authenticate(&rec, secret, time.Now()); !errors.Is(err, ErrStale) {
				t.Errorf("before the reload: %v", err)
			}
			n.store.hook(func(h *hooks) { h.snapshot = nil })
			n.catchUp(t)
			if _, err := n.authenticate(&rec, secret, time.Now()); err != nil {
				t.Errorf("after the reload: %v", err)
			}
		})
	}
}

// TestPositionLostForEver: a store that loses each position is an error, not
// an endless loop.
func TestPositionLostForEver(t *testing.T) {
	n := newNode(t, 16, 0)
	reloads := 0
	n.store.hook(func(h *hooks) {
		h.changes = func(Position) error { return ErrPositionLost }
		h.snapshot = func() error {
			if reloads++; reloads > 10 {
				return errFault
			}
			return nil
		}
	})
	if err := n.follower.round(context.Background(), reasonDue); err == nil || reloads > 2 {
		t.Errorf("round = %v after %d reloads", err, reloads)
	}
	if n.lease.Valid(time.Now(), time.Hour) {
		t.Error("it is trusted")
	}
}

// TestReadBegunBeforeAPurge does not enter after it, though its revision, of
// the history that was lost, is the higher one.
func TestReadBegunBeforeAPurge(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.newKey("")
	for range 5 {
		n.storedKey(t, "")
	}
	n.store.put(t, &rec)
	n.catchUp(t)
	id := LookupID(rec.ID)
	answers := n.holdLookups()
	reader := n.begin(context.Background(), id)
	late := <-answers
	n.letLookupsPass()
	n.store.restore(2) // rec is gone, and the head is far behind
	n.catchUp(t)
	if late.at <= n.store.head().Revision {
		t.Fatal("the late answer is not from a higher revision")
	}
	late.release()
	if got := <-reader; got.err != nil || got.rec.ID != "" {
		t.Errorf("the reader sees %+v, %v", got.rec, got.err)
	}
	if got := n.see(t, id); got.ID != "" {
		t.Error("a key of a lost history is in the view")
	}
}

// TestOnlyWriterThatCannotReadItsLog stops trusting until it can.
func TestOnlyWriterThatCannotReadItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		n.auth.Freshness = Freshness{} // an only writer has no staleness
		n.run(t)
		issued, err := n.service.CreateKey(context.Background(), LocalCaller(), NewKey{}, nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		rec := issued.Record
		check := func(want error) {
			t.Helper()
			if _, err := n.authenticate(&rec, issued.SecretKey, time.Now()); !errors.Is(err, want) {
				t.Errorf("authenticating: %v, want %v", err, want)
			}
		}
		check(nil)
		n.store.hook(func(h *hooks) { h.changes = func(Position) error { return errFault } })
		_, err = n.service.SetBlocked(context.Background(), LocalCaller(), rec.ID, true, 0)
		if !errors.Is(err, ErrUnavailable) {
			t.Errorf("blocking: %v", err)
		}
		check(ErrStale)
		time.Sleep(time.Hour)
		check(ErrStale)
		n.store.hook(func(h *hooks) { h.changes = nil })
		time.Sleep(time.Second)
		if !n.lease.Valid(time.Now(), 0) {
			t.Error("without a request to wake it, the follower does not try again")
		}
		check(ErrBlocked)
	})
}

// TestApplierThatFails: the change is applied again, and nothing after it
// before.
func TestApplierThatFails(t *testing.T) {
	n := newNode(t, 16, 0)
	got := &applied{fail: errFault}
	n.follower.config.Appliers = append(n.follower.config.Appliers, got)
	for range 2 {
		rec, _ := n.newKey("")
		n.store.put(t, &rec)
	}
	if err := n.follower.round(context.Background(), reasonDue); !errors.Is(err, errFault) || n.lease.Valid(time.Now(), time.Hour) {
		t.Errorf("round = %v", err)
	}
	n.catchUp(t)
	if want := []string{"2 of 3", "3 of 3"}; !slices.Equal(got.order, want) {
		t.Errorf("applied %q", got.order)
	}
	if !n.lease.Valid(time.Now(), 0) {
		t.Error("it is not trusted again")
	}
}

// TestFollowerRun: it looks by itself, and at once when it is woken.
func TestFollowerRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, time.Second)
		rec, _ := n.storedKey(t, "")
		n.see(t, LookupID(rec.ID))
		n.run(t)
		rec.SetBlocked(true)
		n.store.put(t, &rec)
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if n.warm(t, LookupID(rec.ID)).Blocked {
			t.Error("it looked before its interval was over")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if !n.warm(t, LookupID(rec.ID)).Blocked {
			t.Error("it did not look by itself")
		}
		rec.SetBlocked(false)
		n.store.put(t, &rec)
		n.follower.Wake()
		synctest.Wait()
		if n.warm(t, LookupID(rec.ID)).Blocked {
			t.Error("it was woken and did not look")
		}
	})
}

func TestFollowerAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, time.Hour)
		n.run(t)
		rec, _ := n.newKey("")
		r := n.store.put(t, &rec)
		if err := n.follower.Await(context.Background(), r); err != nil || n.follower.Applied().Revision != r {
			t.Errorf("Await = %v at %+v", err, n.follower.Applied())
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := n.follower.Await(ctx, r+1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a revision that never comes: %v", err)
		}
	})
}

// lostAnswers commits and then fails, as a connection does that breaks between.
type lostAnswers struct{ *faultStore }

func (s lostAnswers) Transact(ctx context.Context, fn func(Tx) error) (Revision, error) {
	if _, err := s.faultStore.Transact(ctx, fn); err != nil {
		return 0, err
	}
	return 0, errFault
}

// TestLostAnswerTakesEffect: what was committed is in force, though the caller
// was told that it failed, and though nothing else asks for a round.
func TestLostAnswerTakesEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, 16, 0)
		rec, secret := n.provedKey(t)
		n.run(t)
		n.service.Store = lostAnswers{n.store}
		if _, err := n.service.SetBlocked(context.Background(), LocalCaller(), rec.ID, true, 0); !errors.Is(err, errFault) {
			t.Fatalf("blocking: %v", err)
		}
		synctest.Wait()
		if _, err := n.authenticate(&rec, secret, time.Now()); err != ErrBlocked {
			t.Errorf("after the block: %v, want %v", err, ErrBlocked)
		}
	})
}

func TestStartFails(t *testing.T) {
	store, lease := newFaultStore(), new(Lease)
	store.hook(func(h *hooks) { h.snapshot = func() error { return errFault } })
	f := NewFollower(FollowerConfig{Store: store, Lease: lease, Appliers: []Applier{NewView(store, lease, 16)}})
	if err := f.Start(context.Background()); !errors.Is(err, errFault) || lease.Valid(time.Now(), time.Hour) {
		t.Errorf("Start = %v", err)
	}
}

func TestDirectory(t *testing.T) {
	n := newNode(t, 16, 0)
	if (&Directory{}).Organization("default") != nil {
		t.Error("the zero Directory knows one")
	}
	put := func(o Organization) {
		t.Helper()
		if _, err := n.store.Transact(context.Background(), func(tx Tx) error { return tx.PutOrganization(&o) }); err != nil {
			t.Fatal(err)
		}
		n.catchUp(t)
	}
	put(Organization{Slug: "acme", DefaultExpiry: 3})
	old := n.directory.Organization("acme")
	put(Organization{Slug: "acme", Number: old.Number, DefaultExpiry: 4})
	if got := n.directory.Organization("acme"); old.DefaultExpiry != 3 || got.DefaultExpiry != 4 {
		t.Errorf("before %+v, after %+v", old, got)
	}
	if n.directory.Organization("default") == nil || n.directory.Organization("other") != nil {
		t.Error("it knows what it should not, or not what it should")
	}
	must(t, n.directory.Apply(Change{Kind: KindOrganization, Name: "acme"}, 9))
	if n.directory.Organization("acme") != nil {
		t.Error("it knows an organization that is gone")
	}
}
