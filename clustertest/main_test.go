//go:build unix

// Package clustertest runs several nodes on one PostgreSQL as people do: real
// processes of the binary, known only by what they answer, with load on each,
// and does to them and to the database all that happens in the life of a
// system. Every answer is kept, and judged by the promise (checker_test.go).
//
//	go test ./clustertest -cycles 1000       revocations of each kind
//	go test ./clustertest -faults 30m        faults, one at a time, at random
//	WARDER_FAULT_SEED=…                      the same faults in the same order
package clustertest

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var (
	cycles    = flag.Int("cycles", 6, "revocations of each operation and kind of credential")
	faultTime = flag.Duration("faults", 3*time.Minute, "how long faults happen")
)

// binary is what is tested: the one that WARDER_BINARY names, so that a run
// of everything builds it once, or one that the first test builds that needs
// it, in a directory that all share.
func binary(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("WARDER_BINARY"); path != "" {
		return path, nil
	}
	path := filepath.Join(shared, "warder")
	return path, build(path)
})

// shared is a directory of all tests.
var shared string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "warder")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	shared = dir
	return m.Run()
}

// build builds the binary without cgo and without a network.
func build(to string, flags ...string) error {
	args := append([]string{"build", "-o", to}, flags...)
	cmd := exec.Command("go", append(args, "../cmd/warder")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOPROXY=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the binary: %w\n%s", err, out)
	}
	return nil
}

// patience bounds every wait. It is there to end what hangs, not to measure.
const patience = time.Minute

// await waits for what another process brings about.
func await(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if happened() {
			return
		}
	}
	t.Fatalf("waiting for %s in vain", what)
}
