package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait for a process. It is there to end what hangs,
// not to measure.
const patience = 60 * time.Second

// A site is one installation: a directory with a Caddyfile, ports that are
// free, and a home for what Caddy keeps, all below one temporary directory.
type site struct {
	t   testing.TB
	dir string // where the processes run; the binary lies there as ./warder

	gate, demo, admin int

	env  []string // of every process, beyond the least
	user *syscall.Credential
}

// example returns the Caddyfile that newcomers start from.
func example(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "Caddyfile.example"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// edit replaces text that must be there exactly once.
func edit(t testing.TB, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if strings.Count(text, pairs[i]) != 1 {
			t.Fatalf("%q is %d times in:\n%s", pairs[i], strings.Count(text, pairs[i]), text)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

// newSite makes a site with a Caddyfile written for the ports 8080 and 9000.
func newSite(t testing.TB, caddyfile string) *site {
	t.Helper()
	s := &site{t: t, dir: filepath.Join(t.TempDir(), "site")}
	for _, dir := range []string{"site", "home/config", "home/data"} {
		if err := os.MkdirAll(filepath.Join(filepath.Dir(s.dir), dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(binary, s.path("warder")); err != nil {
		t.Fatal(err)
	}
	s.gate, s.demo, s.admin = freePort(t), freePort(t), freePort(t)
	s.configure(caddyfile)
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) home() string { return filepath.Join(filepath.Dir(s.dir), "home") }

// onPorts rewrites the ports of text to the site's own.
func (s *site) onPorts(text string) string {
	return strings.NewReplacer("8080", fmt.Sprint(s.gate), "9000", fmt.Sprint(s.demo)).Replace(text)
}

func (s *site) configure(caddyfile string) {
	s.t.Helper()
	s.write("Caddyfile", s.onPorts(caddyfile))
}

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// givenPorts are those that freePort has returned. Caddy would let two of its
// servers share one.
var givenPorts sync.Map

// freePort returns a port below those that outgoing connections get, so that
// none of them takes it before it is used, and another each time.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			continue
		}
		l.Close()
		if _, given := givenPorts.LoadOrStore(port, true); !given {
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// command prepares a process of the site. Its default admin endpoint is the
// site's, so that neither Caddyfile nor commands have to name one.
func (s *site) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + s.home(),
		"XDG_CONFIG_HOME=" + filepath.Join(s.home(), "config"),
		"XDG_DATA_HOME=" + filepath.Join(s.home(), "data"),
		fmt.Sprintf("CADDY_ADMIN=127.0.0.1:%d", s.admin),
	}, s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user}
	noOrphan(cmd.SysProcAttr)
	cmd.WaitDelay = time.Second
	return cmd
}

// ended is what is left of a process.
type ended struct {
	code           int
	stdout, stderr string
}

// lastLine is the last thing that the process said.
func (e ended) lastLine() string {
	lines := strings.Split(strings.TrimSpace(e.stderr), "\n")
	return lines[len(lines)-1]
}

// run runs a program to its end.
func (s *site) run(name string, args ...string) ended {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("running %s %q: %v", name, args, err)
	}
	if ctx.Err() != nil {
		s.t.Fatalf("%s %q did not end:\n%s", name, args, stderr.String())
	}
	return ended{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// warder runs the binary to its end.
func (s *site) warder(args ...string) ended {
	s.t.Helper()
	return s.run("./warder", args...)
}

// A server is one running process of a site.
type server struct {
	*site
	cmd  *exec.Cmd
	log  *output
	done chan struct{} // closed when the process has ended
}

const serving = "serving initial configuration"

// start starts the site and returns when it serves.
func (s *site) start() *server {
	s.t.Helper()
	v := s.launch()
	if !v.awaitLog(serving) {
		s.t.Fatalf("it does not serve:\n%s", v.log)
	}
	return v
}

// launch starts the site and does not wait. The end of the test ends it.
func (s *site) launch() *server {
	s.t.Helper()
	return s.launchProgram("./warder", "run", "--config", "Caddyfile")
}

// launchProgram starts a program of the site and does not wait.
func (s *site) launchProgram(name string, args ...string) *server {
	s.t.Helper()
	v := &server{site: s, log: new(output), done: make(chan struct{})}
	v.cmd = s.command(context.Background(), name, args...)
	v.cmd.Stdout, v.cmd.Stderr = v.log, v.log
	if err := v.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = v.cmd.Wait() // the exit code is in its ProcessState
		close(v.done)
	}()
	s.t.Cleanup(v.kill)
	return v
}

// kill ends the process as a loss of power would, if it still runs.
func (v *server) kill() {
	_ = v.cmd.Process.Kill()
	<-v.done
}

// interrupt is Ctrl-C. It returns the exit code.
func (v *server) interrupt() int {
	v.t.Helper()
	if err := v.cmd.Process.Signal(os.Interrupt); err != nil {
		v.t.Fatal(err)
	}
	return v.exitCode()
}

// exitCode waits for the end of the process.
func (v *server) exitCode() int {
	v.t.Helper()
	select {
	case <-v.done:
		return v.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		v.t.Fatalf("it does not stop:\n%s", v.log)
		return 0
	}
}

// running reports whether the process has not ended.
func (v *server) running() bool {
	select {
	case <-v.done:
		return false
	default:
		return true
	}
}

// awaitLog waits until the log holds text, as long as the process runs.
func (v *server) awaitLog(text string) bool {
	return await(func() bool { return v.log.has(text) || !v.running() }) && v.log.has(text)
}

// await waits for what another process brings about.
func await(happened func() bool) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if happened() {
			return true
		}
	}
	return false
}

// output collects what a running process writes.
type output struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) has(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Contains(o.text.Bytes(), []byte(text))
}
