//go:build unix

package clustertest

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestClock: the clock of another process goes wrong and right again, and no
// other does.
func TestClock(t *testing.T) {
	const inner = "WARDER_CLUSTERTEST_CLOCK"
	if os.Getenv(inner) != "" {
		for start := time.Now(); ; time.Sleep(time.Millisecond) {
			now := time.Now()
			fmt.Println(now.Unix(), now.Sub(start).Milliseconds())
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestClock$")
	cmd.Env = append(os.Environ(), inner+"=1")
	cmd.SysProcAttr = new(syscall.SysProcAttr)
	noOrphan(cmd.SysProcAttr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(out)
	lines.Scan()
	c, err := clockOf(cmd.Process.Pid)
	if err != nil {
		t.Skip(err)
	}
	told := clockTeller{t: t, lines: lines}
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
		if err := c.set(ahead); err != nil {
			t.Fatal(err)
		}
		want := time.Now().Add(ahead).Unix()
		for wall := told.next(); wall < want || wall > want+int64(patience.Seconds()); wall = told.next() {
			if time.Now().Add(ahead).Unix() > want+int64(patience.Seconds()) {
				t.Fatalf("its clock does not go %v ahead", ahead)
			}
		}
	}
}

// A clockTeller reads what a process says of its clocks.
type clockTeller struct {
	t     *testing.T
	lines *bufio.Scanner
	last  int64
}

// next returns the wall time that it tells next. Its monotonic time goes on.
func (c *clockTeller) next() (wall int64) {
	c.t.Helper()
	var monotonic int64
	if !c.lines.Scan() {
		c.t.Fatal("the process has ended")
	}
	if _, err := fmt.Sscan(c.lines.Text(), &wall, &monotonic); err != nil {
		c.t.Fatal(err)
	}
	if monotonic < c.last || monotonic > c.last+patience.Milliseconds() {
		c.t.Fatalf("its monotonic clock goes from %d to %d", c.last, monotonic)
	}
	c.last = monotonic
	return wall
}
