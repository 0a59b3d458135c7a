//go:build unix

package postgres

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

// outage demands that err says that the store could not be asked, and not that
// the caller's time is over, nor that anything is broken.
func outage(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, keystore.ErrUnavailable) || isContextEnd(err) || errors.Is(err, keystore.ErrCorrupt) {
		t.Errorf("%s: %v", what, err)
	}
}

// calls are all there are, each told from the others.
func calls(s *Store) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Lookup":   func(ctx context.Context) error { _, _, err := s.Lookup(ctx, "key_a"); return err },
		"List":     func(ctx context.Context) error { _, err := s.List(ctx, keystore.Query{Limit: 1}); return err },
		"Count":    func(ctx context.Context) error { _, err := s.Count(ctx, keystore.Query{}); return err },
		"Changes":  func(ctx context.Context) error { _, err := s.Changes(ctx, keystore.Position{}, 1); return err },
		"Snapshot": func(ctx context.Context) error { _, err := s.Snapshot(ctx); return err },
		"Transact": func(ctx context.Context) error {
			_, err := s.Transact(ctx, func(tx keystore.Tx) error { return tx.PutDocument(&keystore.Document{Kind: "demo", Name: "d"}) })
			return err
		},
		"Audit": func(ctx context.Context) error { _, err := s.Audit(ctx, keystore.AuditQuery{Limit: 1}); return err },
		"Usage": func(ctx context.Context) error {
			_, err := s.Usage(ctx, keystore.UsageQuery{FromDay: 1, ToDay: 1})
			return err
		},
		"LastUsed":     func(ctx context.Context) error { _, err := s.LastUsed(ctx, []keystore.KeyID{"key_a"}); return err },
		"AddUsage":     func(ctx context.Context) error { return s.AddUsage(ctx, keystore.UsageBatch{Oldest: 1}) },
		"Beat":         func(ctx context.Context) error { return s.Beat(ctx, keystore.Node{ID: "n"}) },
		"Roll":         func(ctx context.Context) error { _, err := s.Roll(ctx); return err },
		"Leave":        func(ctx context.Context) error { return s.Leave(ctx, "n") },
		"AskBeats":     func(ctx context.Context) error { return s.AskBeats(ctx) },
		"SealedSecret": func(ctx context.Context) error { _, err := s.SealedSecret(ctx); return err },
		"ReplaceSealedSecret": func(ctx context.Context) error {
			return s.ReplaceSealedSecret(ctx, keystore.SealedSecret{}, keystore.SealedSecret{})
		},
		"Listen": func(ctx context.Context) error { return s.Listen(ctx, func(keystore.Notice) {}) },
	}
}

// A server that says nothing any more, at whatever moment, hangs nobody: every
// call ends by itself, and once it answers again so does the store.
func TestSilentServer(t *testing.T) {
	c, w := through(t, newDatabase(t))
	c.timeouts, c.Ping = impatient, 100*time.Millisecond
	s := openAt(t, c)
	putKey(t, s, "key_a")
	for _, when := range []string{"idle connections", "no connections"} {
		w.hush(true)
		if when == "no connections" {
			s.pool.Reset()
		}
		var group sync.WaitGroup
		for name, call := range calls(s) {
			group.Go(func() { outage(t, name+" with "+when, call(context.Background())) })
		}
		ended := make(chan struct{})
		go func() { group.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatal("something hangs")
		}
		w.hush(false)
		recovers(t, s)
	}
}

// recovers demands that the store is at work again without help, soon.
func recovers(t *testing.T, s *Store) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		_, _, lookupErr := s.Lookup(t.Context(), "key_a")
		_, err = s.Transact(t.Context(), func(tx keystore.Tx) error { return tx.PutDocument(&keystore.Document{Kind: "demo", Name: "d"}) })
		if err = errors.Join(lookupErr, err); err == nil {
			return
		}
	}
	t.Fatalf("it does not recover: %v", err)
}

