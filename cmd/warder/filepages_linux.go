package main

import (
	"debug/elf"
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
	if err != nil || !loadedAsWritten(program) {
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

// loadedAsWritten reports whether nobody has changed what was loaded of the
// program, as a dynamic loader or a program that may lie anywhere does before
// it protects that from writing: such pages would come back without the change.
func loadedAsWritten(program string) bool {
	file, err := elf.Open(program)
	if err != nil {
		return false
	}
	defer file.Close()
	for _, part := range file.Progs {
		if part.Type == elf.PT_INTERP || part.Type == elf.PT_GNU_RELRO || part.Type == elf.PT_DYNAMIC {
			return false
		}
	}
	return file.Type == elf.ET_EXEC
}
