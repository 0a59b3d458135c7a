//go:build unix

package postgres

import (
	"context"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
)

// impatient is for tests in which nobody answers.
var impatient = timeouts{
	lookup: time.Second, feed: time.Second, write: 1500 * time.Millisecond, scan: 2 * time.Second,
	lock: time.Second, idle: time.Second, connect: time.Second,
}

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

func headOf(t testing.TB, s *Store) keystore.Position {
	t.Helper()
	snapshot, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return snapshot.Head
}

// session is a connection of an operator, who is not bound by what a Store
// sets on its own, but has the schema before his eyes.
func session(t testing.TB, c Config) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.URL.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	schema := c.Schema
	if schema == "" {
		schema = DefaultSchema
	}
	execute(t, conn, "SET search_path = "+schema)
	return conn
}

func execute(t testing.TB, conn *pgx.Conn, query string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%.60s: %v", query, err)
	}
}

func ask[T any](t testing.TB, conn *pgx.Conn, query string, args ...any) (value T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), query, args...).Scan(&value); err != nil {
		t.Fatalf("%.60s: %v", query, err)
	}
	return value
}

// wire is a network between a store and its server, which counts how often the
// store waited for an answer, and can fall silent.
type wire struct {
	net.Listener
	target string
	turns  atomic.Int64 // how often the store asked after it was answered

	mu     sync.Mutex    // guards silent and open
	silent chan struct{} // closed: not silent
	open   []net.Conn
}

// through has c lead through a new wire.
func through(t testing.TB, c Config) (Config, *wire) {
	t.Helper()
	u, err := url.Parse(c.URL.Reveal())
	if err != nil {
		t.Fatal("no URL")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{Listener: listener, target: u.Host, silent: make(chan struct{})}
	close(w.silent)
	go w.accept()
	t.Cleanup(func() {
		listener.Close()
		w.hush(false)
		w.cut()
	})
	u.Host = listener.Addr().String()
	c.URL = keystore.Secret(u.String())
	return c, w
}

func (w *wire) accept() {
	for {
		near, err := w.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", w.target)
		if err != nil {
			near.Close()
			continue
		}
		w.mu.Lock()
		w.open = append(w.open, near, far)
		w.mu.Unlock()
		answered := new(atomic.Bool)
		answered.Store(true)
		go w.pass(far, near, func() {
			if answered.Swap(false) {
				w.turns.Add(1)
			}
		})
		go w.pass(near, far, func() { answered.Store(true) })
	}
}

func (w *wire) pass(to, from net.Conn, seen func()) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			seen()
			<-w.silence()
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			<-w.silence()
			return
		}
	}
}

func (w *wire) silence() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.silent
}

// hush has all that is sent from now on wait, in both directions.
func (w *wire) hush(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.silent:
		if on {
			w.silent = make(chan struct{})
		}
	default:
		if !on {
			close(w.silent)
		}
	}
}

// cut ends all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range w.open {
		conn.Close()
	}
	w.open = nil
}
