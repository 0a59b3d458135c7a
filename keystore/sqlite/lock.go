//go:build unix

package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/warderhq/warder/keystore"
)

// A fileLock says that this process, and in it one Store, owns the database.
// It is an flock on a file beside the database: the system lets go of it when
// the process ends, however it ends. The file stays, for removing it could
// take the lock of whoever opened it in between.
type fileLock struct{ file *os.File }

const lockSuffix = ".lock"

func acquireLock(path string) (*fileLock, error) {
	file, err := os.OpenFile(path+lockSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of %s: %w", path, err)
	}
	if err := flock(file); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("opening %s: %w: %s has it", path, keystore.ErrStoreInUse, ownerOf(file))
		}
		return nil, fmt.Errorf("locking %s%s: %w", path, lockSuffix, err)
	}
	if err := signLock(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("writing the lock of %s: %w", path, err)
	}
	return &fileLock{file}, nil
}

func (l *fileLock) release() error { return l.file.Close() }

func flock(file *os.File) error {
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// signLock leaves the owner's pid for the error of whoever comes second.
func signLock(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// ownerOf is for people: the owner may be just about to write its pid.
func ownerOf(file *os.File) string {
	text, _ := io.ReadAll(io.NewSectionReader(file, 0, 32))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return "another process"
	}
	return "process " + strconv.Itoa(pid)
}

func chownLike(f *os.File, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(st.Uid), int(st.Gid))
	}
	return nil
}

// hardLinks returns how many names a file has. SQLite names the write-ahead
// log after the name it was opened by: two names would mean two logs.
func hardLinks(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}
