//go:build unix

package clustertest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// echo answers each line with its name and that line.
func echo(t *testing.T, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintf(c, "%s %s\n", name, lines.Text())
				}
			}()
		}
	}()
	return l.Addr().String()
}

type caller struct {
	t *testing.T
	net.Conn
	lines *bufio.Reader
}

func call(t *testing.T, l *link) *caller {
	t.Helper()
	c, err := dial(t, l)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func dial(t *testing.T, l *link) (*caller, error) {
	c, err := net.Dial("tcp", l.address())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return &caller{t, c, bufio.NewReader(c)}, nil
}

// say sends a line and returns the answer that comes within a while.
func (c *caller) say(line string, within time.Duration) (string, error) {
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	return c.hear(within)
}

func (c *caller) hear(within time.Duration) (string, error) {
	_ = c.SetReadDeadline(time.Now().Add(within))
	return c.lines.ReadString('\n')
}

func (c *caller) expect(line, want string) {
	c.t.Helper()
	if got, err := c.say(line, patience); got != want+"\n" {
		c.t.Fatalf("%q %v, want %q", got, err, want)
	}
}

func TestLink(t *testing.T) {
	l := newLink(t, echo(t, "first"))
	c := call(t, l)
	c.expect("hello", "first hello")
	l.lead(echo(t, "second"))
	c.expect("again", "first again")
	call(t, l).expect("hello", "second hello")
}

func TestLinkIsSlow(t *testing.T) {
	l := newLink(t, echo(t, "store"))
	c := call(t, l)
	c.expect("hello", "store hello")
	l.toStore.slow(30*time.Millisecond, 0)
	l.toNode.slow(0, 1)
	began := time.Now()
	c.expect("hello", "store hello")
	if took := time.Since(began); took < 230*time.Millisecond {
		t.Errorf("it took %v there and back", took)
	}
}

func TestLinkIsCut(t *testing.T) {
	l := newLink(t, echo(t, "store"))
	c := call(t, l)
	c.expect("hello", "store hello")
	l.cut()
	if _, err := c.hear(patience); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("a connection that was cut: %v", err)
	}
	if c, err := dial(t, l); err == nil { // it may be reset before it is there
		if _, err := c.say("hello", patience); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a new connection: %v", err)
		}
	}
	l.heal()
	call(t, l).expect("hello", "store hello")
}

func TestLinkIsSilent(t *testing.T) {
	for _, there := range []bool{true, false} {
		l := newLink(t, echo(t, "store"))
		c := call(t, l)
		c.expect("hello", "store hello")
		l.swallow(there, !there)
		later := call(t, l)
		for _, c := range []*caller{c, later} {
			if got, err := c.say("anybody?", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%q %v", got, err)
			}
		}
		l.heal()
		for _, c := range []*caller{c, later} {
			if got, err := c.hear(patience); got != "store anybody?\n" {
				t.Errorf("after it healed: %q %v", got, err)
			}
		}
	}
}
