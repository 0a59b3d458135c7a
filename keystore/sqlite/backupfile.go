//go:build unix

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// BackupFile is a backup that is being written. It has its name only when it
// is whole and was checked; what an interrupted one left the next one removes.
type BackupFile struct {
	name    string
	replace bool
	file    *os.File // under a name of its own, locked
}

const partialSuffix = ".partial"

// CreateBackup begins the backup of that name, readable by its owner only. A
// file that is there is replaced only if replace says so, and the database of
// a server never: fs.ErrExist.
func CreateBackup(name string, replace bool) (*BackupFile, error) {
	if _, err := os.Lstat(name + lockSuffix); err == nil {
		return nil, fmt.Errorf("%s is the database of a server: %w", name, fs.ErrExist)
	}
	b := &BackupFile{name: name, replace: replace}
	if err := b.checkName(); err != nil {
		return nil, err
	}
	for {
		stale, err := b.open()
		if err != nil {
			return nil, fmt.Errorf("creating a backup: %w", err)
		}
		if !stale {
			return b, nil
		}
	}
}

func (b *BackupFile) checkName() error {
	info, err := os.Lstat(b.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("creating a backup: %w", err)
	case !b.replace:
		return fmt.Errorf("%s is there: %w", b.name, fs.ErrExist)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file", b.name)
	default:
		return nil
	}
}

// open takes the unfinished file. It is stale if whoever had it before has
// just given it its name, or removed it, or is somebody else.
func (b *BackupFile) open() (stale bool, err error) {
	partial := b.name + partialSuffix
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return false, err
	}
	if err = flock(f); errors.Is(err, syscall.EWOULDBLOCK) {
		err = fmt.Errorf("another one is writing %s", b.name)
	}
	if err == nil {
		stale = !isNamed(f, partial)
	}
	if err == nil && !stale && !isOwn(f) { // whoever laid it there could read what gets into it
		stale, err = true, os.Remove(partial)
	}
	if err == nil && !stale {
		err = errors.Join(f.Truncate(0), f.Chmod(0o600))
	}
	if err != nil || stale {
		f.Close()
		return stale, err
	}
	b.file = f
	return false, nil
}

func isOwn(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return !ok || int(st.Uid) == os.Geteuid()
}

func isNamed(f *os.File, name string) bool {
	a, errA := f.Stat()
	b, errB := os.Lstat(name)
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// Write implements io.Writer.
func (b *BackupFile) Write(p []byte) (int, error) { return b.file.Write(p) }

// Commit checks what was written and gives it its name. When it returns
// without an error, the backup is on the disk.
func (b *BackupFile) Commit(ctx context.Context) (Backup, error) {
	if err := b.file.Sync(); err != nil {
		return Backup{}, fmt.Errorf("writing %s: %w", b.name, err)
	}
	partial := b.file.Name()
	found, err := CheckBackup(ctx, partial)
	if err != nil {
		return Backup{}, err
	}
	if err := b.settle(partial); err != nil {
		return Backup{}, fmt.Errorf("naming the backup: %w", err)
	}
	return found, syncDirectory(filepath.Dir(b.name))
}

// settle never overwrites what has come to the name meanwhile, unless it may.
func (b *BackupFile) settle(partial string) error {
	if b.replace {
		return os.Rename(partial, b.name)
	}
	if err := os.Link(partial, b.name); err != nil {
		return err
	}
	return os.Remove(partial)
}

// Close removes what has not become a backup.
func (b *BackupFile) Close() error {
	if partial := b.name + partialSuffix; isNamed(b.file, partial) {
		_ = os.Remove(partial)
	}
	return b.file.Close()
}
