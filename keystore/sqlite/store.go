//go:build unix

// Package sqlite is the embedded store: one file, owned by one process.
//
// A change is acknowledged after its write-ahead log is on the disk
// (synchronous=FULL), so it survives kill -9 and a loss of power. There is one
// connection that writes and a pool that reads; a reader sees the last commit
// and is never held up by a writer.
package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"sync"

	"github.com/warderhq/warder/keystore"
)

// Store is a keystore.Store in a SQLite file. Open makes it.
type Store struct {
	path   string
	lock   *fileLock // nil: whoever opened it has it
	writes *sql.DB   // one connection
	reads  *sql.DB   // read only
	read   readStatements
	write  writeStatements

	// Who may use a connection. Look-ups and the feed are apart from longer
	// reads, so that a list never keeps a request waiting, nor a change from
	// being learnt; and the wait for a place ends with
	// the caller's context, which a wait inside of database/sql would not,
	// since look-ups run without one.
	lookups slots
	scans   slots
	feed    slots
	writer  slots
	copies  slots

	rekeying sync.Mutex // held while the master key is changed

	logKept   keystore.Revision // how many rows of the log stay
	closed    chan struct{}
	closeOnce sync.Once
	closeErr  error
}

// slots are places to work; slot i is taken while the channel holds i values.
type slots chan struct{}

// enter waits for a place. Who got one must leave.
func (s *Store) enter(ctx context.Context, places slots, doing string) error {
	if err := ctx.Err(); err != nil {
		return s.failure(ctx, doing, err)
	}
	select {
	case places <- struct{}{}:
	case <-ctx.Done():
		return s.failure(ctx, doing, ctx.Err())
	case <-s.closed:
		return s.failure(ctx, doing, errClosed)
	}
	select {
	case <-s.closed: // both were ready
		places.leave()
		return s.failure(ctx, doing, errClosed)
	default:
		return nil
	}
}

func (p slots) leave() { <-p }

// Path returns the canonical path of the database.
func (s *Store) Path() string { return s.path }

// Close waits for what is under way, refuses everything after, moves the
// write-ahead log into the database and lets go of the file.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.shut() })
	return s.closeErr
}

func (s *Store) shut() error {
	close(s.closed)
	for _, places := range []slots{s.lookups, s.scans, s.feed, s.writer, s.copies} {
		for range cap(places) {
			places <- struct{}{}
		}
	}
	return s.letGo()
}

// letGo releases what was acquired, half-built too. The lock goes last: until
// then no connection of ours may be open.
func (s *Store) letGo() error {
	var first error
	for _, db := range []*sql.DB{s.reads, s.writes} {
		if db == nil {
			continue
		}
		if err := db.Close(); err != nil && first == nil {
			first = fmt.Errorf("closing %s: %w: %w", s.path, keystore.ErrUnavailable, err)
		}
	}
	if s.lock == nil {
		return first
	}
	if err := s.lock.release(); err != nil && first == nil {
		first = fmt.Errorf("unlocking %s: %w", s.path, err)
	}
	return first
}

// Interface guards.
var (
	_ keystore.Store     = (*Store)(nil)
	_ keystore.SecretRow = (*Store)(nil)
	_ keystore.Tx        = (*tx)(nil)
)
