package postgrestest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
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
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, 0
	}
	// The name before may hold anything, a parenthesis too.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	parent, _ = strconv.Atoi(string(fields[1]))
	return fields[0][0], parent
}
