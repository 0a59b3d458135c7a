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
	case isDamage(err):
		return fmt.Errorf("%s in %s: %w: %w: %w", doing, s.path, keystore.ErrUnavailable, keystore.ErrCorrupt, err)
	case isCode(err, codes.SQLITE_CONSTRAINT):
		// The store is well; what was put contradicts what it holds.
		return fmt.Errorf("%s in %s: %w", doing, s.path, err)
	default:
		return fmt.Errorf("%s in %s: %w: %w", doing, s.path, keystore.ErrUnavailable, err)
	}
}

// refusal is failure for a store that is not open yet: damage is ErrCorrupt
// alone, for nothing about it will pass by waiting.
func refusal(doing, path string, err error) error {
	if isDamage(err) {
		return fmt.Errorf("%s %s: %w: %w", doing, path, keystore.ErrCorrupt, err)
	}
	return fmt.Errorf("%s %s: %w", doing, path, err)
}

func isContextEnd(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

func isDamage(err error) bool {
	return isCode(err, codes.SQLITE_CORRUPT) || isCode(err, codes.SQLITE_NOTADB) || errors.Is(err, errDamaged)
}

// isCode compares primary result codes: the extended ones share their low byte.
func isCode(err error, code int) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == code
}
