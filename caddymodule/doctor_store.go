package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres"
	"github.com/warderhq/warder/keystore/sqlite"
)

// examine implements examinedStore: the files, always, and what is in them
// while no server has them open.
func (s *SQLiteStore) examine(ctx context.Context, d *doctor) {
	if err := s.Provision(caddy.Context{}); err != nil {
		d.wrong("store", oneLine(err), "correct the option store")
		return
	}
	master, previous := d.masterKeys()
	d.examineFile("database", s.Path)
	d.examineFileClock(s.Path)
	configured := !master.IsZero()
	if !configured {
		master = d.examineKeyFile(s.Path)
	}
	e, err := sqlite.Examine(ctx, s.Path)
	switch {
	case errors.Is(err, keystore.ErrStoreInUse) && d.server != nil:
		return // it was asked
	case errors.Is(err, keystore.ErrStoreInUse):
		d.wrong("store", oneLine(err), "stop that process, or name its admin endpoint with --address")
	case err != nil:
		d.wrong("store", oneLine(err), "restore a backup, together with the key that belongs to it")
	default:
		d.examined(s.Path, e)
		if !master.IsZero() && (configured || !d.isHalfRotated(s.Path, e)) {
			d.unlocks(e, master, previous)
		}
	}
}

// isHalfRotated tells of a change of the key file that was interrupted.
func (d *doctor) isHalfRotated(path string, e keystore.Examination) bool {
	if !e.Exists || e.Unclean {
		return false
	}
	name, err := sqlite.KeyFileFor(path, e.Sealed)
	if err != nil || name == sqlite.KeyFile(path) {
		return false
	}
	d.hint("master key", "a change of it was interrupted: "+name+" opens the store", "nothing has to be done: the next start ends the change; until then keep that file, too")
	return true
}

// examineFile says who can read a file that is for the server alone.
func (d *doctor) examineFile(check, path string) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.examineDirectory(check, filepath.Dir(path))
	case err != nil:
		d.wrong(check, oneLine(err), "run this as the user that the server runs as, and give that user the file")
	case info.Mode().Perm()&0o077 != 0:
		d.wrong(check, fmt.Sprintf("%s is open to others (%04o)", path, info.Mode().Perm()), "chmod 600 "+path)
	case isOpenToAll(filepath.Dir(path)):
		d.wrong(check, "everybody may put another file in place of "+path, "chmod 700 "+filepath.Dir(path))
	default:
		d.ok(check, "%s is for its owner only", path)
	}
}

// isOpenToAll reports whether everybody may replace what is in a directory.
func isOpenToAll(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0
}

// examineDirectory says whether a file that is not there can be made.
func (d *doctor) examineDirectory(check, dir string) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.ok(check, "%s does not exist yet", dir)
	case err != nil:
		d.wrong(check, oneLine(err), "give the user that the server runs as the directory")
	case isOpenToAll(dir):
		d.wrong(check, fmt.Sprintf("everybody may put files into %s (%04o)", dir, info.Mode().Perm()), "chmod 700 "+dir)
	default:
		d.ok(check, "not there yet; %s is where it is made", dir)
	}
}

// examineKeyFile returns the key in the key file; zero if it has none. Of a
// database and its key file, either alone is of no use.
func (d *doctor) examineKeyFile(path string) keystore.MasterKey {
	const check = "key file"
	d.examineFile(check, sqlite.KeyFile(path))
	master, err := sqlite.MasterKeyBeside(path)
	_, noDatabase := os.Stat(path)
	switch missing := errors.Is(err, fs.ErrNotExist); {
	case missing && noDatabase == nil:
		d.wrong(check, "the database "+path+" is there, and its key file is not", "restore "+sqlite.KeyFile(path)+", or configure master_key")
	case missing:
	case noDatabase != nil:
		d.wrong(check, "the key file is there, and its database "+path+" is not", "restore the database, or remove "+sqlite.KeyFile(path)+" to begin anew")
	case err != nil:
		d.wrong(check, oneLine(err), "restore it")
	default:
		d.hint(check, "without it every key is useless", "keep a copy of "+sqlite.KeyFile(path)+" apart from the backups of the database, if you do not yet")
	}
	return master
}

// examineFileClock: a file from the future says that the clock was set back.
func (d *doctor) examineFileClock(path string) {
	const check = "clock"
	now := time.Now()
	if info, err := os.Stat(path); err == nil && info.ModTime().After(now.Add(maxClockError)) {
		d.wrong(check, "the database was written at "+instantOf(info.ModTime())+", and it is "+instantOf(now)+" now", "set the clock: what has expired may pass until it is right")
		return
	}
	if now.Before(oldestClock) {
		d.wrong(check, "it is "+instantOf(now), "set the clock: what has expired passes until it is right")
		return
	}
	d.ok(check, "it is %s", instantOf(now))
}

// What is tolerated of a clock.
const maxClockError = time.Second

// oldestClock is before any of these programs was made.
var oldestClock = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func instantOf(t time.Time) string { return instant(&t) }

// examine implements examinedStore. It does not matter who else uses the
// database.
func (s *PostgresStore) examine(ctx context.Context, d *doctor) {
	if err := s.Provision(caddy.Context{}); err != nil {
		d.wrong("store", oneLine(err), "correct the option store")
		return
	}
	master, previous := d.masterKeys()
	if master.IsZero() {
		d.wrong("master key", "none is configured, and a store of several nodes needs one", "master_key {env.WARDER_MASTER_KEY}; openssl rand -base64 32 makes one")
	}
	name, err := postgres.Canonical(s.config())
	if err != nil {
		d.wrong("store", oneLine(err), "correct the option store")
		return
	}
	e, err := postgres.Examine(ctx, s.config())
	if err != nil {
		d.wrong("store", oneLine(err), "bring the database within reach: address, network, user and password, sslmode")
		return
	}
	d.examined(name, e)
	d.examineClock(e.Clock)
	if !master.IsZero() {
		d.unlocks(e, master, previous)
	}
}

// examineClock compares with the clock that all nodes share.
func (d *doctor) examineClock(ahead time.Duration) {
	const check = "clock"
	if ahead.Abs() > maxClockError {
		d.wrong(check, fmt.Sprintf("it is %s apart from the database's", ahead.Abs().Round(time.Millisecond)), "set the clocks of both by NTP: expiry and the end of a grace period are times")
		return
	}
	d.ok(check, "it agrees with the database's within %s", maxClockError)
}

// Interface guards.
var (
	_ examinedStore = (*SQLiteStore)(nil)
	_ examinedStore = (*PostgresStore)(nil)
)
