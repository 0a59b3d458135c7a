//go:build unix

package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"

	"github.com/warderhq/warder/keystore"
)

// tx is an open write transaction.
//
// No statement runs under the caller's context: SQLite answers an interrupted
// write by rolling the whole transaction back, and what fn put after that
// would commit one by one. Instead the context is asked before every
// statement, and the first failure of any kind ends the transaction for good,
// whether fn passes the error on or not.
type tx struct {
	ctx    context.Context
	store  *Store
	sql    *sql.Tx
	head   keystore.Position
	dirty  bool
	failed error

	statements map[*sql.Stmt]*sql.Stmt // of the store, as they are in this transaction
	owners     map[string]bool         // organizations that were seen to exist
}

// Transact implements keystore.Transactor. fn runs once.
func (s *Store) Transact(ctx context.Context, fn func(keystore.Tx) error) (keystore.Revision, error) {
	return s.transact(ctx, func(t *tx) error { return fn(t) })
}

func (s *Store) transact(ctx context.Context, fn func(*tx) error) (keystore.Revision, error) {
	const doing = "beginning a transaction"
	if err := s.enter(ctx, s.writer, doing); err != nil {
		return 0, err
	}
	defer s.writer.leave()
	calm := context.WithoutCancel(ctx)
	sqlTx, err := s.writes.BeginTx(calm, nil)
	if err != nil {
		return 0, s.failure(ctx, doing, err)
	}
	defer sqlTx.Rollback() // does nothing after a commit
	t := &tx{ctx: ctx, store: s, sql: sqlTx, statements: map[*sql.Stmt]*sql.Stmt{}, owners: map[string]bool{}}
	if t.head, err = s.readHead(calm, sqlTx.Stmt(s.write.head)); err != nil {
		return 0, s.failure(ctx, doing, err)
	}
	before := t.head.Revision
	if err := fn(t); err != nil {
		return 0, err
	}
	if err := t.finish(before); err != nil {
		return 0, err
	}
	return t.head.Revision, nil
}

// finish commits. An error means that nothing has happened.
func (t *tx) finish(before keystore.Revision) error {
	if t.head.Revision != before {
		if err := t.exec("pruning the log", t.store.write.pruneLog, int64(t.head.Revision-t.store.logKept)); err != nil {
			return err
		}
	}
	if err := t.usable("committing"); err != nil || !t.dirty {
		return err
	}
	if err := t.sql.Commit(); err != nil {
		return t.store.failure(context.WithoutCancel(t.ctx), "committing", err)
	}
	return nil
}

// usable reports why the transaction cannot go on.
func (t *tx) usable(doing string) error {
	if t.failed == nil && t.ctx.Err() != nil {
		t.fail(doing, t.ctx.Err())
	}
	return t.failed
}

// fail ends the transaction.
func (t *tx) fail(doing string, err error) error {
	t.failed = t.store.failure(t.ctx, doing, err)
	return t.failed
}

func (t *tx) failIf(doing string, err error) error {
	if err == nil {
		return nil
	}
	return t.fail(doing, err)
}

// statement returns st as it is in the transaction. A thousand keys need it a
// thousand times.
func (t *tx) statement(st *sql.Stmt) *sql.Stmt {
	here, ok := t.statements[st]
	if !ok {
		here = t.sql.Stmt(st)
		t.statements[st] = here
	}
	return here
}

func (t *tx) exec(doing string, st *sql.Stmt, args ...any) error {
	if err := t.usable(doing); err != nil {
		return err
	}
	t.dirty = true
	if _, err := t.statement(st).Exec(args...); err != nil {
		return t.fail(doing, err)
	}
	return nil
}

// insert is exec for a row that gets its number from the store; zero if the
// statement leaves it out because of another.
func (t *tx) insert(doing string, st *sql.Stmt, args ...any) (keystore.Number, error) {
	if err := t.usable(doing); err != nil {
		return 0, err
	}
	t.dirty = true
	result, err := t.statement(st).Exec(args...)
	if err != nil {
		return 0, t.fail(doing, err)
	}
	inserted, err := result.RowsAffected()
	if err != nil || inserted == 0 {
		return 0, t.failIf(doing, err)
	}
	number, err := result.LastInsertId()
	return keystore.Number(number), t.failIf(doing, err)
}

// row reads at most one row; false if there is none.
func (t *tx) row(doing string, st *sql.Stmt, to []any, args ...any) (bool, error) {
	if err := t.usable(doing); err != nil {
		return false, err
	}
	err := t.statement(st).QueryRow(args...).Scan(to...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, t.fail(doing, err)
	}
	return true, nil
}

// rows gives every row to take.
func (t *tx) rows(doing, query string, args []any, take func(*sql.Rows) error) error {
	if err := t.usable(doing); err != nil {
		return err
	}
	if err := eachRow(context.WithoutCancel(t.ctx), t.sql, query, args, take); err != nil {
		return t.fail(doing, err)
	}
	return nil
}

// log appends the row of one change and makes it the head. Revisions have no
// gaps: one that is not committed is given again.
func (t *tx) log(kind keystore.Kind, name string, aliases []keystore.LookupID) (keystore.Revision, error) {
	next := keystore.Position{Revision: t.head.Revision + 1, Mark: newMark()}
	names := ""
	if len(aliases) != 0 {
		names = listText(aliases).(string)
	}
	err := t.exec("appending to the log", t.store.write.appendLog,
		int64(next.Revision), int64(next.Mark), string(kind), name, names)
	if err != nil {
		return 0, err
	}
	t.head = next
	return next.Revision, nil
}

func newMark() keystore.Mark {
	var b [8]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the program first
	return keystore.Mark(binary.LittleEndian.Uint64(b[:]))
}
