//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
)

// RestoreOptions say how a backup is restored.
type RestoreOptions struct {
	Master keystore.MasterKey   // as configured; zero: the key file serves
	Others []keystore.MasterKey // that the backup may be sealed under, too
	Revive bool                 // what was revoked after the backup passes again
	Now    time.Time
}

// Restored says what was done.
type Restored struct {
	Path       string
	Backup     keystore.Position    // the head of the backup
	Head       keystore.Position    // of the database as it is now
	Master     string               // the fingerprint of the key that opens it
	NewKeyFile string               // made because there was none; empty: not
	Replaced   string               // the name that the replaced database has now; empty: there was none
	Unread     error                // why it could not be asked what was revoked; nil: it was, or there was none
	Reconciled *keystore.Reconciled // nil: nothing was there to compare with
}

// Restore puts the backup in place of the database at path, which no process
// may have open (keystore.ErrStoreInUse). It refuses a backup that is damaged,
// newer than this program, or sealed under none of the keys, before anything is
// touched: keystore.ErrCorrupt, ErrNewerSchema, ErrWrongMasterKey.
//
// The database that is replaced stays under another name. What it refused is
// refused after, too, unless it is damaged or nobody here could read it; see
// keystore.Reconciliation. Interrupted at any point, or with the disk full,
// either the one or the other is in place, whole.
func Restore(ctx context.Context, path string, backup io.Reader, o RestoreOptions) (Restored, error) {
	path, err := Canonical(path)
	if err != nil {
		return Restored{}, err
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return Restored{}, fmt.Errorf("making the directory of %s: %w", path, err)
	}
	lock, err := acquireLock(path)
	if err != nil {
		return Restored{}, err
	}
	r := &restoration{RestoreOptions: o, path: path, draft: path + restoringSuffix, file: keyFile{path: KeyFile(path), database: path}}
	r.done.Path = path
	if err = settleRestore(path); err == nil {
		err = r.run(ctx, backup)
	}
	return r.done, errors.Join(err, lock.release())
}

// restoration is one run of Restore, under the lock.
type restoration struct {
	RestoreOptions
	path, draft string
	file        keyFile
	done        Restored

	keys      []keystore.MasterKey // all there are
	opened    keystore.MasterKey   // what the backup was sealed under
	target    keystore.MasterKey   // what it is sealed under from now on
	secret    keystore.StoreSecret
	isNewFile bool // the key file has to be made
}

const (
	restoringSuffix = ".restoring"
	replacedSuffix  = ".replaced-"
)

func (r *restoration) run(ctx context.Context, backup io.Reader) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, removeDraft(r.draft))
		}
	}()
	if err := r.receive(backup); err != nil {
		return err
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if r.isNewFile {
		if err := r.makeKeyFile(); err != nil {
			return err
		}
	}
	return r.swap()
}

// receive writes the backup beside the database.
func (r *restoration) receive(backup io.Reader) error {
	f, err := os.OpenFile(r.draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("restoring: %w", err)
	}
	if _, err = io.Copy(f, backup); err == nil {
		err = inherit(f, r.path)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the backup beside the database: %w", err)
	}
	return nil
}

// prepare makes of the draft what will be the database, and closes it: from
// then on it is one file.
func (r *restoration) prepare(ctx context.Context) (err error) {
	found, err := CheckBackup(ctx, r.draft)
	if err != nil {
		return err
	}
	r.done.Backup = found.Head
	if err := r.unlock(found.Sealed); err != nil {
		return err
	}
	draft, err := openLocked(ctx, r.draft, noGenesis)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, draft.Close()); err == nil {
			err = oneFile(r.draft)
		}
	}()
	if r.opened != r.target {
		if _, err := keystore.Unlock(ctx, draft, r.target, r.opened); err != nil {
			return fmt.Errorf("sealing the backup under the present master key: %w", err)
		}
	}
	r.done.Master = r.target.Fingerprint()
	if err := r.reconcile(ctx, draft); err != nil {
		return err
	}
	r.done.Head, err = draft.readHead(ctx, draft.read.head)
	return err
}

func noGenesis() (keystore.SealedSecret, error) {
	return keystore.SealedSecret{}, errors.New("there is no database")
}

// unlock finds the key that the backup is sealed under, and decides which one
// it will be sealed under: the present one.
func (r *restoration) unlock(sealed keystore.SealedSecret) (err error) {
	if err := r.gather(); err != nil {
		return err
	}
	for _, r.opened = range r.keys {
		r.secret, err = keystore.OpenStoreSecret(r.opened, sealed)
		if err == nil {
			if r.target.IsZero() {
				r.target, r.isNewFile = r.opened, true
			}
			return nil
		}
		if !errors.Is(err, keystore.ErrWrongMasterKey) {
			return fmt.Errorf("opening the backup: %w", err)
		}
	}
	return fmt.Errorf("opening the backup, which is sealed under master key %s: %w", sealed.Fingerprints()[0], keystore.ErrWrongMasterKey)
}

