package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// dropFilePages takes the pages of the program's own file out of this process.
// Nothing is lost: what is still needed comes back from the page cache, page by
// page, and what only the start needed, half of a large program, no longer
// counts as memory of a small container.
// Where the kernel does not tell or does not obey, they stay.
func dropFilePages() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	mappings, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(mappings)) {
		field := strings.Fields(line) // range, rights, offset, device, inode, file
		if len(field) != 6 || field[5] != program || strings.Contains(field[1], "w") {
			continue // what may have been written would be lost
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(field[0], "%x-%x", &from, &to); err != nil {
			return
		}
		_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED)
	}
}
