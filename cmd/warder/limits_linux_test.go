package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// limitedMemory is what a process under limits may have, beside a quarter of a
// CPU.
const limitedMemory = 64 << 20

// limits are a control group of their own. Without one, where this kernel or
// these rights give none, a process is held to its own memory limit alone.
type limits struct {
	t      *testing.T
	groups []string // empty: none
	peak   string   // the file that says how much memory was used at most
	pid    int
}

func newLimits(t *testing.T) *limits {
	t.Helper()
	l := &limits{t: t}
	err := l.make()
	if err != nil {
		t.Logf("SKIPPED: no limit of memory and CPU: %v", err)
		l.groups = nil
	}
	return l
}

// make makes a group in the one hierarchy of version 2, or in the two that
// matter of version 1.
func (l *limits) make() error {
	const root = "/sys/fs/cgroup"
	name := fmt.Sprintf("warder-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	controllers, err := os.ReadFile(root + "/cgroup.controllers")
	if err == nil && strings.Contains(string(controllers), "memory") {
		return l.makeGroup(filepath.Join(root, name), "memory.peak", map[string]string{
			"memory.max": strconv.Itoa(limitedMemory), "cpu.max": "25000 100000",
		})
	}
	if err := l.makeGroup(filepath.Join(root, "memory", name), "memory.max_usage_in_bytes", map[string]string{
		"memory.limit_in_bytes": strconv.Itoa(limitedMemory),
	}); err != nil {
		return err
	}
	return l.makeGroup(filepath.Join(root, "cpu", name), "", map[string]string{
		"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "25000",
	})
}

func (l *limits) makeGroup(dir, peak string, settings map[string]string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	l.t.Cleanup(func() { await(func() bool { return os.Remove(dir) == nil }) })
	for name, value := range settings {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o600); err != nil {
			return err
		}
	}
	l.groups = append(l.groups, dir)
	if peak != "" {
		l.peak = filepath.Join(dir, peak)
	}
	return nil
}

// hold puts a process that has just begun under the limits.
func (l *limits) hold(pid int) {
	l.t.Helper()
	l.pid = pid
	for _, dir := range l.groups {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
}

var memoryLimitLine = regexp.MustCompile(`"GOMEMLIMIT":(\d+)`)

// check demands that the runtime keeps to the limits by itself.
func (l *limits) check(v *server) {
	l.t.Helper()
	if l.groups == nil {
		return
	}
	set := memoryLimitLine.FindStringSubmatch(v.log.String())
	if set == nil {
		l.t.Fatalf("it does not say that its memory limit follows its group's:\n%s", v.log)
	}
	if n, err := strconv.Atoi(set[1]); err != nil || n >= limitedMemory {
		l.t.Errorf("its memory limit is %s of %d bytes: %v", set[1], limitedMemory, err)
	}
	contains(l.t, "the log", v.log.String(), "GOMAXPROCS=1")
}

// report says what was used.
func (l *limits) report() {
	if l.peak != "" {
		used, err := os.ReadFile(l.peak)
		l.t.Logf("memory of the group at most: %s bytes (%v)", strings.TrimSpace(string(used)), err)
	}
}

var residentLines = regexp.MustCompile(`(?m)^(VmHWM|VmRSS|RssAnon|RssFile):\s*(\d+) kB$`)

// residentMemory demands that what a process has of its own is less than half of
// the limit: pages of the program's file can be dropped.
func residentMemory(t *testing.T, pid int) string {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	lines := residentLines.FindAllStringSubmatch(string(status), -1)
	if len(lines) != 4 {
		t.Fatalf("no memory in:\n%s", status)
	}
	var said []string
	for _, line := range lines {
		if kB, _ := strconv.Atoi(line[2]); line[1] == "RssAnon" && kB<<10 > limitedMemory/2 {
			t.Errorf("%s", line[0])
		}
		said = append(said, line[0])
	}
	return strings.Join(said, "\n")
}

// listeningPorts are the TCP ports on which a process listens: true for those
// that other machines reach.
func listeningPorts(t *testing.T, pid int) map[int]bool {
	t.Helper()
	sockets := map[string]bool{}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, e.Name())) // may be closed by now
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			sockets[strings.TrimSuffix(inode, "]")] = true
		}
	}
	const listening, loopback = "0A", "0100007F" // 127.0.0.1
	ports := map[int]bool{}
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue // a kernel without IPv6
		}
		for line := range strings.Lines(string(text)) {
			field := strings.Fields(line)
			if len(field) < 10 || field[3] != listening || !sockets[field[9]] {
				continue
			}
			address, hex, _ := strings.Cut(field[1], ":")
			port, err := strconv.ParseInt(hex, 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			ports[int(port)] = address != loopback
		}
	}
	if len(ports) == 0 {
		t.Fatalf("process %d listens nowhere", pid)
	}
	return ports
}