// gather finds all keys there are, and the one that stays.
func (r *restoration) gather() error {
	if !r.Master.IsZero() {
		r.target, r.keys = r.Master, append([]keystore.MasterKey{r.Master}, r.Others...)
		return nil
	}
	present, err := readKey(r.file.path)
	if err == nil {
		r.target, r.keys = present, append(r.keys, present)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if pending, err := readKey(r.file.pending()); err == nil {
		r.keys = append(r.keys, pending)
	}
	r.keys = append(r.keys, r.Others...)
	return nil
}

// makeKeyFile gives the database its key, before it is there: a start between
// the two is refused.
func (r *restoration) makeKeyFile() error {
	if err := r.file.propose(r.target); err != nil {
		return err
	}
	r.done.NewKeyFile = r.file.path
	return r.file.adopt()
}

// reconcile lets the draft refuse what the database refused that it replaces.
func (r *restoration) reconcile(ctx context.Context, draft *Store) error {
	if _, err := os.Lstat(r.path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	replaced, err := r.openReplaced(ctx)
	if isLost(err) {
		r.done.Unread = err
		return nil
	}
	if err != nil { // it may be read another time, or by another
		return fmt.Errorf("asking the database that is replaced what was revoked: %w; if it is to be given up, move it away", err)
	}
	defer replaced.Close()
	lineage, err := lineageOf(ctx, replaced, draft)
	if err != nil {
		return fmt.Errorf("comparing the logs: %w", err)
	}
	by := keystore.LocalCaller().Attribution("store.restore")
	if err := draft.outdo(ctx, replaced, by, r.Now); err != nil {
		return fmt.Errorf("taking over the numbers of the replaced database: %w", err)
	}
	done, err := keystore.Reconciliation{
		Restored: draft, Replaced: replaced, Lineage: lineage, Revive: r.Revive, By: by, Now: r.Now,
	}.Reconcile(ctx)
	if err != nil {
		return err
	}
	r.done.Reconciled = &done
	return nil
}

// errOtherStore: the database was never one with the backup.
var errOtherStore = errors.New("it is the database of another store")

// isLost reports whether err is of a database that nobody here can read, now
// or later. A full disk, say, is not: what was revoked is not lost by it.
func isLost(err error) bool {
	for _, lost := range []error{keystore.ErrCorrupt, keystore.ErrNewerSchema, keystore.ErrWrongMasterKey, errOtherStore} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// lineageOf says by the logs of both how the replaced database stands to the
// backup.
func lineageOf(ctx context.Context, replaced, backup *Store) (keystore.Lineage, error) {
	head, err := backup.readHead(ctx, backup.read.head)
	if err != nil {
		return keystore.LineageApart, err
	}
	at, err := replaced.readHead(ctx, replaced.read.head)
	if err != nil {
		return keystore.LineageApart, err
	}
	switch held, err := replaced.logged(ctx, head); {
	case err != nil:
		return keystore.LineageApart, err
	case held || head.Revision <= at.Revision-replaced.logKept: // it would have been pruned: most backups are as old
		return keystore.LineageLater, nil
	}
	if held, err := backup.logged(ctx, at); err != nil || !held {
		return keystore.LineageApart, err
	}
	return keystore.LineageEarlier, nil
}

// logged reports whether the log holds a position.
func (s *Store) logged(ctx context.Context, at keystore.Position) (bool, error) {
	err := s.snapshot(ctx, "reading the log", func(view *sql.Tx) error { return s.holds(ctx, view, at) })
	if errors.Is(err, keystore.ErrPositionLost) {
		return false, nil
	}
	return err == nil, err
}

// openReplaced opens the database that will be replaced, if it is well and of
// the same store. Closing it moves its write-ahead log into it.
func (r *restoration) openReplaced(ctx context.Context) (_ *Store, err error) {
	s, err := openLocked(ctx, r.path, noGenesis)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := checkPages(ctx, s.reads); err != nil {
		return nil, refusal("checking", r.path, err)
	}
	sealed, err := s.SealedSecret(ctx)
	if err != nil {
		return nil, err
	}
	for _, key := range r.keys {
		secret, err := keystore.OpenStoreSecret(key, sealed)
		if err == nil && !secret.SameAs(r.secret) {
			return nil, errOtherStore
		}
		if err == nil {
			return s, nil
		}
	}
	return nil, fmt.Errorf("it is sealed under master key %s: %w", sealed.Fingerprints()[0], keystore.ErrWrongMasterKey)
}

// outdo makes sure that the store gives no number again that the other one has
// given: of revisions, keys, organizations and entries. The entries themselves
// are taken over, since nothing ever leaves the audit log; and the log of
// changes says that all before it may have been another.
func (s *Store) outdo(ctx context.Context, other *Store, by keystore.Attribution, now time.Time) error {
	head, err := other.readHead(ctx, other.read.head)
	if err != nil {
		return err
	}
	if err := s.takeEntries(ctx, other); err != nil {
		return err
	}
	_, err = s.transact(ctx, func(t *tx) error {
		t.head.Revision = max(t.head.Revision, head.Revision)
		revision, err := t.log(keystore.KindStore, "", nil)
		if err != nil {
			return err
		}
		for _, table := range []string{"keys", "organizations", "audit"} {
			if err := t.outdoSequence(ctx, other, table); err != nil {
				return err
			}
		}
		e := by.Entry(keystore.KindStore, "", now)
		e.Revision = revision
		return t.AppendAudit(&e)
	})
	return err
}

// outdoSequence raises the number that a table gives next.
func (t *tx) outdoSequence(ctx context.Context, other *Store, table string) error {
	var last int64
	err := eachRow(ctx, other.reads, "SELECT seq FROM sqlite_sequence WHERE name = ?", []any{table}, func(rows *sql.Rows) error {
		return rows.Scan(&last)
	})
	if err != nil {
		return err
	}
	for _, query := range []string{
		"INSERT INTO sqlite_sequence (name, seq) SELECT ?1, 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)",
		"UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1",
	} {
		if _, err := t.sql.ExecContext(ctx, query, table, last); err != nil {
			return t.fail("raising the numbers of "+table, err)
		}
	}
	return nil
}

// entriesPage is how many entries of the audit log are taken over at once.
const entriesPage = 1000

// takeEntries appends the entries that the other store has beyond the last one
// of this store.
func (s *Store) takeEntries(ctx context.Context, other *Store) error {
	var last keystore.Number
	if err := s.reads.QueryRowContext(ctx, "SELECT max(number) FROM audit").Scan(number(&last)); err != nil {
		return s.failure(ctx, "reading the audit log", err)
	}
	columns := strings.Join(auditColumns, ", ")
	for {
		var entries []keystore.AuditEntry
		query := "SELECT number, " + columns + " FROM audit WHERE number > ? ORDER BY number LIMIT ?"
		if err := other.scan(ctx, "reading the audit log", query, []any{int64(last), entriesPage}, into(&entries, auditTargets)); err != nil {
			return err
		}
		if len(entries) == 0 {
			return nil
		}
		_, err := s.transact(ctx, func(t *tx) error { return t.putEntries(ctx, entries) })
		if err != nil {
			return err
		}
		last = entries[len(entries)-1].Number
	}
}

// putEntries keeps the numbers that the entries have.
func (t *tx) putEntries(ctx context.Context, entries []keystore.AuditEntry) error {
	t.dirty = true
	for i := range entries {
		e := &entries[i]
		args := append([]any{int64(e.Number)}, auditValues(e)...)
		if _, err := t.sql.ExecContext(ctx, insertion("audit", append([]string{"number"}, auditColumns...)), args...); err != nil {
			return t.fail("taking over the audit log", err)
		}
	}
	return nil
}

// swap replaces the database. One rename decides; until then the database has
// a second name, by which settleRestore knows that it did not come to that.
func (r *restoration) swap() error {
	aside, err := r.setAside()
	if err == nil {
		err = os.Rename(r.draft, r.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("replacing the database: %w", err), settleRestore(r.path))
	}
	r.done.Replaced = aside
	return syncDirectory(filepath.Dir(r.path))
}

// setAside gives the database its other name, and takes the write-ahead log
// with it, if one was left: beside the restored database it would be replayed
// into it.
func (r *restoration) setAside() (aside string, err error) {
	name := r.path + replacedSuffix + r.Now.UTC().Format("20060102T150405.000Z")
	dir := filepath.Dir(r.path)
	if err := os.Link(r.path, name); err == nil {
		aside = name
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := syncDirectory(dir); err != nil {
		return "", err
	}
	if err := os.Rename(r.path+"-wal", name+"-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.Remove(r.path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return aside, syncDirectory(dir)
}

// settleRestore clears away what a restore left that was interrupted: a draft,
// and, if the database was not replaced yet, its second name, from which its
// write-ahead log goes back to where it belongs.
func settleRestore(path string) error {
	if err := removeDraft(path + restoringSuffix); err != nil {
		return fmt.Errorf("removing what an interrupted restore left: %w", err)
	}
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || hardLinks(info) < 2 {
		return nil // the usual case; whoever opens it says what is wrong
	}
	names, err := filepath.Glob(escapeGlob(path) + replacedSuffix + "*Z")
	if err != nil {
		return err
	}
	for _, name := range names {
		if other, err := os.Lstat(name); err != nil || !os.SameFile(info, other) {
			continue
		}
		if err := takeBack(path, name); err != nil {
			return fmt.Errorf("taking back what an interrupted restore has begun: %w", err)
		}
	}
	return nil
}

func takeBack(path, aside string) error {
	if _, err := os.Lstat(path + "-wal"); errors.Is(err, fs.ErrNotExist) {
		if err := os.Rename(aside+"-wal", path+"-wal"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	dir := filepath.Dir(path)
	if err := syncDirectory(dir); err != nil {
		return err
	}
	if err := os.Remove(aside); err != nil {
		return err
	}
	return syncDirectory(dir)
}

// escapeGlob keeps what has a meaning in a pattern from having it.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
