package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/warderhq/warder/keystore"
)

// KeyFile returns the name of the file that holds the master key of the
// database at path when none is configured.
func KeyFile(path string) string { return path + ".key" }

// OpenWithKeyFile opens the database at path with the master key in its key
// file. The first start makes both. Later, one without the other is refused:
// a new key would leave every credential useless, and a new database would
// bring none of them back. created reports a first start.
//
// The key is on disk before the database is committed, under a name of its
// own; it takes its final name after. A crash in between leaves either no
// database, and the first start begins anew, or one with its pending key,
// which is then taken over.
func OpenWithKeyFile(ctx context.Context, path string) (s *Store, secret keystore.StoreSecret, created bool, err error) {
	file := keyFile{path: KeyFile(path), database: path}
	s, err = Open(ctx, path, func() (keystore.SealedSecret, error) {
		created = true
		return file.begin()
	})
	if err != nil {
		return nil, secret, false, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	if secret, err = file.unlock(ctx, s); err != nil {
		return s, secret, false, err
	}
	return s, secret, created, nil
}

type keyFile struct{ path, database string }

// pending is the name of a key whose database may not be committed yet.
func (f keyFile) pending() string { return f.path + ".new" }

// begin makes the key of a database that is about to be committed.
func (f keyFile) begin() (keystore.SealedSecret, error) {
	if _, err := os.Lstat(f.path); err == nil {
		return keystore.SealedSecret{}, fmt.Errorf("key file %s is there, but its database %s is not: restore the database, or remove the key file to begin anew", f.path, f.database)
	}
	master := keystore.NewMasterKey()
	if err := f.propose(master); err != nil {
		return keystore.SealedSecret{}, err
	}
	return keystore.SealedGenesis(master)()
}

// unlock opens the store's secret with the key file. A key under its pending
// name that opens it when the other one does not, or is not there, is what a
// first start or a change of the key left when it was interrupted; it takes
// the final name now.
func (f keyFile) unlock(ctx context.Context, row keystore.SecretRow) (keystore.StoreSecret, error) {
	_, secret, err := f.open(ctx, row)
	return secret, err
}

func (f keyFile) open(ctx context.Context, row keystore.SecretRow) (keystore.MasterKey, keystore.StoreSecret, error) {
	master, secret, err := f.try(ctx, row, f.path)
	absent := errors.Is(err, fs.ErrNotExist)
	if !absent && !errors.Is(err, keystore.ErrWrongMasterKey) {
		return master, secret, err
	}
	next, secret, pendingErr := f.try(ctx, row, f.pending())
	switch {
	case pendingErr == nil:
		return next, secret, f.adopt()
	case !absent:
		return keystore.MasterKey{}, keystore.StoreSecret{}, err // of the file that people know
	case errors.Is(pendingErr, fs.ErrNotExist):
		return keystore.MasterKey{}, keystore.StoreSecret{}, fmt.Errorf("database %s is there, but neither its key file %s nor a configured master_key: restore the key file", f.database, f.path)
	default:
		return keystore.MasterKey{}, keystore.StoreSecret{}, pendingErr
	}
}

// try opens the secret with the key in one file.
func (f keyFile) try(ctx context.Context, row keystore.SecretRow, name string) (keystore.MasterKey, keystore.StoreSecret, error) {
	master, err := readKey(name)
	if err != nil {
		return master, keystore.StoreSecret{}, err
	}
	secret, err := keystore.Unlock(ctx, row, master, keystore.MasterKey{})
	if err != nil {
		return keystore.MasterKey{}, secret, fmt.Errorf("opening database %s with key file %s: %w", f.database, name, err)
	}
	return master, secret, nil
}

// adopt gives the pending key its final name, in place of a former one.
func (f keyFile) adopt() error {
	if err := os.Rename(f.pending(), f.path); err != nil {
		return fmt.Errorf("giving key file %s its final name: %w", f.path, err)
	}
	return syncDirectory(filepath.Dir(f.path))
}

// propose writes a key under the pending name, where no crash can lose it.
func (f keyFile) propose(master keystore.MasterKey) error {
	if err := os.Remove(f.pending()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a key that was never used: %w", err)
	}
	if err := writeSynced(f.pending(), f.path, master.Text().Reveal()+"\n"); err != nil {
		return fmt.Errorf("writing key file: %w", err)
	}
	return nil
}

// MasterKeyBeside returns the master key in the key file of the database at
// path, or, if a first start was cut short, in its pending one. It changes
// nothing. fs.ErrNotExist if there is neither.
func MasterKeyBeside(path string) (keystore.MasterKey, error) {
	file := keyFile{path: KeyFile(path)}
	master, err := readKey(file.path)
	if errors.Is(err, fs.ErrNotExist) {
		master, err = readKey(file.pending())
	}
	return master, err
}

// KeyFileFor returns the name of the file beside the database at path whose key
// opens sealed: the key file, or the pending one of a change that was
// interrupted. It changes nothing. Errors are of the key file:
// keystore.ErrWrongMasterKey, fs.ErrNotExist.
func KeyFileFor(path string, sealed keystore.SealedSecret) (string, error) {
	file := keyFile{path: KeyFile(path)}
	err := opens(file.path, sealed)
	if err != nil && opens(file.pending(), sealed) == nil {
		return file.pending(), nil
	}
	return file.path, err
}

func opens(name string, sealed keystore.SealedSecret) error {
	master, err := readKey(name)
	if err != nil {
		return err
	}
	if _, err := keystore.OpenStoreSecret(master, sealed); err != nil {
		return fmt.Errorf("key file %s: %w", name, err)
	}
	return nil
}

func readKey(name string) (keystore.MasterKey, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return keystore.MasterKey{}, fmt.Errorf("reading key file: %w", err)
	}
	master, err := keystore.ParseMasterKey(keystore.Secret(strings.TrimSuffix(string(text), "\n")))
	if err != nil {
		return keystore.MasterKey{}, fmt.Errorf("reading key file %s: %w", name, err)
	}
	return master, nil
}

// writeSynced creates the file, which must not exist, readable by its owner
// only, who is that of the file whose place it will take, and returns when it
// and its name are on disk.
func writeSynced(name, former, text string) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.WriteString(text); err == nil {
		err = inherit(f, former)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(name) // it is of no use, and would be in the way
		return err
	}
	return syncDirectory(filepath.Dir(name))
}
