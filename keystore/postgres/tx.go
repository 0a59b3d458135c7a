package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/warderhq/warder/keystore"
)

// tx is an open write transaction. It holds the head's lock, so whatever it
// reads stays as it is but for its own writes: keys and organizations that it
// has met are not asked for again. Writes wait until something is read or all
// is committed, and are sent together with that.
//
// The first failure of any kind ends the transaction for good, whether fn
// passes the error on or not.
type tx struct {
	ctx    context.Context
	store  *Store
	conn   *pgx.Conn
	head   head
	began  head
	queued []statement
	failed error

	keys          map[keystore.KeyID]keystore.Record // the zero Record: there is none
	organizations map[string]keystore.Organization   // likewise
	changed       []keystore.KeyID
}

// statement is one that waits to be sent.
type statement struct {
	doing string
	query string
	args  []any
}

// queueLimit bounds what waits.
const queueLimit = 1000

// Transact implements keystore.Transactor. fn runs once.
func (s *Store) Transact(ctx context.Context, fn func(keystore.Tx) error) (keystore.Revision, error) {
	const doing = "beginning a transaction"
	if err := s.enter(ctx, s.writer, doing); err != nil {
		return 0, err
	}
	defer s.writer.leave()
	t := &tx{ctx: ctx, store: s, keys: map[keystore.KeyID]keystore.Record{}, organizations: map[string]keystore.Organization{}}
	conn, err := s.begin(ctx, s.writer, lockHead, func(row pgx.Row) error {
		if err := t.head.scan(row); err != nil {
			return err
		}
		return s.continues(t.head.Position)
	})
	if err != nil {
		return 0, s.failure(ctx, doing, err)
	}
	defer s.release(conn)
	t.conn, t.began = conn.Conn(), t.head
	if err := fn(t); err != nil {
		return 0, err
	}
	if err := t.commit(); err != nil {
		return 0, err
	}
	return t.head.Revision, nil
}

// begin begins a transaction with a query of one row, in one round trip. It
// tries again on a new connection if the first turns out to be dead. The
// connection has to be released.
func (s *Store) begin(ctx context.Context, at places, query string, take func(pgx.Row) error) (conn *pgxpool.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, at.limit)
	defer cancel()
	for range 2 {
		if conn, err = s.pool.Acquire(ctx); err != nil {
			return nil, err
		}
		batch := &pgx.Batch{}
		batch.Queue("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
		batch.Queue(query).QueryRow(take)
		if err = conn.SendBatch(ctx, batch).Close(); err == nil {
			return conn, nil
		}
		broken := lost(conn.Conn(), err)
		s.release(conn)
		if !broken || ctx.Err() != nil {
			break
		}
		s.pool.Reset()
	}
	return nil, err
}

// release gives a connection back. What it has begun and not committed is
// rolled back.
func (s *Store) release(conn *pgxpool.Conn) {
	if !conn.Conn().IsClosed() && conn.Conn().PgConn().TxStatus() != 'I' {
		ctx, cancel := context.WithTimeout(context.Background(), s.config.timeouts.write)
		defer cancel()
		_, _ = conn.Exec(ctx, "ROLLBACK") // or else the pool closes the connection
	}
	conn.Release()
}

// commit sends what waits, and commits. An error that is no answer of the
// server leaves open whether it did.
func (t *tx) commit() error {
	const doing = "committing"
	if err := t.usable(doing); err != nil {
		return err
	}
	logged := t.head.Revision != t.began.Revision
	if logged {
		t.prune()
	}
	if t.head != t.began {
		t.queued = append(t.queued, statement{"raising the head", updateHead, t.head.values()})
	}
	if logged {
		t.queued = append(t.queued, statement{"notifying", notify, []any{t.store.config.channel(), noticeOf(t.changed)}})
	}
	t.queued = append(t.queued, statement{doing, "COMMIT", nil})
	// Not under the caller's context: who gives up now would not know.
	t.ctx = context.WithoutCancel(t.ctx)
	if err := t.send(nil); err != nil {
		return err
	}
	if t.conn.PgConn().TxStatus() != 'I' {
		return t.fail(doing, pgx.ErrTxCommitRollback)
	}
	if err := takeWarning(t.conn.PgConn()); err != nil {
		return t.fail(doing, err)
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
	if t.ctx.Err() == nil && lost(t.conn, err) {
		t.store.pool.Reset()
	}
	t.failed = t.store.failure(t.ctx, doing, err)
	return t.failed
}

// exec queues a statement.
func (t *tx) exec(doing, query string, args ...any) error {
	if err := t.usable(doing); err != nil {
		return err
	}
	t.queued = append(t.queued, statement{doing, query, args})
	if len(t.queued) < queueLimit {
		return nil
	}
	return t.send(nil)
}

// row reads at most one row; false if there is none.
func (t *tx) row(doing string, to []any, query string, args ...any) (found bool, err error) {
	err = t.rows(doing, query, args, func(rows pgx.Rows) error {
		found = true
		return rows.Scan(to...)
	})
	return found, err
}

// rows gives every row to take.
func (t *tx) rows(doing, query string, args []any, take func(pgx.Rows) error) error {
	if err := t.usable(doing); err != nil {
		return err
	}
	t.queued = append(t.queued, statement{doing, query, args})
	return t.send(take)
}

// send sends all that waits, in one round trip. The rows of the last go to
// take.
func (t *tx) send(take func(pgx.Rows) error) error {
	ctx, cancel := context.WithTimeout(t.ctx, t.store.writer.limit)
	defer cancel()
	queued := t.queued
	t.queued = nil
	batch := &pgx.Batch{}
	for _, st := range queued {
		batch.Queue(st.query, st.args...)
	}
	results := t.conn.SendBatch(ctx, batch)
	defer results.Close()
	for n, st := range queued {
		var err error
		if n == len(queued)-1 && take != nil {
			err = eachRow(results.Query, take)
		} else {
			_, err = results.Exec()
		}
		if err != nil {
			return t.fail(st.doing, err)
		}
	}
	if err := results.Close(); err != nil {
		return t.fail(queued[len(queued)-1].doing, err)
	}
	return nil
}

// log queues the row of one change and makes it the head. Revisions have no
// gaps: one that is not committed is given again.
func (t *tx) log(kind keystore.Kind, name string, aliases []keystore.LookupID) (keystore.Revision, error) {
	if err := t.usable("appending to the log"); err != nil {
		return 0, err
	}
	at := t.head.next()
	if kind == keystore.KindKey {
		t.changed = append(t.changed, keystore.KeyID(name))
	}
	if len(aliases) == 0 {
		aliases = nil
	}
	return at.Revision, t.exec("appending to the log", appendLog, int64(at.Revision), int64(at.Mark), string(kind), name, texts(aliases))
}