// Connections that died while they were idle cost nobody an error.
func TestDeadConnections(t *testing.T) {
	server := postgrestest.Start(t, postgrestest.Options{})
	s := openAt(t, Config{URL: keystore.Secret(server.Database())})
	putKey(t, s, "key_a")
	for name, end := range map[string]func(){
		"restarted": server.Stop,
		"killed":    server.Kill,
		"terminated": func() {
			server.Execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'warder'")
		},
	} {
		for what, call := range calls(s) {
			if what == "ReplaceSealedSecret" || what == "Listen" || what == "Changes" {
				continue
			}
			var group sync.WaitGroup // so that there are several
			for range 3 {
				group.Go(func() { _, _, _ = s.Lookup(t.Context(), "key_a") })
			}
			group.Wait()
			if what != "Lookup" && name != "terminated" {
				continue // one is enough for what takes so long
			}
			end()
			if name != "terminated" {
				outage(t, "while it is down", second(s.Lookup(t.Context(), "key_a")))
				server.Restart()
			}
			if err := call(t.Context()); err != nil {
				t.Errorf("%s after the server was %s: %v", what, name, err)
			}
		}
	}
}

func second[A, B any](_ A, _ B, err error) error { return err }

// What ends a connection in the middle of a transaction undoes all of it.
func TestCutInTransaction(t *testing.T) {
	c, w := through(t, newDatabase(t))
	s := openAt(t, c)
	before := headOf(t, s)
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		r := testKey("key_cut")
		if err := tx.PutKey(&r); err != nil {
			return err
		}
		if _, err := tx.Document("demo", "d"); err != nil { // so that it is sent
			return err
		}
		w.cut()
		_, first := tx.Document("demo", "d")
		r = testKey("key_late")
		outage(t, "the next read", first)
		outage(t, "whatever follows", tx.PutKey(&r))
		return nil
	})
	outage(t, "Transact", err)
	for _, id := range []keystore.LookupID{"key_cut", "key_late"} {
		if r, _, err := s.Lookup(t.Context(), id); err != nil || r.ID != "" {
			t.Errorf("%s is %+v %v", id, r, err)
		}
	}
	if headOf(t, s) != before {
		t.Error("the head has moved")
	}
}

// A commit whose answer is lost is an error, whether it happened or not.
func TestLostAnswer(t *testing.T) {
	c, w := through(t, newDatabase(t))
	c.timeouts = impatient
	s := openAt(t, c)
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		w.hush(true)
		r := testKey("key_a")
		return errors.Join(tx.AppendAudit(&keystore.AuditEntry{}), tx.PutDocument(&keystore.Document{Kind: "demo", Name: string(r.ID)}))
	})
	outage(t, "Transact", err)
	w.hush(false)
	recovers(t, s)
}

// A node that is halted in the middle of a transaction does not keep all others
// from writing, nor does one that is cut off while it waits for its turn.
func TestHaltedWriter(t *testing.T) {
	c := newDatabase(t)
	c.timeouts = impatient
	c.timeouts.idle = 3 * time.Second // much longer than the other waits for its turn
	halted := openAt(t, c)
	c.timeouts.lock = 200 * time.Millisecond
	other := openAt(t, c)
	_, err := halted.Transact(t.Context(), func(tx keystore.Tx) error {
		r := testKey("key_halted")
		if err := tx.PutKey(&r); err != nil {
			return err
		}
		_, err := other.Transact(t.Context(), func(tx keystore.Tx) error { t.Error("two writers at once"); return nil })
		outage(t, "the other, out of its turn", err)
		recovers(t, other)
		return nil
	})
	outage(t, "the halted one", err)
	if r, _, err := other.Lookup(t.Context(), "key_halted"); err != nil || r.ID != "" {
		t.Errorf("%+v %v", r, err)
	}
	putKey(t, halted, "key_again")
}

