package tokenissuer

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func TestGuesses(t *testing.T) {
	start := time.Now()
	s := NewGuesses()
	peer, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	try := newGuess(peer, goodAccess)
	for i := range guessBurst {
		if wait := s.wait(try, start); wait != 0 {
			t.Fatalf("the attempt after %d failures waits %s", i, wait)
		}
		s.failed(try, start)
	}
	if wait := s.wait(try, start); wait != guessInterval {
		t.Errorf("after %d failures: wait %s, want %s", guessBurst, wait, guessInterval)
	}
	for what, free := range map[string]guess{
		"another peer": newGuess(other, goodAccess), "another key": newGuess(peer, "OldOldOldOldOldOldOldO"), "no key": newGuess(peer, ""),
	} {
		if wait := s.wait(free, start); wait != 0 {
			t.Errorf("%s waits %s", what, wait)
		}
	}
	at := start.Add(guessInterval)
	for range 5 { // then one failure at a time
		if wait := s.wait(try, at); wait != 0 {
			t.Fatalf("at %s: wait %s", at.Sub(start), wait)
		}
		s.failed(try, at)
		if wait := s.wait(try, at.Add(guessInterval-time.Nanosecond)); wait == 0 {
			t.Fatal("two failures within one interval")
		}
		at = at.Add(guessInterval)
	}
	for range 1000 { // those that were under way together
		s.failed(try, at)
	}
	if wait := s.wait(try, at); wait != guessDebt-(guessBurst-1)*guessInterval {
		t.Errorf("the debt is bounded, and yet %s", wait)
	}
	if wait := s.wait(try, at.Add(-time.Hour)); wait > guessDebt {
		t.Errorf("a clock that was set back locks out for %s", wait)
	}
	if wait := s.wait(try, at.Add(guessDebt)); wait != 0 {
		t.Errorf("when all is paid: wait %s", wait)
	}
}

// Whoever has one address of an IPv6 network has all of it, and one address
// has one spelling.
func TestGuessesNamePeersByNetwork(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		a, b := newGuess(netip.MustParseAddr(c.a), goodAccess), newGuess(netip.MustParseAddr(c.b), goodAccess)
		if (a == b) != c.same {
			t.Errorf("%s and %s: the same %v, want %v", c.a, c.b, a == b, c.same)
		}
	}
}

func TestGuessesAreBounded(t *testing.T) {
	s := NewGuesses()
	now := time.Now()
	peer := netip.MustParseAddr("192.0.2.1")
	for i := range maxGuesses + 100 {
		s.failed(guess{peer, digestOf(fmt.Sprint(i))}, now)
	}
	if got := s.buckets.Len(); got != maxGuesses {
		t.Errorf("%d are remembered", got)
	}
}

// At each endpoint failures end in 429, for this peer and this key only, the
// right secret included; from elsewhere the owner never waits.
func TestGuessingIsBounded(t *testing.T) {
	for _, path := range []string{"/token", "/introspect", "/revoke"} {
		for _, inBody := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, in the body %v", path, inBody), func(t *testing.T) { boundedGuessing(t, path, inBody) })
		}
	}
}

func boundedGuessing(t *testing.T, path string, inBody bool) {
	peer := netip.MustParseAddr("192.0.2.1")
	s := newServer(t, IssuerConfig{}, EndpointsConfig{Peer: func(*http.Request) netip.Addr { return peer }})
	try := func(access, secret string) (*http.Response, string) {
		c := call{target: path, headers: []string{"Content-Type: " + form}, body: "grant_type=client_credentials&token=x"}
		if inBody {
			c.body += "&client_id=" + access + "&client_secret=" + secret
		} else {
			c.headers = append(c.headers, "Authorization: "+basic(access, secret))
		}
		return s.do(t, c)
	}
	for range guessBurst {
		if resp, body := try(goodAccess, wrongSecret); resp.StatusCode != 401 {
			t.Fatalf("wrong: %d %s", resp.StatusCode, body)
		}
	}
	for _, secret := range []string{wrongSecret, goodSecret} {
		resp, body := try(goodAccess, secret)
		if after := resp.Header.Get("Retry-After"); resp.StatusCode != 429 || after != "6" {
			t.Errorf("too often: %d, Retry-After %q: %s", resp.StatusCode, after, body)
		}
		if o := s.lastObservation(); o.Outcome != OutcomeTooMany || o.Key != "" {
			t.Errorf("observed %+v", o)
		}
	}
	if resp, body := try("OldOldOldOldOldOldOldO", wrongSecret); resp.StatusCode != 401 {
		t.Errorf("another key from the same address: %d %s", resp.StatusCode, body)
	}
	peer = netip.MustParseAddr("192.0.2.2")
	for range 3 * guessBurst {
		if resp, body := try(goodAccess, goodSecret); resp.StatusCode != 200 {
			t.Fatalf("the owner from elsewhere: %d %s", resp.StatusCode, body)
		}
	}
}
