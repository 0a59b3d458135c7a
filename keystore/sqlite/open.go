//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"

	"github.com/warderhq/warder/keystore"
)

const (
	// scanPlaces bounds lists and reports that run at the same time.
	scanPlaces = 4
	// feedPlaces is for the one follower, and nobody else: what callers ask
	// for, however much, does not keep a revocation from being learnt.
	feedPlaces = 1
	// logKept is how far back a follower may lie before it has to reload.
	logKept keystore.Revision = 10_000
	// A start checks every page of a database below fullCheckSize, which
	// takes at most some 0.3 s. A larger one (1.2 s for a million keys, if
	// the file is in memory) only if its last owner did not close it.
	fullCheckSize = 64 << 20
)

// Open takes the database at path for this process, making it, and the
// directory it lies in, if it does not exist. It refuses what it does not
// understand: keystore.ErrStoreInUse, keystore.ErrNewerSchema, and
// keystore.ErrCorrupt for a file that is damaged, empty or not Warder's.
// genesis is called for a new store only.
func Open(ctx context.Context, path string, genesis keystore.Genesis) (*Store, error) {
	path, err := Canonical(path)
	if err != nil {
		return nil, err
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("making the directory of %s: %w", path, err)
	}
	lock, err := acquireLock(path)
	if err != nil {
		return nil, err
	}
	if err := settleRestore(path); err != nil {
		return nil, errors.Join(err, lock.release())
	}
	s, err := openLocked(ctx, path, genesis)
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	s.lock = lock
	return s, nil
}

// openLocked is Open for whoever keeps others away itself.
func openLocked(ctx context.Context, path string, genesis keystore.Genesis) (*Store, error) {
	s := &Store{
		path: path, logKept: logKept, closed: make(chan struct{}),
		lookups: make(slots, max(4, 2*runtime.GOMAXPROCS(0))),
		scans:   make(slots, scanPlaces),
		feed:    make(slots, feedPlaces),
		writer:  make(slots, 1),
		copies:  make(slots, 1),
	}
	if err := s.start(ctx, genesis); err != nil {
		s.letGo()
		return nil, err
	}
	return s, nil
}

func (s *Store) start(ctx context.Context, genesis keystore.Genesis) error {
	found, err := inspect(s.path)
	if err != nil {
		return refusal("opening", s.path, err)
	}
	if !found.exists {
		if err := create(ctx, s.path, genesis); err != nil {
			return err
		}
	}
	if s.writes, err = connect(s.path, writing, 1); err != nil {
		return err
	}
	if err := migrate(ctx, s.writes, migrations); err != nil {
		return refusal("migrating", s.path, err)
	}
	if s.reads, err = connect(s.path, reading, cap(s.lookups)+cap(s.scans)+cap(s.feed)); err != nil {
		return err
	}
	if err := s.prepare(ctx); err != nil {
		return refusal("preparing", s.path, err)
	}
	if err := s.check(ctx, found); err != nil {
		return refusal("checking", s.path, err)
	}
	return nil
}

// check refuses a database that is damaged, as far as can be told in a time
// that a start may take. SQLite itself refuses a file shorter than its header
// says; preparing every statement has compared the schema; here the two rows
// without which nothing works are read, and the pages are checked as
// fullCheckSize says.
func (s *Store) check(ctx context.Context, found file) error {
	if _, err := s.readSecret(ctx); err != nil {
		return err
	}
	if _, err := s.readHead(ctx, s.read.head); err != nil {
		return err
	}
	if found.size > fullCheckSize && !found.unclean {
		return nil
	}
	return checkPages(ctx, s.reads)
}

func checkPages(ctx context.Context, db *sql.DB) error {
	var finding string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&finding); err != nil {
		return err
	}
	if finding != "ok" {
		return fmt.Errorf("%w: %s", keystore.ErrCorrupt, finding)
	}
	return nil
}

func (s *Store) readHead(ctx context.Context, head *sql.Stmt) (keystore.Position, error) {
	var at keystore.Position
	err := head.QueryRowContext(ctx).Scan(number(&at.Revision), number(&at.Mark))
	return at, missing(err, "the log has no head")
}
