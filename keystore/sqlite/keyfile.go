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
	if err := os.Remove(f.pending()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return keystore.SealedSecret{}, fmt.Errorf("removing the key of a first start that did not end: %w", err)
	}
	master := keystore.NewMasterKey()
	if err := writeSynced(f.pending(), master.Text().Reveal()+"\n"); err != nil {
		return keystore.SealedSecret{}, fmt.Errorf("writing key file: %w", err)
	}
	return keystore.SealedGenesis(master)()
}

// unlock reads the key, from under its pending name if need be.
func (f keyFile) unlock(ctx context.Context, row keystore.SecretRow) (keystore.StoreSecret, error) {
	name := f.path
	master, err := readKey(name)
	if errors.Is(err, fs.ErrNotExist) {
		name = f.pending()
		master, err = readKey(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return keystore.StoreSecret{}, fmt.Errorf("database %s is there, but neither its key file %s nor a configured master_key: restore the key file", f.database, f.path)
	}
	if err != nil {
		return keystore.StoreSecret{}, err
	}
	secret, err := keystore.Unlock(ctx, row, master, keystore.MasterKey{})
	if err != nil {
		return keystore.StoreSecret{}, fmt.Errorf("opening database %s with key file %s: %w", f.database, name, err)
	}
	if name == f.path {
		return secret, nil
	}
	if err := os.Rename(name, f.path); err != nil {
		return keystore.StoreSecret{}, fmt.Errorf("giving key file %s its final name: %w", f.path, err)
	}
	return secret, syncDirectory(filepath.Dir(f.path))
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
// only, and returns when it and its name are on disk.
func writeSynced(name, text string) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(name))
}