// What has been committed here, but not on the standby that the operator
// demands, is not acknowledged.
func TestUnreplicatedCommit(t *testing.T) {
	primary := postgrestest.Start(t, postgrestest.Options{})
	database := primary.Database()
	s := openAt(t, Config{URL: keystore.Secret(database)})
	standby := primary.Standby(true)
	putKey(t, s, "key_a")
	standby.Stop()
	done := make(chan error, 1)
	go func() {
		_, err := s.Transact(t.Context(), func(tx keystore.Tx) error { r := testKey("key_b"); return tx.PutKey(&r) })
		done <- err
	}()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline) && len(done) == 0; time.Sleep(5 * time.Millisecond) {
		if primary.Count("SELECT count(*) FILTER (WHERE pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != 0 {
			break
		}
	}
	err := <-done
	outage(t, "a wait that somebody cancelled", err)
	if !strings.Contains(err.Error(), "on this server only") {
		t.Errorf("got %v", err)
	}
}

// What a connection was told about one commit is not held against the next,
// and a heartbeat that the standby may lack is not given.
func TestWarningsAreOfOneCommit(t *testing.T) {
	s := openAt(t, newDatabase(t))
	putKey(t, s, "key_a")
	warn := func(conn *pgx.Conn) { keepWarning(conn.PgConn(), &pgconn.Notice{Routine: "SyncRepWaitForLSN"}) }
	for _, conn := range s.pool.AcquireAllIdle(t.Context()) {
		warn(conn.Conn())
		conn.Release()
	}
	putKey(t, s, "key_b")
	err := s.ask(t.Context(), s.feed, "recording a heartbeat", func(_ context.Context, conn *pgx.Conn) error {
		warn(conn)
		return nil
	})
	outage(t, "a heartbeat on one server only", err)
	if err := s.Beat(t.Context(), keystore.Node{ID: "n"}); err != nil {
		t.Errorf("the next: %v", err)
	}
}

// A store follows its database to the standby that was promoted, and asks no
// standby anything.
func TestPromotedStandby(t *testing.T) {
	primary := postgrestest.Start(t, postgrestest.Options{})
	database := primary.Database()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal("no URL")
	}
	openAt(t, Config{URL: keystore.Secret(database)})
	standby := primary.Standby(true)
	u.Host = standby.Address()
	_, err = Open(t.Context(), Config{URL: keystore.Secret(u.String())}, testGenesis)
	outage(t, "a standby", err)
	if !errors.Is(err, errStandby) {
		t.Errorf("a standby: %v", err)
	}
	u.Host = standby.Address() + "," + primary.Address()
	s := openAt(t, Config{URL: keystore.Secret(u.String())})
	r := putKey(t, s, "key_a")
	primary.Kill()
	outage(t, "between the two", second(s.Lookup(t.Context(), "key_a")))
	standby.Execute("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")
	standby.Promote()
	recovers(t, s)
	if got, _, err := s.Lookup(t.Context(), "key_a"); err != nil || got != r {
		t.Errorf("got %+v %v, want %+v", got, err, r)
	}
}

// awaitSpare waits until the pool has opened the connections that it keeps
// spare: one under way would be of before what a test does next, and be used
// once, even though the pool is reset.
func awaitSpare(t *testing.T, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		have := s.pool.Stat()
		if have.ConstructingConns() == 0 && have.TotalConns() >= s.pool.Config().MinConns {
			return
		}
	}
	t.Fatal("the pool does not open its spare connections")
}

// A server that has become read only is let go of, as a standby is.
func TestReadOnlyServer(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	operator := session(t, c)
	database := ask[string](t, operator, "SELECT current_database()")
	putKey(t, s, "key_a")
	awaitSpare(t, s)
	execute(t, operator, "ALTER DATABASE "+database+" SET default_transaction_read_only = on")
	s.pool.Reset()
	for name, call := range calls(s) {
		err := call(t.Context())
		outage(t, name, err)
		if !errors.Is(err, errStandby) {
			t.Errorf("%s: %v", name, err)
		}
	}
	execute(t, operator, "SET default_transaction_read_only = off")
	execute(t, operator, "ALTER DATABASE "+database+" RESET default_transaction_read_only")
	recovers(t, s)
}

