package sqlite

import (
	"context"
	"errors"
	"fmt"

	"modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"github.com/warderhq/warder/keystore"
)

// errClosed is what a store answers after Close.
var errClosed = errors.New("store is closed")

// failure turns an error of SQLite or the disk into the store's own:
// ErrUnavailable, for damage ErrCorrupt too. The end of the caller's context
// stays what it is, for it says nothing about the store.
func (s *Store) failure(ctx context.Context, doing string, err error) error {
	switch {
	case ctx.Err() != nil && (isContextEnd(err) || isCode(err, codes.SQLITE_INTERRUPT)):
		return fmt.Errorf("%s: %w", doing, ctx.Err())
	case isCode(err, codes.SQLITE_CONSTRAINT):
		// The store is well; what was put contradicts what it holds.
		return fmt.Errorf("%s in %s: %w", doing, s.path, err)
	default:
		return fmt.Errorf("%s in %s: %w: %w", doing, s.path, keystore.ErrUnavailable, markDamage(err))
	}
}

// refusal names the file that does not open, and tells damage. It is no
// ErrUnavailable: nothing about it passes by waiting.
func refusal(doing, path string, err error) error {
	return fmt.Errorf("%s %s: %w", doing, path, markDamage(err))
}

// markDamage makes what SQLite reports about a damaged file an ErrCorrupt.
func markDamage(err error) error {
	if isCode(err, codes.SQLITE_CORRUPT) || isCode(err, codes.SQLITE_NOTADB) {
		return fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
	}
	return err
}

func isContextEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// isCode compares primary result codes: the extended ones share their low byte.
func isCode(err error, code int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == code
}
