package main

import (
	"os"
	"regexp"
	"strconv"
	"testing"
)

var filePages = regexp.MustCompile(`RssFile:\s+(\d+) kB`)

func residentFile(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	found := filePages.FindSubmatch(status)
	if found == nil {
		t.Skipf("this kernel does not tell the pages of files:\n%s", status)
	}
	kilobytes, _ := strconv.Atoi(string(found[1]))
	return kilobytes
}

// TestDropFilePages: what is dropped is gone, and comes back when it is asked for.
func TestDropFilePages(t *testing.T) {
	if program, err := os.Executable(); err != nil || !loadedAsWritten(program) {
		t.Skip("this build is linked dynamically, and keeps its pages; the image's is not")
	}
	before := residentFile(t)
	dropFilePages()
	after := residentFile(t)
	t.Logf("%d kB of files, then %d kB", before, after)
	if after >= before {
		t.Errorf("%d kB of files are still there, of %d kB", after, before)
	}
}
