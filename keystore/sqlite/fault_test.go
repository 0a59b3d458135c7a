//go:build unix

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func testKey(id string) keystore.Record {
	return keystore.Record{
		ID: keystore.KeyID(id), Organization: keystore.DefaultOrganization, Type: keystore.TypeStandard,
		Created: 1, Current: keystore.Pair{Generation: 1, AccessKey: keystore.AccessKey("A" + id), Digest: keystore.Digest{1}},
	}
}

func putKey(t testing.TB, s *Store, id string) keystore.Record {
	t.Helper()
	r := testKey(id)
	if _, err := s.Transact(t.Context(), func(tx keystore.Tx) error { return tx.PutKey(&r) }); err != nil {
		t.Fatal(err)
	}
	return r
}

// fill writes until the store refuses, and returns what was acknowledged.
func fill(t *testing.T, s *Store) (acknowledged []string, refusal error) {
	t.Helper()
	for n := range 100_000 {
		id := fmt.Sprintf("key_fill%d", n)
		r := testKey(id)
		r.Metadata = `{"x":"` + strings.Repeat("x", 3000) + `"}`
		if _, err := s.Transact(t.Context(), func(tx keystore.Tx) error { return tx.PutKey(&r) }); err != nil {
			return acknowledged, err
		}
		acknowledged = append(acknowledged, id)
	}
	t.Fatal("the disk never got full")
	return nil, nil
}

// surviveFull holds a store on a full disk to what it owes: no acknowledgement,
// a clear error, reading goes on, and all is well once there is room.
func surviveFull(t *testing.T, path string, s *Store, makeRoom func()) {
	t.Helper()
	acknowledged, refusal := fill(t, s)
	if !errors.Is(refusal, keystore.ErrUnavailable) || errors.Is(refusal, keystore.ErrCorrupt) || !strings.Contains(refusal.Error(), path) {
		t.Fatalf("a full disk: %v", refusal)
	}
	t.Logf("%d keys, then: %v", len(acknowledged), refusal)
	if len(acknowledged) == 0 {
		t.Fatal("nothing was written before the disk was full")
	}
	refused := keystore.LookupID(fmt.Sprintf("key_fill%d", len(acknowledged)))
	check := func(when string, s *Store) {
		t.Helper()
		if r, _, err := s.Lookup(t.Context(), refused); err != nil || r.ID != "" {
			t.Errorf("%s: the refused key is %q %v", when, r.ID, err)
		}
		for _, id := range acknowledged {
			if r, _, err := s.Lookup(t.Context(), keystore.LookupID(id)); err != nil || string(r.ID) != id {
				t.Fatalf("%s: %s is %q %v", when, id, r.ID, err)
			}
		}
	}
	check("while full", s)
	makeRoom()
	head, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := putKey(t, s, "key_after"); r.Revision != head.Head.Revision+1 {
		t.Errorf("revision %d after head %d", r.Revision, head.Head.Revision)
	}
	check("with room again", s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	check("after opening again", openAt(t, path))
}

func TestFullDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	s := openAt(t, path)
	pages := func(n int) {
		t.Helper()
		if _, err := s.writes.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
			t.Fatal(err)
		}
	}
	pages(100)
	surviveFull(t, path, s, func() { pages(1 << 30) })
}

func TestFullDisk(t *testing.T) {
	dir := mountSmall(t)
	path := filepath.Join(dir, "warder.db")
	s := openAt(t, path)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	surviveFull(t, path, s, func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	})
}

