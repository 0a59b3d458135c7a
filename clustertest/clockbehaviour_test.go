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
	last := int64(0)
	for _, ahead := range []time.Duration{time.Hour, -time.Hour, 0} {
		if err := c.set(ahead); err != nil {
			t.Fatal(err)
		}
		want := time.Now().Add(ahead).Unix()
		await(t, fmt.Sprintf("a clock that is %v ahead", ahead), func() bool {
			var wall, monotonic int64
			if !lines.Scan() {
				t.Fatal("the process has ended")
			}
			if _, err := fmt.Sscan(lines.Text(), &wall, &monotonic); err != nil {
				t.Fatal(err)
			}
			if monotonic < last || monotonic > last+int64(patience/time.Millisecond) {
				t.Fatalf("its monotonic clock goes from %d to %d", last, monotonic)
			}
			last = monotonic
			return wall >= want && wall <= want+int64(patience/time.Second)
		})
	}
}
