//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"sync"

	"github.com/warderhq/warder/keystore"
)

// Copy implements keystore.Copier. The pages are read from one snapshot by a
// connection of the copy's own, so there is no second file, and neither a
// writer nor a look-up waits. The write-ahead log grows until it is closed.
func (s *Store) Copy(ctx context.Context) (io.ReadCloser, error) {
	const doing = "copying the database"
	if err := s.enter(ctx, s.copies, doing); err != nil {
		return nil, err
	}
	c, err := beginCopy(ctx, s.path)
	if err != nil {
		s.copies.leave()
		return nil, s.failure(ctx, doing, err)
	}
	c.release = func() error { s.copies.leave(); return nil }
	end := make(chan struct{})
	c.ended = func() { close(end) }
	go func() { // a reader that is slow must not keep the store from closing
		select {
		case <-s.closed:
			_ = c.stop(s.failure(ctx, doing, errClosed)) // read only: nothing is lost
		case <-end:
		}
	}()
	return c, nil
}

// CopyClosed is Copy of a database that no process has open. It takes it for
// as long, and changes nothing: an older schema stays older. It says what the
// copy is sealed under, too.
func CopyClosed(ctx context.Context, path string) (io.ReadCloser, keystore.SealedSecret, error) {
	path, lock, err := takeClosed(path)
	if err != nil {
		return nil, keystore.SealedSecret{}, err
	}
	c, err := beginCopy(ctx, path)
	if err != nil {
		return nil, keystore.SealedSecret{}, errors.Join(refusal("copying", path, err), lock.release())
	}
	c.release = lock.release
	return c, c.sealed, nil
}

// SealedClosed returns what a database is sealed under that no process has
// open, and changes nothing.
func SealedClosed(ctx context.Context, path string) (keystore.SealedSecret, error) {
	c, sealed, err := CopyClosed(ctx, path)
	if err != nil {
		return sealed, err
	}
	return sealed, c.Close()
}

// snapshotCopy reads the pages of a database from one snapshot, in order:
// together they are a database file.
type snapshotCopy struct {
	sealed  keystore.SealedSecret
	release func() error // of what kept others away
	ended   func()       // nil: nobody has to know

	mu      sync.Mutex // guards all below; no reader holds it while it sends
	db      *sql.DB
	view    *sql.Tx
	pages   *sql.Rows
	page    []byte // what is left of the last one
	failure error  // why there is no more; io.EOF: all was read
}

func beginCopy(ctx context.Context, path string) (_ *snapshotCopy, err error) {
	c := new(snapshotCopy)
	if c.db, err = connect(path, reading, 1); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.letGo()
		}
	}()
	if c.view, err = c.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
		return nil, err
	}
	row := c.view.QueryRowContext(ctx, secretQuery)
	if err = row.Scan(number(&c.sealed.Version), &c.sealed.Sealed, &c.sealed.Check); err != nil {
		return nil, missing(err, "the store secret is missing")
	}
	c.pages, err = c.view.QueryContext(ctx, "SELECT data FROM sqlite_dbpage('main') ORDER BY pgno")
	return c, err
}

// Read implements io.Reader.
func (c *snapshotCopy) Read(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(p) {
		if len(c.page) == 0 && !c.next() {
			break
		}
		copied := copy(p[n:], c.page)
		n, c.page = n+copied, c.page[copied:]
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.failure
}

// next reads the next page; false if there is none.
func (c *snapshotCopy) next() bool {
	if c.failure != nil {
		return false
	}
	var page sql.RawBytes
	if !c.pages.Next() {
		if c.failure = c.pages.Err(); c.failure == nil {
			c.failure = io.EOF
		}
		return false
	}
	if c.failure = c.pages.Scan(&page); c.failure != nil {
		return false
	}
	c.page = append(c.page[:0], page...)
	return true
}

// Close implements io.Closer.
func (c *snapshotCopy) Close() error {
	err := c.stop(errClosed)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		c.ended()
		c.ended = nil
	}
	return err
}

// stop ends the copy, from whichever goroutine; what is read after that is why.
func (c *snapshotCopy) stop(why error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.db == nil {
		return nil
	}
	c.page = nil
	if c.failure == nil {
		c.failure = why
	}
	return errors.Join(c.letGo(), c.release())
}

func (c *snapshotCopy) letGo() error {
	if c.pages != nil {
		c.pages.Close()
	}
	if c.view != nil {
		_ = c.view.Rollback() // it has written nothing
	}
	err := c.db.Close()
	c.db = nil
	return err
}

// Interface guards.
var (
	_ keystore.Copier = (*Store)(nil)
	_ io.ReadCloser   = (*snapshotCopy)(nil)
)
