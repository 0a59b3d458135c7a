//go:build unix

package postgres

import (
	"errors"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// change makes n changes, each in a transaction of its own.
func change(t *testing.T, s *Store, n int) {
	t.Helper()
	for range n {
		_, err := s.Transact(t.Context(), func(tx keystore.Tx) error { return tx.PutDocument(&keystore.Document{Kind: "demo", Name: "d"}) })
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The log keeps what a node that may still decide has yet to apply, though not
// without end.
func TestPruningHeedsNodes(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	operator := session(t, c)
	holds := func(what string, at keystore.Position, want bool) {
		t.Helper()
		_, err := s.Changes(t.Context(), at, 1)
		if held := err == nil; held != want || err != nil && !errors.Is(err, keystore.ErrPositionLost) {
			t.Errorf("%s: %v", what, err)
		}
	}
	beat := func(n keystore.Node) {
		t.Helper()
		if err := s.Beat(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	first := headOf(t, s)
	beat(keystore.Node{ID: "behind", Applied: first, Bound: time.Hour})
	beat(keystore.Node{ID: "ahead", Applied: first, Bound: time.Hour})
	change(t, s, 3*keptInTests)
	holds("a node needs it", first, true)
	beat(keystore.Node{ID: "ahead", Applied: headOf(t, s), Bound: time.Hour})
	change(t, s, keptInTests)
	holds("one of two needs it", first, true)

	// It falls silent: for its bound, and a tenth more, it may still decide.
	execute(t, operator, "UPDATE nodes SET heartbeat = heartbeat - 3600000000 - 300000000 WHERE id = 'behind'")
	change(t, s, keptInTests)
	holds("silent for little more than its bound", first, true)
	execute(t, operator, "UPDATE nodes SET heartbeat = heartbeat - 60000000 WHERE id = 'behind'")
	change(t, s, keptInTests)
	holds("silent for long", first, false)

	stuck := headOf(t, s)
	beat(keystore.Node{ID: "stuck", Applied: stuck, Bound: time.Hour})
	change(t, s, (logLimit-1)*keptInTests)
	holds("stuck, within the limit", stuck, true)
	change(t, s, 2*keptInTests)
	holds("stuck, beyond the limit", stuck, false)
	if n := ask[int](t, operator, "SELECT count(*) FROM log"); n > (logLimit+1)*keptInTests {
		t.Errorf("the log has %d rows", n)
	}
}

// Pruning is not done at every change.
func TestPruningIsRare(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	operator := session(t, c)
	change(t, s, 3*keptInTests)
	prunings := 0
	for last := ask[int64](t, operator, "SELECT prune_at FROM head"); headOf(t, s).Revision < 5*keptInTests; {
		change(t, s, 1)
		if at := ask[int64](t, operator, "SELECT prune_at FROM head"); at != last {
			last, prunings = at, prunings+1
		}
	}
	if prunings < 5 || prunings > 25 {
		t.Errorf("%d prunings in %d changes", prunings, 2*keptInTests)
	}
}

// Who has been silent for a day beyond its bound is shown no more, and a node
// that was halted for so long is registered anew.
func TestNodesAreForgotten(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	operator := session(t, c)
	if err := s.Beat(t.Context(), keystore.Node{ID: "bound", Bound: 30 * 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []keystore.NodeID{"a", "b", "c"} {
		if err := s.Beat(t.Context(), keystore.Node{ID: id, Bound: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	const day, hour = 24 * 3600e6, 3600e6
	execute(t, operator, "UPDATE nodes SET heartbeat = heartbeat - $1 WHERE id <> 'c'", int64(day+hour+1))
	execute(t, operator, "UPDATE nodes SET heartbeat = heartbeat - $1 WHERE id = 'bound'", int64(31*day)) // a tenth of it is three days
	execute(t, operator, "UPDATE nodes SET heartbeat = heartbeat - $1 WHERE id = 'c'", int64(day+hour-60e6))
	if err := s.Beat(t.Context(), keystore.Node{ID: "b", Bound: time.Hour}); err != nil {
		t.Fatal(err)
	}
	roll, err := s.Roll(t.Context())
	if err != nil || len(roll.Nodes) != 3 || roll.Nodes[0].ID != "bound" || roll.Nodes[1].ID != "b" || roll.Nodes[2].ID != "c" {
		t.Fatalf("%+v %v", roll, err)
	}
	if !roll.Nodes[0].Pending(1, roll.Now) {
		t.Error("who may still decide is not waited for")
	}
	if got := roll.Nodes[1].Heartbeat; roll.Now-got > 60e6 {
		t.Errorf("its heartbeat is %d µs old", roll.Now-got)
	}
}

// The audit log refuses to be changed, whoever asks.
func TestAuditOnlyGrows(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	operator := session(t, c)
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		return tx.AppendAudit(&keystore.AuditEntry{Actor: "local", Object: "no text: \x00\xff"})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, query := range []string{
		"UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "DELETE FROM audit WHERE number = 1", "TRUNCATE audit",
		"UPDATE audit SET actor = 'nobody' WHERE number = 99",
	} {
		if _, err := operator.Exec(t.Context(), query); err == nil {
			t.Errorf("%s was done", query)
		}
	}
	page, err := s.Audit(t.Context(), keystore.AuditQuery{Object: "no text: \x00\xff", Limit: 1})
	if err != nil || len(page.Entries) != 1 || page.Entries[0].Actor != "local" {
		t.Errorf("%+v %v", page, err)
	}
}
