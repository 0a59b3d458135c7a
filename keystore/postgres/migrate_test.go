//go:build unix

package postgres

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// later are the migrations of programs to come: one that those of today may
// work beside, and one that they may not.
var (
	beside = append(migrations[:len(migrations):len(migrations)],
		migration{"ALTER TABLE keys ADD COLUMN colour text NOT NULL DEFAULT ''; CREATE TABLE later (n bigint); INSERT INTO later VALUES (1)", 1})
	without = append(beside[:len(beside):len(beside)],
		migration{"ALTER TABLE keys RENAME COLUMN scopes TO abilities", len(beside) + 1})
)

// applied migrates as a later program does.
func applied(t *testing.T, c Config, to []migration) error {
	t.Helper()
	c, err := c.completed()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), openAt(t, c).pool.Config().ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	return migrate(t.Context(), conn, c, to, func() (keystore.SealedSecret, error) {
		t.Error("a new store was begun")
		return testGenesis()
	})
}

// A later program migrates while this one is at work. If it says so, both go
// on, in both directions, and this one may even start again.
func TestUsableNewerSchema(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	first := headOf(t, s)
	putKey(t, s, "key_before")
	for range 2 { // the second time does nothing
		if err := applied(t, c, beside); err != nil {
			t.Fatal(err)
		}
	}
	operator := session(t, c)
	if v := ask[int](t, operator, "SELECT 10 * version + usable_from FROM head"); v != 10*len(beside)+1 {
		t.Errorf("version and usable_from are %d", v)
	}
	if n := ask[int](t, operator, "SELECT count(*) FROM later"); n != 1 {
		t.Errorf("the migration was applied %d times", n)
	}
	again := openAt(t, c)
	putKey(t, s, "key_after")
	for name, store := range map[string]*Store{"at work": s, "started again": again} {
		for _, id := range []keystore.LookupID{"key_before", "key_after"} {
			if r, _, err := store.Lookup(t.Context(), id); err != nil || r.ID != keystore.KeyID(id) {
				t.Errorf("%s: %s is %+v %v", name, id, r, err)
			}
		}
		if batch, err := store.Changes(t.Context(), first, 10); err != nil || len(batch.Changes) != 2 {
			t.Errorf("%s: %+v %v", name, batch, err)
		}
	}
}

// A schema that this program does not understand stops it: at start, and at
// work, before it reads or writes anything wrong.
func TestUnusableNewerSchema(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	putKey(t, s, "key_a")
	if err := applied(t, c, without); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), c, testGenesis); !errors.Is(err, keystore.ErrNewerSchema) || errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("an older program starts: %v", err)
	}
	if err := migrateAgain(t, c, s); !errors.Is(err, keystore.ErrNewerSchema) {
		t.Errorf("an older migration: %v", err)
	}
	execute(t, session(t, c), "ALTER TABLE keys RENAME COLUMN abilities TO scopes") // were it not for the head, it would go on
	_, _, lookupErr := s.Lookup(t.Context(), "key_a")
	_, changesErr := s.Changes(t.Context(), keystore.Position{}, 1)
	_, snapshotErr := s.Snapshot(t.Context())
	_, transactErr := s.Transact(t.Context(), func(keystore.Tx) error { t.Error("a transaction was begun"); return nil })
	_, rollErr := s.Roll(t.Context())
	for what, err := range map[string]error{"Lookup": lookupErr, "Changes": changesErr, "Snapshot": snapshotErr, "Transact": transactErr, "Roll": rollErr} {
		if !errors.Is(err, keystore.ErrNewerSchema) || !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func migrateAgain(t *testing.T, c Config, s *Store) error {
	t.Helper()
	c, err := c.completed()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := s.pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	return migrate(t.Context(), conn.Conn(), c, beside, testGenesis)
}

// A migration is there whole or not at all.
func TestBrokenMigration(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	putKey(t, s, "key_a")
	broken := append(beside[:len(beside):len(beside)], migration{"CREATE TABLE half (n bigint); NONSENSE", 1})
	if err := applied(t, c, broken); err == nil || !strings.Contains(err.Error(), "applying migration 3") {
		t.Errorf("got %v", err)
	}
	operator := session(t, c)
	left := ask[int](t, operator, "SELECT count(*) FROM pg_tables WHERE tablename IN ('half', 'later')")
	if version := ask[int](t, operator, "SELECT version FROM head"); left != 0 || version != len(migrations) {
		t.Errorf("version %d, %d tables left", version, left)
	}
	putKey(t, s, "key_b")
}

// Several later programs that start at once migrate once, while others write.
func TestMigrationsTakeTurns(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	var group sync.WaitGroup
	for range 5 {
		group.Go(func() {
			if err := applied(t, c, beside); err != nil {
				t.Error(err)
			}
		})
	}
	for n := range 20 {
		putKey(t, s, "key_"+strings.Repeat("x", n))
	}
	group.Wait()
	if n := ask[int](t, session(t, c), "SELECT count(*) FROM later"); n != 1 {
		t.Errorf("the migration was applied %d times", n)
	}
}