// A first start on a full disk leaves nothing that a second one stumbles over.
func TestFullDiskAtFirstStart(t *testing.T) {
	dir := mountSmall(t)
	ballast := filepath.Join(dir, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 64<<20), 0o600) // as much as goes
	if info, err := os.Stat(ballast); err != nil || os.Truncate(ballast, info.Size()-16<<10) != nil {
		t.Fatal("making the disk almost full")
	}
	path := filepath.Join(dir, "warder.db")
	if s, err := Open(t.Context(), path, testGenesis); err == nil {
		s.Close()
		t.Fatal("opened on a full disk")
	} else {
		t.Log(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	openAt(t, path)
}

// TestFailedStatementEndsTransaction: SQLite rolls back by itself on some
// failures; what an fn that ignores them puts after that must not commit.
func TestFailedStatementEndsTransaction(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	s := openAt(t, path)
	putKey(t, s, "key_first")
	thief := testKey("key_thief")
	thief.Current.AccessKey = "Akey_first"
	var ignored error
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		ignored = tx.PutKey(&thief)
		late := testKey("key_late")
		if err := tx.PutKey(&late); err == nil {
			t.Error("the transaction went on")
		}
		return nil
	})
	if err == nil || ignored == nil {
		t.Fatalf("ignored %v, Transact %v", ignored, err)
	}
	for _, id := range []keystore.LookupID{"key_thief", "key_late"} {
		if r, _, err := s.Lookup(t.Context(), id); err != nil || r.ID != "" {
			t.Errorf("%s is %+v %v", id, r, err)
		}
	}
}

// Pages that rot while the store is open are damage, and an outage.
func TestDamageWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	s := openAt(t, path)
	for n := range 500 {
		putKey(t, s, fmt.Sprintf("key_%d", n))
	}
	s.Close()
	s = openAt(t, path)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 8192; i < len(content); i++ { // leave the schema
		content[i] = 0xff
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.reads.Exec("PRAGMA shrink_memory"); err != nil { // forget the good pages
		t.Fatal(err)
	}
	for n := range 500 {
		_, _, err := s.Lookup(t.Context(), keystore.LookupID(fmt.Sprintf("key_%d", n)))
		if err == nil {
			continue
		}
		if !errors.Is(err, keystore.ErrCorrupt) || !errors.Is(err, keystore.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		return
	}
	t.Error("damage was never noticed")
}

// A limit that cannot be read is damage, not "no limit".
func TestUnreadableLimit(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	r := putKey(t, s, "key_a")
	if _, err := s.writes.Exec("UPDATE keys SET rate_limit = '5/fortnight'"); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Lookup(t.Context(), keystore.LookupID(r.ID))
	if !errors.Is(err, keystore.ErrCorrupt) || !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

// Long reads keep neither a look-up waiting nor the feed, and who waits can
// give up.
func TestPlaces(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	for range cap(s.scans) {
		s.scans <- struct{}{}
	}
	patient, end := context.WithTimeout(t.Context(), 5*time.Second)
	defer end()
	if _, _, err := s.Lookup(patient, "key_a"); err != nil {
		t.Errorf("a look-up beside long reads: %v", err)
	}
	if snapshot, err := s.Snapshot(patient); err != nil {
		t.Errorf("a snapshot beside long reads: %v", err)
	} else if _, err := s.Changes(patient, snapshot.Head, 1); err != nil {
		t.Errorf("the feed beside long reads: %v", err)
	}
	for range cap(s.lookups) {
		s.lookups <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, _, lookupErr := s.Lookup(ctx, "key_a")
	_, listErr := s.List(ctx, keystore.Query{Limit: 1})
	s.feed <- struct{}{}
	_, feedErr := s.Snapshot(ctx)
	s.feed.leave()
	for what, err := range map[string]error{"a look-up": lookupErr, "a list": listErr, "the feed": feedErr} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s waiting for a place: %v", what, err)
		}
	}
	for range cap(s.scans) {
		s.scans.leave()
	}
	for range cap(s.lookups) {
		s.lookups.leave()
	}
}

// A list that is given up is interrupted, and its connection does no harm after.
func TestInterruptedList(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	_, err := s.writes.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
		INSERT INTO keys SELECT i, 'key_' || i, 'default', '', 1, 1, i, x'', 0, '', x'', 0, 0, 0, 0, 0, '', '', 1, '', '', '' FROM n`)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond) // of some hundred that it would take
		_, err := s.List(ctx, keystore.Query{State: keystore.StateBlocked, Now: time.Now(), Limit: 1})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, keystore.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
		if _, err := s.List(t.Context(), keystore.Query{Limit: 1}); err != nil {
			t.Fatalf("the next list: %v", err)
		}
	}
}
