// Package main_test runs the binary itself, as people do: a process of its
// own, in a directory of its own, known only by its ports, files, log and
// exit code.
package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is what is tested: the one that WARDER_BINARY names, so that a run
// of everything builds it once, or one built here.
var binary string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	if binary = os.Getenv("WARDER_BINARY"); binary == "" {
		dir, err := os.MkdirTemp("", "warder")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "warder")
		build := exec.Command("go", "build", "-o", binary, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "building the binary: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}
