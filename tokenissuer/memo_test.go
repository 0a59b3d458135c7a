package tokenissuer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/warderhq/warder/keystore"
)

// remembered mints a token and returns it once the memo has its proof.
func remembered(t testing.TB, i *Issuer, p keystore.Principal, now time.Time) string {
	t.Helper()
	token := mint(t, i, p, now)
	if _, err := i.Verify(token, now); err != nil {
		t.Fatal(err)
	}
	i.keyring.memo.cache.Wait()
	if i.keyring.memo.find(token) == nil {
		t.Fatal("the memo does not remember")
	}
	return token
}

// proofless makes every signature fail: what passes, passes by the memo.
func proofless(n *node) {
	s := *n.keyring.current.Load()
	s.trusted = nil
	for _, key := range n.keyring.current.Load().trusted {
		broken := *key
		broken.verifier = failing{}
		s.trusted = append(s.trusted, &broken)
	}
	n.keyring.current.Store(&s)
}

type failing struct{}

func (failing) Verify([]byte, []byte, any) error { return errors.New("asked to verify") }

func TestMemoHit(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	issuer := n.issuer(t, IssuerConfig{})
	token := remembered(t, issuer, testPrincipal("a b"), now)
	unseen := mint(t, issuer, testPrincipal("a b"), now)
	proofless(n)
	claims, err := issuer.Verify(token, now)
	if err != nil || claims != (keystore.TokenClaims{Key: testPrincipal("").Record.ID, Generation: 3, Scopes: "a b"}) {
		t.Errorf("a hit: %+v, %v", claims, err)
	}
	_, err = issuer.Verify(unseen, now)
	wantError(t, "a miss", err, errTokenSignature)

	_, err = issuer.Verify(token, now.Add(DefaultTTL))
	wantError(t, "expired on a hit", err, keystore.ErrTokenExpired)
	if _, err = issuer.Verify(token, now); err != nil {
		t.Errorf("expiry is judged by the clock, not remembered: %v", err)
	}
}

