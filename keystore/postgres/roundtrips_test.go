//go:build unix

package postgres

import (
	"fmt"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// A node may be far from its database. What a call costs is how often it waits
// for an answer.
func TestRoundTrips(t *testing.T) {
	c, w := through(t, newDatabase(t))
	s := openAt(t, c)
	s.logKept = logKept
	named := testKey("key_a")
	named.Name = "name"
	if _, err := s.Transact(t.Context(), func(tx keystore.Tx) error { return tx.PutKey(&named) }); err != nil {
		t.Fatal(err)
	}
	before := headOf(t, s)
	change := func() error {
		_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
			r, err := tx.Key("key_a")
			if err != nil {
				return err
			}
			r.Blocked = !r.Blocked
			if err := tx.PutKey(&r); err != nil {
				return err
			}
			return tx.AppendAudit(&keystore.AuditEntry{Actor: "local"})
		})
		return err
	}
	for _, call := range []struct {
		name string
		want int64
		do   func() error
	}{
		{"Lookup", 1, func() error { _, _, err := s.Lookup(t.Context(), "key_a"); return err }},
		{"Changes", 1, func() error { _, err := s.Changes(t.Context(), before, 1000); return err }},
		{"Snapshot", 1, func() error { _, err := s.Snapshot(t.Context()); return err }},
		{"Beat", 1, func() error { return s.Beat(t.Context(), keystore.Node{ID: "n", Applied: before}) }},
		{"Roll", 1, func() error { _, err := s.Roll(t.Context()); return err }},
		{"AskBeats", 1, func() error { return s.AskBeats(t.Context()) }},
		{"List", 1, func() error { _, err := s.List(t.Context(), keystore.Query{Limit: 1}); return err }},
		{"a change", 3, change}, // lock the head; read the key; write all, and commit
		{"AddUsage", 2, func() error {
			return s.AddUsage(t.Context(), keystore.UsageBatch{
				Counts: []keystore.UsageCount{{Key: "key_a", Day: 20260301, Requests: 1}}, Last: []keystore.LastUse{{Key: "key_a", At: 1}}, Oldest: 20260101,
			})
		}},
		{"300 new keys", 5, func() error { // as queueLimit lets them wait
			_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
				for n := range 300 {
					r := testKey(fmt.Sprint("key_many", n))
					if err := tx.PutKey(&r); err != nil {
						return err
					}
					if err := tx.DeleteKey(r.ID); err != nil {
						return err
					}
				}
				return nil
			})
			return err
		}},
	} {
		least := int64(1 << 60)
		for range 6 { // each of the connections prepares its statements once
			from := w.turns.Load()
			if err := call.do(); err != nil {
				t.Fatalf("%s: %v", call.name, err)
			}
			least = min(least, w.turns.Load()-from)
		}
		if least != call.want {
			t.Errorf("%s waited for %d answers, want %d", call.name, least, call.want)
		}
	}
}
