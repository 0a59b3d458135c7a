//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Servers run on one core, and all that they are asked by, or ask, on another.
const (
	serverCore = "0"
	clientCore = "1"
)

// A process is a server that is measured. It ends with this program.
type process struct {
	title string
	cmd   *exec.Cmd
	port  int
	log   string // the file that holds what it said
}

// start starts a program on a core and returns when it accepts connections on
// port.
func start(name, dir string, port int, core string, argv []string, env ...string) (*process, error) {
	p := &process{title: name, port: port, log: filepath.Join(dir, "log")}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = pinned(core, argv)
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, out, out
	p.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	if percent, set := os.LookupEnv("GOGC"); set {
		p.cmd.Env = append(p.cmd.Env, "GOGC="+percent)
	}
	p.cmd.Env = append(p.cmd.Env, env...)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, p.awaitPort()
}

// pinned prepares a command on one core.
func pinned(core string, argv []string) *exec.Cmd {
	cmd := exec.Command("taskset", append([]string{"-c", core}, argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (p *process) awaitPort() error {
	for range 3000 {
		conn, err := net.Dial("tcp", p.address())
		if err == nil {
			return conn.Close()
		}
		if err := p.cmd.Process.Signal(syscall.Signal(0)); err != nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	said, _ := os.ReadFile(p.log)
	p.kill()
	return fmt.Errorf("%s does not listen on %s:\n%s", p.title, p.address(), said)
}

func (p *process) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// stop ends the process as an operator would.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := p.cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil // some end by their own signal
	}
	return err
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()
}

// cpu returns the CPU time that the process and its workers have used.
func (p *process) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range family(p.cmd.Process.Pid) {
		d, err := cpuClock(pid)
		if err != nil {
			return 0, fmt.Errorf("reading the CPU clock of %s: %w", p.title, err)
		}
		sum += d
	}
	return sum, nil
}

// cpuClock reads the CPU clock of another process, in nanoseconds where
// /proc/PID/stat counts in hundredths of a second.
func cpuClock(pid int) (time.Duration, error) {
	const processClock = 2 // CPUCLOCK_SCHED of a whole process
	clock := uintptr(^pid<<3 | processClock)
	var t syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clock, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		return 0, errno
	}
	return time.Duration(t.Nano()), nil
}

// family returns a process and its children.
func family(pid int) []int {
	pids := []int{pid}
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)) // none, where there is no such file
	for _, field := range strings.Fields(string(children)) {
		if child, err := strconv.Atoi(field); err == nil {
			pids = append(pids, child)
		}
	}
	return pids
}

// memory is what a process holds, in bytes.
type memory struct {
	resident  int // with the pages of its file that are in memory
	anonymous int // of its own, which cannot be dropped
	peak      int // of resident
}

func (p *process) memory() (memory, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return memory{}, err
	}
	var m memory
	for line := range strings.Lines(string(text)) {
		field := strings.Fields(line)
		if len(field) < 2 {
			continue
		}
		kilobytes, _ := strconv.Atoi(field[1])
		switch field[0] {
		case "VmRSS:":
			m.resident = kilobytes << 10
		case "RssAnon:":
			m.anonymous = kilobytes << 10
		case "VmHWM:":
			m.peak = kilobytes << 10
		}
	}
	return m, nil
}

// freePort returns a port that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