func TestMemoHitDoesNotAllocate(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	issuer := n.issuer(t, IssuerConfig{})
	token := remembered(t, issuer, testPrincipal("a"), now)
	if allocs := testing.AllocsPerRun(2000, func() {
		if _, err := issuer.Verify(token, now); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("a hit allocates %v times", allocs)
	}
}

// Trust in the key is looked at on every hit.
func TestMemoHitOfADistrustedKey(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	issuer := n.issuer(t, IssuerConfig{})
	token := remembered(t, issuer, testPrincipal("a"), now)
	if _, err := n.rotation.RotateEmergency(context.Background(), operator, now); err != nil {
		t.Fatal(err)
	}
	if n.keyring.memo.find(token) == nil {
		t.Fatal("the memo has forgotten: the test proves nothing")
	}
	_, err := issuer.Verify(token, now)
	wantError(t, "a hit", err, errTokenHeader)
}

// Issuers share one memo and are not confused by it.
func TestMemoCrossTalk(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	configs := []IssuerConfig{
		{}, {Audience: "https://api.example"}, {URL: "https://other.example"},
		{URL: "https://other.example", Audience: testIssuer}, {URL: testIssuer + "/"},
	}
	var issuers []*Issuer
	for _, cfg := range configs {
		issuers = append(issuers, n.issuer(t, cfg))
	}
	for a, minter := range issuers {
		token := remembered(t, minter, testPrincipal("a"), now)
		for b, verifier := range issuers {
			if _, err := verifier.Verify(token, now); (err == nil) != (a == b) {
				t.Errorf("minted by %+v, verified by %+v: %v", configs[a], configs[b], err)
			}
		}
	}
}

// The entry is compared entirely: the hash only says where to look.
func TestMemoComparesTheWholeToken(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	issuer := n.issuer(t, IssuerConfig{})
	token := remembered(t, issuer, testPrincipal("a"), now)
	header, rest, _ := strings.Cut(token, ".")
	payload, signature, _ := strings.Cut(rest, ".")
	forged := header + "." + encode(strings.Replace(decode(t, payload), `"gen":3`, `"gen":4`, 1)) + "." + signature
	if n.keyring.memo.place(forged) != n.keyring.memo.place(token) {
		t.Fatal("the forged one is looked for elsewhere: the test proves nothing")
	}
	_, err := issuer.Verify(forged, now)
	wantError(t, "another payload in the same place", err, errTokenSignature)
}

// A proof is not tied to the buffer that it came in: a whole header, say.
// Two tokens may share a place among those found last. Only the whole token
// says which of them it is.
func TestRecentProofIsOfTheWholeToken(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	issuer := n.issuer(t, IssuerConfig{})
	mighty := remembered(t, issuer, testPrincipal("a b"), now)
	meek := mint(t, issuer, testPrincipal("a"), now)
	memo := n.keyring.memo
	memo.recent[memo.place(meek)>>(64-recentBits)].Store(memo.find(mighty))
	claims, err := issuer.Verify(meek, now)
	if err != nil || claims.Scopes != "a" {
		t.Errorf("one token is taken for another: %+v, %v", claims, err)
	}
}

func TestMemoOwnsItsStrings(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	issuer := n.issuer(t, IssuerConfig{})
	token := []byte(mint(t, issuer, testPrincipal("a"), now))
	shared := unsafe.String(&token[0], len(token))
	if _, err := issuer.Verify(shared, now); err != nil {
		t.Fatal(err)
	}
	n.keyring.memo.cache.Wait()
	kept := n.keyring.memo.find(shared)
	want := string(token)
	clear(token)
	if kept == nil || kept.token != want || kept.key != testPrincipal("").Record.ID || kept.scopes != "a" {
		t.Errorf("the proof changed with the buffer: %+v", kept)
	}
}

func TestMemoIsBounded(t *testing.T) {
	const limit = 64 << 10
	now := time.Now()
	n := newTestNode(t, nodeOptions{memo: limit})
	issuer := n.issuer(t, IssuerConfig{})
	for range 500 {
		if _, err := issuer.Verify(mint(t, issuer, testPrincipal("a"), now), now); err != nil {
			t.Fatal(err)
		}
	}
	n.keyring.memo.cache.Wait()
	size, entries := 0, 0
	n.keyring.memo.cache.IterValues(func(p *proof) bool {
		size, entries = size+len(p.token), entries+1
		return false
	})
	if size > limit || entries == 0 {
		t.Errorf("%d tokens with %d bytes in a memo of %d", entries, size, limit)
	}
}

// Bad tokens leave nothing behind.
func TestMemoKeepsNoBadToken(t *testing.T) {
	f := newForger(t, EdDSA)
	for i := range 1000 {
		bad := f.token[:len(f.token)-8] + encode(fmt.Sprintf("%06d", i))
		f.issuer.Verify(bad, f.now)
	}
	f.issuer.Verify(f.token, f.now.Add(time.Hour)) // expired
	f.keyring.memo.cache.Wait()
	f.keyring.memo.cache.IterValues(func(p *proof) bool {
		t.Errorf("remembered: %s", p.token)
		return true
	})
}

// Readers, rotations and emergencies at once: what is distrusted is never
// accepted by a call begun afterwards, what is trusted never refused.
func TestMemoUnderConcurrency(t *testing.T) {
	ctx := context.Background()
	start := time.Now()
	n := newTestNode(t, nodeOptions{now: start, memo: 32 << 10})
	issuer := n.issuer(t, IssuerConfig{})
	var (
		mu     sync.RWMutex // guards tokens: held over a whole emergency by the writer
		tokens []string
		stop   = make(chan struct{})
		group  sync.WaitGroup
	)
	refill := func() (old []string) {
		old, tokens = tokens, nil
		for range 32 {
			tokens = append(tokens, mint(t, issuer, testPrincipal("a"), start))
		}
		return old
	}
	refill()
	for range 4 {
		group.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				mu.RLock()
				if _, err := issuer.Verify(tokens[rand.IntN(len(tokens))], start); err != nil {
					t.Errorf("a trusted token: %v", err)
				}
				mu.RUnlock()
			}
		})
	}
	for range 30 {
		mu.Lock()
		if _, err := n.rotation.RotateEmergency(ctx, operator, start); err != nil {
			t.Error(err)
		}
		for _, token := range refill() {
			if _, err := issuer.Verify(token, start); !errors.Is(err, keystore.ErrInvalid) {
				t.Errorf("a distrusted token: %v", err)
			}
		}
		mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	close(stop)
	group.Wait()
}

// The memo's goroutines end with the last who could read it.
func TestMemoIsReleased(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 20 {
		m, err := newMemo(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		m.keep(newProof("a.b.c", &claims{}))
		m.find("a.b.c")
	}
	for range 200 {
		runtime.GC()
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines before, %d after", before, runtime.NumGoroutine())
}
