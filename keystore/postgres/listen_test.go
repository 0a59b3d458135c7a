//go:build unix

package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// listening is a Listen that is under way.
type listening struct {
	heard chan keystore.Notice
	ended chan error
}

func listen(t *testing.T, s *Store) listening {
	t.Helper()
	l := listening{make(chan keystore.Notice, 100), make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	go func() { l.ended <- s.Listen(ctx, func(n keystore.Notice) { l.heard <- n }) }()
	if n := l.next(t); n.Keys != nil || n.Beat {
		t.Errorf("the first notice is %+v", n)
	}
	return l
}

func (l listening) next(t *testing.T) keystore.Notice {
	t.Helper()
	select {
	case n := <-l.heard:
		return n
	case err := <-l.ended:
		t.Fatalf("listening ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("nothing is heard")
	}
	return keystore.Notice{}
}

// end demands that listening ends with an outage.
func (l listening) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-l.ended:
		if !errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("listening ended: %v", err)
		}
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("listening goes on")
		return nil
	}
}

// A connection that is silently dead is found out, and after it nobody has to
// find out that all others are.
func TestSilentConnection(t *testing.T) {
	c, w := through(t, newDatabase(t))
	c.Ping, c.timeouts = 50*time.Millisecond, impatient
	s := openAt(t, c)
	l := listen(t, s)
	time.Sleep(5 * c.Ping) // it hears nothing, and lives
	putKey(t, s, "key_a")
	if n := l.next(t); len(n.Keys) != 1 {
		t.Errorf("heard %+v", n)
	}
	w.hush(true)
	t.Log(l.end(t))
	w.hush(false)
	before := s.pool.Stat().NewConnsCount()
	putKey(t, s, "key_b")
	if s.pool.Stat().NewConnsCount() == before {
		t.Error("an old connection was used again")
	}
	l = listen(t, s)
	putKey(t, s, "key_c")
	if n := l.next(t); len(n.Keys) != 1 || n.Keys[0] != "key_c" {
		t.Errorf("heard %+v", n)
	}
	w.cut()
	t.Log(l.end(t))
}

// Whoever may use the database can make a node look, and nothing else.
func TestForgedNotifications(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	l := listen(t, s)
	operator := session(t, c)
	for _, forged := range []string{"nonsense", "keys ", "keys key_a  key_b", "keys " + strings.Repeat("k", 100), strings.Repeat("x", 7999), "keys" + strings.Repeat(" k\t", 100)} {
		execute(t, operator, "SELECT pg_notify($1, $2)", s.config.channel(), forged)
		if n := l.next(t); n.Keys != nil || n.Beat {
			t.Errorf("%.20q means %+v", forged, n)
		}
	}
	execute(t, operator, "SELECT pg_notify('another', 'keys key_a')")
	execute(t, operator, "SELECT pg_notify($1, 'keys key_a')", s.config.channel())
	if n := l.next(t); len(n.Keys) != 1 {
		t.Errorf("heard %+v", n)
	}
}

// Nobody hears of what is in another schema.
func TestChannelsOfSchemas(t *testing.T) {
	c := newDatabase(t)
	other := c
	other.Schema = "warder_two"
	a, b := openAt(t, c), openAt(t, other)
	l := listen(t, a)
	putKey(t, b, "key_b")
	putKey(t, a, "key_a")
	if n := l.next(t); len(n.Keys) != 1 || n.Keys[0] != "key_a" {
		t.Errorf("heard %+v", n)
	}
}

// A server that has no place for one who wants to listen is well for those who
// have theirs.
func TestNoPlaceToListen(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	putKey(t, s, "key_a")
	operator := session(t, c)
	const here = "FROM pg_stat_activity WHERE datname = current_database()"
	database := ask[string](t, operator, "SELECT current_database()")
	for s.pool.Stat().TotalConns() < s.pool.Config().MinConns { // so that none is about to be made
		time.Sleep(5 * time.Millisecond)
	}
	execute(t, operator, fmt.Sprintf("ALTER DATABASE %s CONNECTION LIMIT %d", database, ask[int](t, operator, "SELECT count(*) "+here)))
	before := ask[[]int32](t, operator, "SELECT array_agg(pid) "+here)
	outage(t, "a server without a place", s.Listen(t.Context(), func(keystore.Notice) {}))
	for range 5 {
		if _, _, err := s.Lookup(t.Context(), "key_a"); err != nil {
			t.Errorf("a look-up beside it: %v", err)
		}
	}
	if n := ask[int](t, operator, "SELECT count(*) "+here+" AND pid = ANY ($1)", before); n != len(before) {
		t.Errorf("%d of %d connections are left", n, len(before))
	}
}
