// Package postgres is the store of many nodes: a schema of a PostgreSQL
// database, version 13 or newer, which any number of processes read and write.
//
// Revisions follow commit order. Whoever changes something first locks the one
// row of the table head and raises the revision in it, so writers take turns,
// and what a transaction reads after that is what holds when it commits. A
// sequence would not do: of two transactions, the one with the higher number
// may commit first, and who reads the log in between never meets the lower.
//
// Nothing is asked without a time limit, and nothing of a server that is not
// the primary. A round trip may take long, so each call makes as few as it can:
// a look-up and a reading of the log one, a change one more than it has to read.
package postgres

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/warderhq/warder/keystore"
)

// Store is a keystore.Store in a PostgreSQL database. Open makes it.
type Store struct {
	name   string // where it is, without the password
	config Config
	pool   *pgxpool.Pool

	// Who may use a connection, and for how long. Each kind of call has its
	// own, so that a list never keeps a request waiting, nor a change from
	// being learnt; and the wait ends with the caller's context.
	lookups  places
	feed     places // of the one follower: the log, snapshots, heartbeats
	writer   places // one: others would only queue up at the head's lock
	scans    places
	rolls    places // looked at again and again by who waits for all nodes
	listener places // beside the pool

	logKept keystore.Revision // how many rows of the log stay

	read atomic.Pointer[keystore.Position] // where the log ended when the follower last read it; nil: it has not

	life      context.Context // ends when the store is closed
	end       context.CancelFunc
	closeOnce sync.Once
}

// places are where to work; place i is taken while the channel holds i values.
type places struct {
	taken chan struct{}
	limit time.Duration // of one call
}

func newPlaces(n int, limit time.Duration) places { return places{make(chan struct{}, n), limit} }

// enter waits for a place, no longer than a call may take. Who got one must
// leave.
func (s *Store) enter(ctx context.Context, at places, doing string) error {
	if err := ctx.Err(); err != nil {
		return s.failure(ctx, doing, err)
	}
	limited, cancel := context.WithTimeout(ctx, at.limit)
	defer cancel()
	select {
	case at.taken <- struct{}{}:
	case <-limited.Done():
		return s.failure(ctx, doing, limited.Err())
	case <-s.life.Done():
		return s.failure(ctx, doing, errClosed)
	}
	select {
	case <-s.life.Done(): // both were ready
		at.leave()
		return s.failure(ctx, doing, errClosed)
	default:
		return nil
	}
}

func (p places) leave() { <-p.taken }

// ask runs fn on a connection, within the time of such a call. fn must bear
// to be run twice: a connection may have died while it was idle, and the next
// one is new.
func (s *Store) ask(ctx context.Context, at places, doing string, fn func(context.Context, *pgx.Conn) error) error {
	if err := s.enter(ctx, at, doing); err != nil {
		return err
	}
	defer at.leave()
	limited, cancel := context.WithTimeout(ctx, at.limit)
	defer cancel()
	again, err := s.attempt(limited, fn)
	if again {
		_, err = s.attempt(limited, fn)
	}
	return s.failure(ctx, doing, err)
}

// attempt runs fn once. It reports whether fn failed for its connection, while
// there is still time; then all others that are idle are let go as well.
func (s *Store) attempt(ctx context.Context, fn func(context.Context, *pgx.Conn) error) (again bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, err
	}
	defer conn.Release()
	if err = fn(ctx, conn.Conn()); err == nil {
		err = takeWarning(conn.Conn().PgConn())
	}
	if !lost(conn.Conn(), err) {
		return false, err
	}
	if context.Cause(ctx) != context.Canceled { // the caller's own wish says nothing
		s.pool.Reset()
	}
	return ctx.Err() == nil, err
}

// Close waits for what is under way, refuses everything after, and closes all
// connections.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.end()
		for _, at := range []places{s.lookups, s.feed, s.writer, s.scans, s.rolls, s.listener} {
			for range cap(at.taken) {
				at.taken <- struct{}{}
			}
		}
		s.pool.Close()
	})
	return nil
}

func (s *Store) String() string { return fmt.Sprintf("PostgreSQL at %s", s.name) }

// Interface guards.
var (
	_ keystore.Store     = (*Store)(nil)
	_ keystore.SecretRow = (*Store)(nil)
	_ keystore.Registry  = (*Store)(nil)
	_ keystore.Notifier  = (*Store)(nil)
	_ keystore.Tx        = (*tx)(nil)
)
