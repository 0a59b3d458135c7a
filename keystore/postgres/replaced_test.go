//go:build unix

package postgres

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// setBack gives the database the state that one has which took over before it
// had heard of the last changes. What they changed otherwise stays.
func setBack(t *testing.T, c Config, to keystore.Position) {
	t.Helper()
	operator := session(t, c)
	execute(t, operator, "DELETE FROM log WHERE revision > $1", int64(to.Revision))
	execute(t, operator, "UPDATE head SET revision = $1, mark = $2", int64(to.Revision), int64(to.Mark))
}

// What is awaited is in force here: a revision of a log that has taken the
// place of the one that was read says nothing of that, so nothing is changed
// before the follower has found out.
func TestChangeAfterFailover(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	r := putKey(t, s, "key_a")
	common := headOf(t, s)
	change(t, s, 3) // which the other one will not have

	lease := new(keystore.Lease)
	view := keystore.NewView(s, lease, 16)
	self := keystore.NewPresence(s, keystore.Node{ID: keystore.NewNodeID()})
	follower := keystore.NewFollower(keystore.FollowerConfig{Store: s, Lease: lease, Presence: self, Appliers: []keystore.Applier{view}})
	if err := follower.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := view.Record(t.Context(), keystore.LookupID(r.ID), time.Now()); err != nil {
		t.Fatal(err)
	}
	block := func(tx keystore.Tx) error { r.Blocked = true; return tx.PutKey(&r) }

	setBack(t, c, common)
	if revision, err := s.Transact(t.Context(), block); err == nil {
		if err := follower.Await(t.Context(), revision); err != nil {
			t.Fatal(err)
		}
		known, err := view.Record(t.Context(), keystore.LookupID(r.ID), time.Now())
		t.Errorf("awaited as revision %d; known is %+v %v", revision, known, err)
	} else {
		outage(t, "Transact", err)
	}
	if got, at, err := s.Lookup(t.Context(), keystore.LookupID(r.ID)); err != nil || got.Blocked || at != common.Revision {
		t.Errorf("%+v as of %d, %v", got, at, err)
	}

	// Once it is known, all goes on.
	if _, err := s.Changes(t.Context(), follower.Applied(), 1); !errors.Is(err, keystore.ErrPositionLost) {
		t.Errorf("the follower hears %v", err)
	}
	headOf(t, s)
	if _, err := s.Transact(t.Context(), block); err != nil {
		t.Error(err)
	}
}

// Nor is it said of another history that nothing has to be changed.
func TestNoChangeAfterFailover(t *testing.T) {
	c := newDatabase(t)
	s, other := openAt(t, c), openAt(t, c)
	common := headOf(t, s)
	change(t, s, 1)
	headOf(t, s)
	setBack(t, c, common)
	change(t, other, 1)
	_, err := s.Transact(t.Context(), func(keystore.Tx) error { return nil })
	outage(t, "as many changes, and not the same", err)
}

// Who finds the log replaced keeps no connection from before: one of them may
// still lead to the server that was replaced.
func TestReplacedLogEndsConnections(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	operator := session(t, c)
	var group sync.WaitGroup // so that there are several
	for range 4 {
		group.Go(func() { _, _, _ = s.Lookup(t.Context(), "key_a") })
	}
	group.Wait()
	const mine = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'warder'"
	before := ask[[]int32](t, operator, "SELECT array_agg(pid) "+mine)
	if _, err := s.Changes(t.Context(), keystore.Position{Revision: 1, Mark: 1}, 1); !errors.Is(err, keystore.ErrPositionLost) {
		t.Fatal(err)
	}
	left := -1
	for deadline := time.Now().Add(10 * time.Second); left != 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		left = ask[int](t, operator, "SELECT count(*) "+mine+" AND pid = ANY ($1)", before)
	}
	if left != 0 {
		t.Errorf("%d of %d connections are left", left, len(before))
	}
}
