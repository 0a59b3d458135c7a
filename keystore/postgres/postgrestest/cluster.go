//go:build unix

package postgrestest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// A cluster is what PostgreSQL calls so: a directory of databases and the
// server on it.
type cluster struct {
	dir      string
	port     int
	password string // of the superuser
	settings []string
	guardian *guardian

	cmd  *exec.Cmd
	done chan struct{} // closed when cmd has ended; nil: never started
}

const superuser = "postgres"

// patience bounds every wait for a server. It is there to end what hangs, not
// to measure.
const patience = time.Minute

// newCluster makes a cluster that does not run yet.
func newCluster(o Options) (*cluster, error) {
	c, err := newDirectory(o)
	if err != nil {
		return nil, err
	}
	model, err := template()
	if err == nil {
		c.password = model.password
		err = copyData(model.data(), c.dir)
	}
	if err != nil {
		return nil, errors.Join(err, c.remove())
	}
	return c, nil
}

// newDirectory makes a cluster without data.
func newDirectory(o Options) (*cluster, error) {
	dir, err := ownedDirectory()
	if err != nil {
		return nil, fmt.Errorf("making a directory for PostgreSQL: %w", err)
	}
	g, err := newGuardian(dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	c := &cluster{dir: dir, settings: o.Settings, guardian: g}
	if c.port, err = freePort(); err != nil {
		return nil, errors.Join(err, c.remove())
	}
	return c, nil
}

// template never runs: making one takes a second, copying it a tenth of that.
var template = sync.OnceValues(func() (*cluster, error) {
	c, err := newDirectory(Options{})
	if err != nil {
		return nil, err
	}
	if err := c.initialize(); err != nil {
		return nil, errors.Join(err, c.remove())
	}
	return c, nil
})

func (c *cluster) initialize() error {
	c.password = rand.Text()
	file := filepath.Join(c.dir, "password")
	if err := writeOwned(file, c.password); err != nil {
		return fmt.Errorf("writing the superuser's password: %w", err)
	}
	return run(c.dir, "initdb", "--pgdata", c.data(), "--username", superuser, "--pwfile", file,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync")
}

func writeOwned(name, text string) error {
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		return err
	}
	as, err := account()
	if err != nil || as == nil {
		return err
	}
	return os.Chown(name, int(as.Uid), int(as.Gid))
}

// copyData copies a data directory as its owner would.
func copyData(data, into string) error {
	as, err := account()
	if err != nil {
		return err
	}
	cmd := exec.Command("cp", "-R", data, into)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	cmd.Dir = into
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copying a data directory: %w: %s", err, out)
	}
	return os.Chmod(filepath.Join(into, filepath.Base(data)), 0o700)
}

// freePort returns a port below those that outgoing connections get, so that
// none of them takes it before it is used.
func freePort() (int, error) {
	for range 1000 {
		n, err := rand.Int(rand.Reader, big.NewInt(12000))
		if err != nil {
			return 0, err
		}
		port := 20000 + int(n.Int64())
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}

func (c *cluster) data() string    { return filepath.Join(c.dir, "data") }
func (c *cluster) logFile() string { return filepath.Join(c.dir, "log") }

func (c *cluster) address() string { return fmt.Sprintf("127.0.0.1:%d", c.port) }

// url is the superuser's.
func (c *cluster) url() string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(superuser, c.password), Host: c.address(), Path: "/postgres", RawQuery: "sslmode=disable"}
	return u.String()
}

// start starts the server and returns when it answers.
func (c *cluster) start() error {
	if err := c.launch(); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c.ready() {
			return nil
		}
		if !c.running() {
			return fmt.Errorf("PostgreSQL does not start: %s", c.lastLines())
		}
	}
	return fmt.Errorf("PostgreSQL does not answer: %s", c.lastLines())
}

func (c *cluster) launch() error {
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of a server: %w", err)
	}
	defer log.Close() // the server has its own
	args := []string{"-D", c.data(), "-p", strconv.Itoa(c.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="}
	for _, setting := range slices.Concat(defaults, c.settings) {
		args = append(args, "-c", setting)
	}
	if c.cmd, err = program(context.Background(), c.dir, "postgres", args...); err != nil {
		return err
	}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("starting PostgreSQL: %w", err)
	}
	cmd, done := c.cmd, make(chan struct{})
	c.done = done
	go func() {
		_ = cmd.Wait() // how it ended stands in its log
		close(done)
	}()
	return nil
}

// defaults are for many small servers on one machine. What is not named is as
// everywhere: fsync above all.
var defaults = []string{"max_connections=400", "shared_buffers=32MB", "log_line_prefix=%m [%p] %a ", "wal_keep_size=128MB"}

func (c *cluster) running() bool {
	if c.done == nil {
		return false
	}
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

func (c *cluster) ready() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.url())
	if err != nil {
		return false
	}
	return conn.Close(ctx) == nil
}

// signal sends a signal to the server's main process.
func (c *cluster) signal(s syscall.Signal) error {
	if !c.running() {
		return errors.New("the server does not run")
	}
	return c.cmd.Process.Signal(s)
}

// stop ends the server by a signal and waits.
func (c *cluster) stop(s syscall.Signal) error {
	if err := c.signal(s); err != nil {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("PostgreSQL does not stop: %s", c.lastLines())
	}
}

// kill ends all of the server's processes as a loss of power would, and
// returns when none of them can answer any more. The main process is halted
// first, so that it starts no other.
func (c *cluster) kill() error {
	if err := c.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	all, err := c.processes()
	if err != nil {
		return err
	}
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
	}
	<-c.done
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if !slices.ContainsFunc(all, alive) {
			return nil
		}
	}
	return errors.New("a killed PostgreSQL goes on living")
}

// pause halts all processes. Connections stay, and nothing is answered.
func (c *cluster) pause() error {
	if err := c.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	all, err := c.processes()
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGSTOP) // it may have ended
	}
	return err
}

func (c *cluster) resume() error {
	all, err := c.processes()
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended
	}
	return err
}

// processes returns the server's main process and its children.
func (c *cluster) processes() ([]int, error) {
	main := c.cmd.Process.Pid
	children, err := childrenOf(main)
	if err != nil {
		return nil, fmt.Errorf("listing the processes of a server: %w", err)
	}
	return append([]int{main}, children...), nil
}

// remove ends the server and removes all that is left of it.
func (c *cluster) remove() error {
	if c.running() {
		_ = c.resume() // else the guardian has to wait until the halted ones are killed
	}
	err := c.guardian.act()
	if c.running() {
		_ = c.cmd.Process.Kill() // what did not heed the guardian
		<-c.done
	}
	return err
}

// lastLines returns the end of the server's log.
func (c *cluster) lastLines() string {
	text, err := os.ReadFile(c.logFile())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
