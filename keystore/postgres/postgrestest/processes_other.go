//go:build unix && !linux

package postgrestest

import (
	"bytes"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// childrenOf returns the processes that pid started.
func childrenOf(pid int) ([]int, error) {
	out, err := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
	if err != nil {
		return nil, err
	}
	var children []int
	for line := range bytes.Lines(out) {
		var child, parent int
		if _, err := fmt.Sscan(string(line), &child, &parent); err != nil {
			return nil, err
		}
		if parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// alive reports whether a process can still do anything.
func alive(pid int) bool {
	state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !bytes.HasPrefix(bytes.TrimSpace(state), []byte("Z"))
}

// cpuOf is not known here.
func cpuOf(int) time.Duration { return 0 }
