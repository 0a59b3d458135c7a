package main_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// flat is what a flood may add to the memory of a process that has seen a
// smaller one of the same kind.
const flat = 48 << 20

// An owner asks with a good key all the time, and is never refused.
type owner struct {
	stop  chan struct{}
	asked chan int
}

func (s *site) owner(k key) owner {
	o := owner{make(chan struct{}), make(chan int, 1)}
	go func() {
		n := 0
		defer func() { o.asked <- n }()
		for ; ; n++ {
			select {
			case <-o.stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			if got, err := s.knock("Token " + k.APIKey); err != nil || got.status != http.StatusOK {
				s.t.Errorf("the owner's request %d: %v %v", n, got, err)
				return
			}
		}
	}()
	return o
}

// done returns how often the owner asked.
func (o owner) done() int { close(o.stop); return <-o.asked }

var residentPattern = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// resident returns the memory that a process holds.
func resident(t *testing.T, v *server) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.cmd.Process.Pid))
	found := residentPattern.FindSubmatch(status)
	if err != nil || found == nil {
		t.Skipf("the memory of a process cannot be read here: %v", err)
	}
	kilobytes, _ := strconv.Atoi(string(found[1]))
	return kilobytes << 10
}

// TestFloods: floods cost the owner of a good key nothing but time, and leave
// no memory behind.
func TestFloods(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.env = append(s.env, "GOGC=100") // what it holds is asked for, not how much garbage it may let gather
	v := s.start()
	k := s.createKey()
	for _, flood := range []struct {
		name  string
		send  func(t *testing.T, s *site, n int)
		small int // to begin with, so that buffers and pools are there
		large int
	}{
		{"slow bodies", slowBodies, 50, 300},
		{"giant bodies", giantBodies, 0, 8}, // one that is kept would be seen
		{"bad credentials", badCredentials, 2000, 20000},
		{"bad clients at the token endpoint", badClients, 500, 5000},
	} {
		t.Run(flood.name, func(t *testing.T) {
			flood.send(t, s, flood.small)
			before := resident(t, v)
			o := s.owner(k)
			flood.send(t, s, flood.large)
			asked := o.done()
			grown := resident(t, v) - before
			t.Logf("%d MiB, then %+d KiB; the owner asked %d times", before>>20, grown>>10, asked)
			if grown > flat {
				t.Errorf("memory grew by %d MiB, more than %d", grown>>20, flat>>20)
			}
			if asked == 0 {
				t.Error("the owner never got through")
			}
		})
	}
	if code := v.interrupt(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// slowBodies opens n connections that promise a body and send next to nothing
// of it. The server ends each of them by itself.
func slowBodies(t *testing.T, s *site, n int) {
	var trickling sync.WaitGroup
	for range n {
		trickling.Go(func() {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.gate))
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience)) // cannot fail on an open connection
			fmt.Fprint(c, "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 16000\r\n\r\n")
			trickle(t, c)
		})
	}
	trickling.Wait()
}

// trickle sends a byte now and then until an answer comes.
func trickle(t *testing.T, c net.Conn) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if failure, ok := errors.AsType[net.Error](err); ok && failure.Timeout() {
			t.Error("a slow body was waited for without end")
		}
		if err == nil && resp.StatusCode/100 != 4 {
			t.Errorf("a slow body: %s", resp.Status)
		}
	}()
	for {
		select {
		case <-answered:
			return
		case <-time.After(200 * time.Millisecond):
			_, _ = c.Write([]byte("a")) // whether it was heard, the answer tells
		}
	}
}

// giantBodies sends n bodies of 64 MiB where a few hundred bytes are expected,
// and where no credential comes with them.
func giantBodies(t *testing.T, s *site, n int) {
	body := bytes.Repeat([]byte("a=b&"), 16<<20)
	for range n {
		for _, path := range []string{"/token", "/v1/hello"} {
			r, _ := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", s.gate, path), bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			resp, err := client.Do(r)
			if err != nil {
				continue // it hung up while being talked to
			}
			resp.Body.Close()
			if resp.StatusCode/100 != 4 {
				t.Errorf("a giant body for %s: %s", path, resp.Status)
			}
		}
	}
}

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func madeUp(n int) string {
	text := make([]byte, n)
	for i := range text {
		text[i] = alphanumeric[rand.IntN(len(alphanumeric))]
	}
	return string(text)
}

// eachOf does something n times from a few connections that are kept alive.
func eachOf(n int, do func(*http.Client)) {
	var sending sync.WaitGroup
	for range 8 {
		sending.Go(func() {
			c := &http.Client{Timeout: requestTimeout, Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			for range n / 8 {
				do(c)
			}
		})
	}
	sending.Wait()
}

// badCredentials asks n times with credentials that nobody ever made.
func badCredentials(t *testing.T, s *site, n int) {
	url := fmt.Sprintf("http://127.0.0.1:%d/v1/hello", s.gate)
	eachOf(n, func(c *http.Client) {
		got, err := send(c, http.MethodGet, url, "", "Authorization", "Token wdr_"+madeUp(22)+"_"+madeUp(49))
		if err != nil || got.status != http.StatusUnauthorized {
			t.Errorf("a bad credential: %v %v", got, err)
		}
	})
}

// badClients asks n times for a token with them.
func badClients(t *testing.T, s *site, n int) {
	url := fmt.Sprintf("http://127.0.0.1:%d/token", s.gate)
	eachOf(n, func(c *http.Client) {
		got, err := send(c, http.MethodPost, url, "grant_type=client_credentials", "Content-Type", "application/x-www-form-urlencoded",
			"Authorization", basic(key{AccessKey: madeUp(22), SecretKey: madeUp(49)}))
		if err != nil || got.status != http.StatusUnauthorized {
			t.Errorf("a bad client: %v %v", got, err)
		}
	})
}
