package postgrestest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// childrenOf returns the processes that pid started.
func childrenOf(pid int) ([]int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, file := range files {
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, err
		}
		if _, parent := stateOf(child); parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// alive reports whether a process can still do anything.
func alive(pid int) bool {
	state, _ := stateOf(pid)
	return state != 0 && state != 'Z' && state != 'X'
}

// stateOf returns zeros for a process that is not there.
func stateOf(pid int) (state byte, parent int) {
	fields := statusOf(pid)
	if fields == nil {
		return 0, 0
	}
	parent, _ = strconv.Atoi(string(fields[1]))
	return fields[0][0], parent
}

// ticksPerSecond is what Linux counts in, whatever its clock does.
const ticksPerSecond = 100

// cpuOf returns how long a process has computed, and those that it waited for.
func cpuOf(pid int) time.Duration {
	fields := statusOf(pid)
	if fields == nil {
		return 0
	}
	ticks := 0
	for _, field := range fields[11:15] { // utime, stime, cutime, cstime
		n, _ := strconv.Atoi(string(field))
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// statusOf returns the fields of proc_pid_stat(5) from the state on, or nil.
func statusOf(pid int) [][]byte {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return nil
	}
	// The name before may hold anything, a parenthesis too.
	return bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
}
