//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// A load asks a server at a fixed rate, whether it answers in time or not: an
// open loop. A request that has to wait for the answer to the one before it on
// the same connection is counted from the time when it was due.
type load struct {
	address     string
	rate        float64 // requests a second, all connections together
	connections int
	requests    int // all connections together; 0: as many as fit the duration
	duration    time.Duration
	want        int // the status; another one is an error

	// request returns the n-th request of a connection, valid until the next.
	request func(connection, n int) []byte
}

// answers are what became of a load.
type answers struct {
	latencies []sample // in the order of their being due
	failed    int
}

type sample struct {
	due     time.Duration // since the load began
	latency time.Duration
}

// run sends the load. Each connection is a thread that blocks in the kernel, so
// that neither Go's scheduler nor its timers stand between clock and socket.
func (l load) run() (answers, error) {
	if l.requests == 0 {
		l.requests = int(l.rate * l.duration.Seconds())
	}
	runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), l.connections+4))
	var (
		sending sync.WaitGroup
		all     = make([]answers, l.connections)
		errs    = make([]error, l.connections)
		begun   = time.Now().Add(10 * time.Millisecond)
	)
	for i := range l.connections {
		sending.Go(func() { all[i], errs[i] = l.send(i, begun) })
	}
	sending.Wait()
	var sum answers
	for i := range all {
		if errs[i] != nil {
			return answers{}, fmt.Errorf("asking %s: %w", l.address, errs[i])
		}
		sum.latencies = append(sum.latencies, all[i].latencies...)
		sum.failed += all[i].failed
	}
	slices.SortFunc(sum.latencies, func(a, b sample) int { return int(a.due - b.due) })
	return sum, nil
}

func (l load) send(connection int, begun time.Time) (answers, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	sharpTimer()
	c, err := dial(l.address)
	if err != nil {
		return answers{}, err
	}
	defer c.close()
	share := l.requests / l.connections
	gap := time.Duration(float64(time.Second) * float64(l.connections) / l.rate)
	due := gap * time.Duration(connection) / time.Duration(l.connections)
	a := answers{latencies: make([]sample, 0, share)}
	for n := range share {
		text := l.request(connection, n)
		from := due
		if early := due - time.Since(begun); early > 0 {
			pause(early)
			from = time.Since(begun) // what the timer was late is not the server's fault
		}
		status, err := c.ask(text)
		if err != nil {
			return answers{}, err
		}
		if status != l.want {
			a.failed++
		}
		a.latencies = append(a.latencies, sample{due, time.Since(begun) - from})
		due += gap
	}
	return a, nil
}

// since returns the latencies of what was due in a part of the load.
func (a answers) since(from, to time.Duration) []time.Duration {
	var part []time.Duration
	for _, s := range a.latencies {
		if from <= s.due && s.due < to {
			part = append(part, s.latency)
		}
	}
	return part
}

func (a answers) all() []time.Duration { return a.since(0, 1<<62) }

// A connection asks in the simplest way that there is.
type connection struct {
	fd     int
	buffer []byte
}

func dial(address string) (*connection, error) {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &connection{fd, make([]byte, 16<<10)}
	limit := syscall.NsecToTimeval(int64(10 * time.Second))
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()})
	if err == nil {
		err = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	}
	if err == nil {
		err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &limit)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *connection) close() { _ = syscall.Close(c.fd) }

// ask sends a request and reads its answer, which has to say how long it is.
func (c *connection) ask(request []byte) (status int, err error) {
	if _, err := syscall.Write(c.fd, request); err != nil {
		return 0, err
	}
	held := 0
	for {
		n, err := syscall.Read(c.fd, c.buffer[held:])
		if errors.Is(err, syscall.EINTR) {
			continue // a signal of Go's scheduler; a read with a time-out is not taken up again by itself
		}
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, fmt.Errorf("hung up after %q", c.buffer[:held])
		}
		held += n
		if status, whole := answer(c.buffer[:held]); whole {
			return status, nil
		}
	}
}

var (
	endOfHeader   = []byte("\r\n\r\n")
	contentLength = []byte("\r\nContent-Length: ")
)

// answer reports the status of what was read, and whether that is a whole answer.
func answer(text []byte) (status int, whole bool) {
	header, body, ok := bytes.Cut(text, endOfHeader)
	if !ok || len(header) < len("HTTP/1.1 200") {
		return 0, false
	}
	length := 0
	if at := indexFold(header, contentLength); at >= 0 {
		line, _, _ := bytes.Cut(header[at+len(contentLength):], []byte("\r\n"))
		length, _ = strconv.Atoi(string(line))
	}
	status, _ = strconv.Atoi(string(header[9:12]))
	return status, len(body) >= length
}

// indexFold is bytes.Index for names of headers, which some servers write small.
func indexFold(text, name []byte) int {
	for i := 0; i+len(name) <= len(text); i++ {
		if text[i] == name[0] && bytes.EqualFold(text[i:i+len(name)], name) {
			return i
		}
	}
	return -1
}

// sharpTimer asks the kernel not to gather the sleeps of this thread.
func sharpTimer() {
	const setTimerSlack = 29 // PR_SET_TIMERSLACK
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, setTimerSlack, 1, 0)
}

func pause(d time.Duration) {
	t := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&t, nil) // woken early, it asks early
}