// A limit that cannot be read is damage, not "no limit".
func TestUnreadableLimit(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	first := headOf(t, s)
	r := putKey(t, s, "key_a")
	execute(t, session(t, c), "UPDATE keys SET rate_limit = '5/fortnight'")
	_, _, lookupErr := s.Lookup(t.Context(), keystore.LookupID(r.ID))
	_, listErr := s.List(t.Context(), keystore.Query{Limit: 1})
	_, changesErr := s.Changes(t.Context(), first, 5)
	for what, err := range map[string]error{"Lookup": lookupErr, "List": listErr, "Changes": changesErr} {
		if !errors.Is(err, keystore.ErrCorrupt) || !errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Nothing is asked of the database that it refuses to understand.
func TestNamesThatAreNoText(t *testing.T) {
	s := openAt(t, newDatabase(t))
	putKey(t, s, "key_a")
	for _, id := range []string{"key\x00", "\xff", "key_a\x00", "\xc0\x80"} {
		r, at, err := s.Lookup(t.Context(), keystore.LookupID(id))
		if err != nil || r.ID != "" || at == 0 {
			t.Errorf("Lookup(%q): %+v %d %v", id, r, at, err)
		}
		for _, q := range []keystore.Query{{Name: id}, {Organization: id}, {Permission: id}} {
			if n, err := s.Count(t.Context(), q); err != nil || n != 0 {
				t.Errorf("Count(%+v): %d %v", q, n, err)
			}
		}
		if uses, err := s.LastUsed(t.Context(), []keystore.KeyID{keystore.KeyID(id)}); err != nil || len(uses) != 0 {
			t.Errorf("LastUsed(%q): %+v %v", id, uses, err)
		}
		_, err = s.Transact(t.Context(), func(tx keystore.Tx) error {
			if _, err := tx.Key(keystore.KeyID(id)); !errors.Is(err, keystore.ErrKeyNotFound) {
				t.Errorf("Key(%q): %v", id, err)
			}
			if _, err := tx.Organization(id); !errors.Is(err, keystore.ErrOrganizationNotFound) {
				t.Errorf("Organization(%q): %v", id, err)
			}
			if d, err := tx.Document("demo", id); err != nil || d.Revision != 0 {
				t.Errorf("Document(%q): %+v %v", id, d, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// Long reads keep neither a look-up waiting nor the feed nor a heartbeat, and
// who waits can give up, or does when the time of such a call is over.
func TestPlaces(t *testing.T) {
	c := newDatabase(t)
	c.timeouts, c.PoolSize = impatient, MinPoolSize
	s := openAt(t, c)
	for _, at := range []places{s.scans, s.rolls, s.writer} {
		for range cap(at.taken) {
			at.taken <- struct{}{}
			defer at.leave()
		}
	}
	all := calls(s)
	for _, what := range []string{"Lookup", "Snapshot", "Beat"} {
		if err := all[what](t.Context()); err != nil {
			t.Errorf("%s beside long reads: %v", what, err)
		}
	}
	for _, what := range []string{"List", "Roll", "Transact", "AddUsage"} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if err := all[what](ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, keystore.ErrUnavailable) {
			t.Errorf("%s, given up: %v", what, err)
		}
		cancel()
		outage(t, what+" without a place", all[what](t.Context()))
	}
}

// Closing waits for what is under way, and everything after is refused.
func TestClose(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	closed := make(chan struct{})
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		go func() { s.Close(); close(closed) }()
		<-s.life.Done()
		r := testKey("key_a")
		return tx.PutKey(&r)
	})
	if err != nil {
		t.Errorf("what was under way: %v", err)
	}
	<-closed
	for name, call := range calls(s) {
		outage(t, name, call(t.Context()))
	}
	if r, _, err := openAt(t, c).Lookup(t.Context(), "key_a"); err != nil || r.ID == "" {
		t.Errorf("%+v %v", r, err)
	}
	if n := ask[int](t, session(t, c), "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'warder' AND datname = current_database()"); n > 4 {
		t.Errorf("%d connections are left", n)
	}
}
