//go:build unix

package clustertest

import (
	"bytes"
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

// caddyfile is that of each node.
const caddyfile = `{
	admin 127.0.0.1:%d
	warder {
		store postgres {env.WARDER_POSTGRES} {
			pool_size %d
		}
		master_key {env.WARDER_MASTER_KEY}
		max_staleness %s
		issuer http://localhost:8080 {
			token_ttl 2h
		}
	}
}
http://127.0.0.1:%d {
	warder_issuer
	warder
	reverse_proxy %s
}
`

// poolSize is how many connections a node has at most, beside the one that
// listens.
const poolSize = 6

// A node is a sidecar: a Caddyfile with ports of its own, a link to the
// database, and the process that runs with them now.
type node struct {
	t      testing.TB
	index  int
	binary string
	dir    string
	env    []string
	link   *link

	gate, admin int

	cmd  *exec.Cmd
	log  *output       // of all its processes
	done chan struct{} // closed when the process has ended
}

// newNode makes a node that does not run yet.
func newNode(t testing.TB, index int, c *cluster, l *link) *node {
	t.Helper()
	n := &node{t: t, index: index, binary: binary(t), dir: t.TempDir(), link: l, gate: freePort(t), admin: freePort(t), log: new(output)}
	n.env = []string{"WARDER_POSTGRES=" + c.databaseAt(l), "WARDER_MASTER_KEY=" + c.masterKey}
	text := fmt.Sprintf(caddyfile, n.admin, poolSize, c.bound, n.gate, c.upstream)
	if err := os.WriteFile(filepath.Join(n.dir, "Caddyfile"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kill()
		n.checkLog()
	})
	return n
}

// freePort returns a port below those that outgoing connections get, so that
// none of them takes it before it is used.
func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 20000 + rand.IntN(12000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

// start starts the node and returns when it serves.
func (n *node) start() {
	n.t.Helper()
	n.launch()
	n.awaitServing()
}

// launch starts the node and does not wait.
func (n *node) launch() {
	n.t.Helper()
	n.cmd = exec.Command(n.binary, "run", "--config", "Caddyfile")
	n.cmd.Dir = n.dir
	n.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + n.dir, "XDG_CONFIG_HOME=" + filepath.Join(n.dir, "config"), "XDG_DATA_HOME=" + filepath.Join(n.dir, "data"),
	}, n.env...)
	n.cmd.SysProcAttr = new(syscall.SysProcAttr)
	noOrphan(n.cmd.SysProcAttr)
	n.log.begin()
	n.cmd.Stdout, n.cmd.Stderr = n.log, n.log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	cmd, done := n.cmd, make(chan struct{})
	n.done = done
	go func() {
		_ = cmd.Wait() // the exit code is in its ProcessState
		close(done)
	}()
}

const serving = "serving initial configuration"

func (n *node) awaitServing() {
	n.t.Helper()
	await(n.t, fmt.Sprintf("node %d to serve", n.index), func() bool {
		if !n.running() {
			n.t.Fatalf("node %d does not start:\n%s", n.index, n.log)
		}
		return n.log.has(serving)
	})
}

func (n *node) running() bool {
	if n.done == nil {
		return false
	}
	select {
	case <-n.done:
		return false
	default:
		return true
	}
}

// kill ends the process as a loss of power would, if it runs.
func (n *node) kill() {
	if n.running() {
		_ = n.cmd.Process.Kill()
		<-n.done
	}
}

// stop ends the process in order.
func (n *node) stop() {
	n.t.Helper()
	n.signal(os.Interrupt)
	select {
	case <-n.done:
	case <-time.After(patience):
		n.t.Fatalf("node %d does not stop:\n%s", n.index, n.log)
	}
}

func (n *node) signal(s os.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// freeze halts the process: what it was asked it answers when it is thawed.
func (n *node) freeze() { n.t.Helper(); n.signal(syscall.SIGSTOP) }
func (n *node) thaw()   { n.t.Helper(); n.signal(syscall.SIGCONT) }

// checkLog looks for what no process may ever say.
func (n *node) checkLog() {
	for _, word := range []string{"panic", "DATA RACE", "fatal error", "level\":\"dpanic"} {
		if n.log.everHad(word) {
			n.t.Errorf("the log of node %d speaks of %q", n.index, word)
		}
	}
	if n.t.Failed() {
		n.t.Logf("the end of the log of node %d:\n%s", n.index, n.log.tail())
	}
}

// output collects what the processes of a node write.
type output struct {
	mu   sync.Mutex // guards what follows
	text bytes.Buffer
	from int // where the text of the process that runs now begins
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) begin() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.from = o.text.Len()
}

// String returns what the last process wrote.
func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.text.Bytes()[o.from:])
}

func (o *output) has(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Contains(o.text.Bytes()[o.from:], []byte(text))
}

func (o *output) everHad(text string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Contains(o.text.Bytes(), []byte(text))
}

func (o *output) tail() string {
	lines := strings.Split(strings.TrimSpace(o.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}
