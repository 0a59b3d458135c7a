package clustertest

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A clock is the wall clock of one running process, which can be set. Programs
// read the time from a page of code that the kernel maps into each process
// (vdso(7)); a few instructions written over its clock_gettime add an offset,
// for that process alone, to CLOCK_REALTIME alone. A library that is loaded
// before others cannot do that to a static binary, and a time namespace has no
// wall clock of its own.
type clock struct {
	pid      int
	function int64  // where clock_gettime is
	original []byte // what stood there
}

// offsetSize is that of the code of offsetBy.
const offsetSize = 19

// offsetBy is a clock_gettime that is so many seconds ahead.
func offsetBy(seconds int32) []byte {
	n := uint32(seconds)
	return []byte{
		0xb8, 0xe4, 0x00, 0x00, 0x00, // mov eax, 228 (clock_gettime)
		0x0f, 0x05, // syscall
		0x85, 0xff, // test edi, edi (0 is CLOCK_REALTIME)
		0x75, 0x07, // jnz to the ret
		0x48, 0x81, 0x06, // add qword [rsi], the seconds
		byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24),
		0xc3, // ret
	}
}

// clockOf finds the clock of a process.
func clockOf(pid int) (*clock, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, fmt.Errorf("looking for the vDSO: %w", err)
	}
	var from, to int64
	for line := range strings.Lines(string(maps)) {
		if strings.HasSuffix(strings.TrimSpace(line), "[vdso]") {
			if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err != nil {
				return nil, fmt.Errorf("reading where the vDSO is: %w", err)
			}
		}
	}
	image := make([]byte, to-from)
	if err := atMemory(pid, os.O_RDONLY, func(memory *os.File) (int, error) { return memory.ReadAt(image, from) }); err != nil {
		return nil, fmt.Errorf("reading the vDSO: %w", err)
	}
	function, err := functionIn(image)
	if err != nil {
		return nil, err
	}
	return &clock{pid, from + function, bytes.Clone(image[function : function+offsetSize])}, nil
}

func functionIn(image []byte) (int64, error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, fmt.Errorf("reading the vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return 0, fmt.Errorf("reading the symbols of the vDSO: %w", err)
	}
	for _, s := range symbols {
		if s.Name == "__vdso_clock_gettime" && s.Size > offsetSize && s.Value < math.MaxInt32 {
			return int64(s.Value), nil
		}
	}
	return 0, errors.New("the vDSO has no clock_gettime")
}

// set has the clock be so far ahead, or behind, from now on; zero sets it
// right. Whoever is just reading it is let out first.
func (c *clock) set(ahead time.Duration) error {
	code := c.original
	if ahead != 0 {
		code = offsetBy(int32(ahead.Seconds()))
	}
	for range 1000 {
		if err := syscall.Kill(c.pid, syscall.SIGSTOP); err != nil {
			return err
		}
		busy := c.isRead()
		var err error
		if !busy {
			err = atMemory(c.pid, os.O_WRONLY, func(memory *os.File) (int, error) { return memory.WriteAt(code, c.function) })
		}
		if err := errors.Join(err, syscall.Kill(c.pid, syscall.SIGCONT)); err != nil || !busy {
			return err
		}
	}
	return errors.New("the clock is always being read")
}

// isRead reports whether a thread is within what is to be written over, or
// cannot be asked.
func (c *clock) isRead() bool {
	for range 100 { // until all threads have halted
		time.Sleep(time.Millisecond)
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/syscall", c.pid))
		if err != nil {
			return true
		}
		halted := true
		for _, thread := range threads {
			text, err := os.ReadFile(thread)
			fields := strings.Fields(string(text))
			if err != nil || len(fields) < 2 || fields[0] == "running" {
				halted = false
				break
			}
			var at int64
			if _, err := fmt.Sscanf(fields[len(fields)-1], "0x%x", &at); err != nil || at >= c.function && at < c.function+offsetSize {
				return true
			}
		}
		if halted {
			return false
		}
	}
	return true
}

func atMemory(pid, flag int, do func(*os.File) (int, error)) error {
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", pid), flag, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	_, err = do(memory)
	return err
}
