//go:build unix

package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var errNoPrograms = errors.New("PostgreSQL is missing: neither PATH nor /usr/lib/postgresql has its programs")

// programTime bounds every program that ends by itself.
const programTime = 2 * time.Minute

// programDirectory is where PostgreSQL's programs are. Debian keeps those of a
// server, of each version, out of PATH.
var programDirectory = sync.OnceValues(func() (string, error) {
	if found, err := exec.LookPath("initdb"); err == nil {
		if found, err = filepath.EvalSymlinks(found); err == nil && isProgram(filepath.Join(filepath.Dir(found), "postgres")) {
			return filepath.Dir(found), nil
		}
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errNoPrograms
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return versionOf(a) - versionOf(b) })
	return filepath.Dir(newest), nil
})

func isProgram(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// versionOf returns 15 for /usr/lib/postgresql/15/bin/initdb.
func versionOf(initdb string) int {
	version, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(initdb)))) // 0 if it is no number
	return version
}

// account is whose processes the servers are: PostgreSQL refuses to be root's,
// so root runs it as postgres. Nil: as whoever runs the tests.
var account = sync.OnceValues(func() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	postgres, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("looking for whom to run PostgreSQL as: %w", err)
	}
	uid, err := strconv.ParseUint(postgres.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("reading the number of the user postgres: %w", err)
	}
	gid, err := strconv.ParseUint(postgres.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("reading the number of the group of postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
})

// program prepares one of PostgreSQL's programs, to run in dir.
func program(ctx context.Context, dir, name string, args ...string) (*exec.Cmd, error) {
	programs, err := programDirectory()
	if err != nil {
		return nil, err
	}
	as, err := account()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(programs, name), args...)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC", "HOME=" + dir}
	// A group of its own: Ctrl-C is for the tests, which then end it in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Setpgid: true}
	return cmd, nil
}

// run runs one of PostgreSQL's programs to its end.
func run(dir, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), programTime)
	defer cancel()
	cmd, err := program(ctx, dir, name, args...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// ownedDirectory makes a temporary directory that the servers' account owns.
func ownedDirectory() (string, error) {
	as, err := account()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "warder-postgres")
	if err != nil || as == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(as.Uid), int(as.Gid))
}
