package tokenissuer

import (
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/warderhq/warder/keystore"
)

// Guesses bounds how fast secrets can be guessed. Failures are counted by
// peer and access key together, so that nobody who fails elsewhere keeps the
// owner of a key waiting. It belongs to a process and outlives configurations.
// Safe for concurrent use.
type Guesses struct {
	mu      sync.Mutex // guards buckets
	buckets *simplelru.LRU[guess, time.Time]
}

// What may fail: guessBurst times at once, then once in each guessInterval.
// Calls that are under way together are all let in, but what fails of them is
// owed: up to as much again.
const (
	guessBurst    = 10
	guessInterval = 6 * time.Second
	guessDebt     = 2 * guessBurst * guessInterval

	// maxGuesses bounds the pairs that are remembered, those that failed last.
	maxGuesses = 16_384

	// guessNetwork is how much of an IPv6 address names a peer (RFC 6177):
	// whoever has one has the whole network.
	guessNetwork = 64
)

// guess is who tried which access key.
type guess struct {
	peer   netip.Addr
	access digest
}

// NewGuesses returns a memory in which nobody has failed.
func NewGuesses() *Guesses {
	buckets, err := simplelru.NewLRU[guess, time.Time](maxGuesses, nil)
	if err != nil {
		panic(err) // the size is positive, the only thing that it refuses
	}
	return &Guesses{buckets: buckets}
}

func newGuess(peer netip.Addr, access keystore.AccessKey) guess {
	peer = peer.Unmap().WithZone("")
	if peer.Is6() {
		if network, err := peer.Prefix(guessNetwork); err == nil {
			peer = network.Addr()
		}
	}
	return guess{peer, digestOf(string(access))}
}

// Wait returns how long peer has to wait at now before it may try a secret of
// access; zero: it may.
func (s *Guesses) Wait(peer netip.Addr, access keystore.AccessKey, now time.Time) time.Duration {
	return s.wait(newGuess(peer, access), now)
}

// Failed takes note that peer has tried a wrong secret of access at now.
func (s *Guesses) Failed(peer netip.Addr, access keystore.AccessKey, now time.Time) {
	s.failed(newGuess(peer, access), now)
}

// wait returns how long g has to wait at now before it may try; zero: it may.
func (s *Guesses) wait(g guess, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	paid, ok := s.buckets.Get(g)
	if !ok {
		return 0
	}
	debt := min(paid.Sub(now), guessDebt) // a clock that was set back does not lock anybody out
	return max(0, debt-(guessBurst-1)*guessInterval)
}

// failed takes note that g has failed at now. What a bucket holds is when all
// its failures will be paid for.
func (s *Guesses) failed(g guess, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	paid, _ := s.buckets.Get(g)
	if paid.Before(now) {
		paid = now
	}
	paid = paid.Add(guessInterval)
	if most := now.Add(guessDebt); paid.After(most) {
		paid = most
	}
	s.buckets.Add(g, paid)
}
