package main_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"
)

const (
	importedKeys = 10_000 // ten batches
	importKills  = 8
)

// TestImportKilled: client and server are killed while keys are imported,
// with a record and without. In the end each is there once.
func TestImportKilled(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	random := rand.New(rand.NewPCG(newSeed(t, "WARDER_IMPORT_SEED"), 0))
	s.write("keys.csv", csvOf(importedKeys))
	v := s.start()
	for n := range importKills {
		p := s.launchImport(n%4 != 3)
		time.Sleep(time.Duration(200+random.IntN(1000)) * time.Millisecond)
		if n%2 == 0 {
			p.kill()
			continue
		}
		v.kill()
		if code := p.wait(); code != 3 && code != 0 { // it had done all before
			t.Errorf("without its server the import ended with %d: %s", code, p.stderr.String())
		}
		v = s.start()
	}
	last := s.launchImport(true)
	if code := last.wait(); code != 0 || last.stderr.Len() > 0 {
		t.Fatalf("exit code %d: %s", code, last.stderr.String())
	}
	t.Log(strings.TrimSpace(last.stdout.String()))
	s.checkImported(importedKeys)
}

// csvOf is an export of another system.
func csvOf(n int) string {
	var b strings.Builder
	b.WriteString("credential,name,scopes\n")
	for i := range n {
		fmt.Fprintf(&b, "%s,n%d,hello:read\n", foreign(i), i)
	}
	return b.String()
}

func foreign(i int) string { return fmt.Sprintf("credential-of-another-system-%d", i) }

// An importer is one running import.
type importer struct {
	*site
	done           chan struct{} // closed when the process has ended
	kill           func()
	code           int
	stdout, stderr bytes.Buffer
}

func (s *site) launchImport(resume bool) *importer {
	s.t.Helper()
	input, err := os.Open(s.path("keys.csv"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer input.Close()
	args := []string{"import"}
	if resume {
		args = append(args, "--resume", "import.state")
	}
	p := &importer{site: s, done: make(chan struct{})}
	cmd := s.command(context.Background(), "./warder", args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, &p.stdout, &p.stderr
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // the exit code is in its ProcessState
		p.code = cmd.ProcessState.ExitCode()
		close(p.done)
	}()
	p.kill = func() {
		_ = cmd.Process.Kill()
		<-p.done
	}
	s.t.Cleanup(p.kill)
	return p
}

func (p *importer) wait() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.code
	case <-time.After(patience):
		p.t.Fatal("the import does not end")
		return 0
	}
}

// checkImported: each name is there once, and credentials pass at the gate.
func (s *site) checkImported(want int) {
	s.t.Helper()
	names := map[string]int{}
	for _, k := range s.keys() {
		names[k.Name]++
	}
	for i := range want {
		if n := names[fmt.Sprintf("n%d", i)]; n != 1 {
			s.t.Fatalf("key %d is there %d times", i, n)
		}
	}
	if len(names) != want {
		s.t.Errorf("%d keys, want %d", len(names), want)
	}
	for _, i := range []int{0, want / 2, want - 1} {
		s.expect(200, "Bearer "+foreign(i), "an imported credential")
	}
	s.expect(401, "Bearer "+foreign(want), "one that was not imported")
}
