package tokenissuer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/warderhq/warder/keystore"
)

// claimsOf reads a good token.
func claimsOf(t testing.TB, i *Issuer, token string) *claims {
	t.Helper()
	c, ok := i.read(token)
	if !ok {
		t.Fatal("not a token")
	}
	return &c
}

func revokeToken(t testing.TB, r *Revocations, i *Issuer, token string, now time.Time) {
	t.Helper()
	if err := r.revoke(context.Background(), claimsOf(t, i, token), operator, now); err != nil {
		t.Fatal(err)
	}
}

func (s *memoryStore) revocations() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.documents {
		if d.Kind == keystore.KindRevokedToken {
			n++
		}
	}
	return n
}

// A revoked token is refused from the return on, remembered or not, here, on
// the other node, and on one that starts later; no other token is.
func TestRevokedTokenIsRefused(t *testing.T) {
	now := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	store, secret := newMemoryStore(), keystore.NewStoreSecret()
	here := newNode(t, ctx, store, secret, nodeOptions{now: now})
	there := newNode(t, ctx, store, secret, nodeOptions{now: now})
	issuer, other := here.issuer(t, IssuerConfig{}), there.issuer(t, IssuerConfig{})
	warm, kept := remembered(t, issuer, testPrincipal("a"), now), remembered(t, issuer, testPrincipal("a"), now)
	cold := mint(t, issuer, testPrincipal("a"), now)
	remembered(t, other, testPrincipal("b"), now)
	if _, err := other.Verify(warm, now); err != nil {
		t.Fatal(err)
	}
	there.keyring.memo.cache.Wait()

	revocations := here.revocations(t, 0)
	for _, token := range []string{warm, cold} {
		revokeToken(t, revocations, issuer, token, now)
		revision := store.head()
		_, err := issuer.Verify(token, now)
		wantError(t, "revoked", err, keystore.ErrTokenRevoked)
		if err := there.follower.Await(ctx, revision); err != nil {
			t.Fatal(err)
		}
		_, err = other.Verify(token, now)
		wantError(t, "revoked, on the other node", err, keystore.ErrTokenRevoked)
	}
	if here.keyring.memo.find(warm) == nil || there.keyring.memo.find(warm) == nil {
		t.Error("the memo has forgotten: the test proves nothing")
	}
	late := newNode(t, ctx, store, secret, nodeOptions{now: now}).issuer(t, IssuerConfig{})
	for _, issuer := range []*Issuer{issuer, other, late} {
		if _, err := issuer.Verify(kept, now); err != nil {
			t.Errorf("a token of the same key: %v", err)
		}
		_, err := issuer.Verify(warm, now)
		wantError(t, "revoked", err, keystore.ErrTokenRevoked)
		_, err = issuer.Verify(warm, now.Add(DefaultTTL))
		wantError(t, "revoked and over", err, keystore.ErrTokenExpired)
	}
	before := store.head()
	revokeToken(t, revocations, issuer, warm, now)
	if store.head() != before {
		t.Error("revoking again is a change")
	}
}

func (s *memoryStore) head() keystore.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log[len(s.log)-1].Revision
}

func TestRevokedSetDoesNotAllocate(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	issuer := n.issuer(t, IssuerConfig{Resources: []string{"https://a.example", "https://b.example"}})
	revokeToken(t, n.revocations(t, 0), issuer, mint(t, issuer, testPrincipal("a"), now), now)
	for what, resources := range map[string][]string{"own audience": nil, "two resources": {"https://b.example", "https://a.example"}} {
		m, err := issuer.Mint(testPrincipal("a"), "a", now, resources...)
		if err != nil {
			t.Fatal(err)
		}
		token := m.Token.Reveal()
		if _, err := issuer.Verify(token, now); err != nil {
			t.Fatal(err)
		}
		n.keyring.memo.cache.Wait()
		if allocs := testing.AllocsPerRun(1000, func() {
			if _, err := issuer.Verify(token, now); err != nil {
				t.Fatal(err)
			}
		}); allocs != 0 {
			t.Errorf("%s: a hit beside a revoked token allocates %v times", what, allocs)
		}
	}
}

// What does not fit is refused, changes nothing, and fits once others are over
// everywhere.
func TestRevocationsAreBounded(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	n := newTestNode(t, nodeOptions{now: now})
	issuer := n.issuer(t, IssuerConfig{TTL: time.Minute})
	long := n.issuer(t, IssuerConfig{TTL: time.Hour})
	revocations := n.revocations(t, 3)
	for range 3 {
		revokeToken(t, revocations, issuer, mint(t, issuer, testPrincipal("a"), now), now)
	}
	token := mint(t, long, testPrincipal("a"), now)
	for _, at := range []time.Time{now, now.Add(time.Minute), now.Add(time.Minute + clockSkew - time.Second)} {
		before := n.store.head()
		err := revocations.revoke(context.Background(), claimsOf(t, long, token), operator, at)
		wantError(t, "one more than fit", err, ErrTooManyRevoked)
		wantError(t, "one more than fit", err, keystore.ErrUnavailable)
		if _, err := long.Verify(token, at); err != nil || n.store.head() != before {
			t.Errorf("what did not fit changed something: %v", err)
		}
	}
	at := now.Add(time.Minute + clockSkew)
	revokeToken(t, revocations, long, token, at)
	if got := n.store.revocations(); got != 1 {
		t.Errorf("%d are kept, want 1", got)
	}
	_, err := long.Verify(token, at)
	wantError(t, "the one that fits now", err, keystore.ErrTokenRevoked)
	if got := n.keyring.revoked.len(); got != 1 || revocations.pending != 0 {
		t.Errorf("%d in memory, %d pending", got, revocations.pending)
	}
}

// What is under way counts: however many come at once, no more than the limit
// are kept.
func TestRevocationsAtOnceAreBounded(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{now: now})
	revocations := n.revocations(t, 2)
	held := heldStore{n.store, make(chan struct{}), make(chan struct{})}
	revocations.cfg.Store = held
	revoke := func(jti string) error {
		return revocations.revoke(context.Background(), &claims{id: jti, subject: "key_a", expires: now.Unix() + 900}, operator, now)
	}
	var group sync.WaitGroup
	for _, jti := range []string{"a", "b"} {
		group.Go(func() {
			if err := revoke(jti); err != nil {
				t.Error(err)
			}
		})
	}
	<-held.entered
	<-held.entered
	done := make(chan error)
	go func() { done <- revoke("c") }()
	select {
	case err := <-done:
		wantError(t, "a third while two are under way", err, ErrTooManyRevoked)
		close(held.release)
	case <-held.entered:
		t.Error("a third was let in while two are under way")
		close(held.release)
		<-done
	}
	group.Wait()
	if got := n.store.revocations(); got != 2 {
		t.Errorf("%d are kept, want 2", got)
	}
}

// heldStore lets nobody write before it is released.
type heldStore struct {
	*memoryStore
	entered, release chan struct{}
}

func (s heldStore) Transact(ctx context.Context, fn func(keystore.Tx) error) (keystore.Revision, error) {
	s.entered <- struct{}{}
	<-s.release
	return s.memoryStore.Transact(ctx, fn)
}

// The loop lets go what is over, in batches, and keeps what a clock that is
// behind would still accept.
func TestRevocationsAreLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		now := time.Now()
		n := newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), nodeOptions{memo: -1, now: now})
		revocations := n.revocations(t, 0)
		go revocations.Run(ctx)
		const many = 2*pruneBatch + 1
		for i := range many {
			c := claims{id: fmt.Sprint("jti", i), subject: "key_a", expires: now.Add(time.Hour).Unix()}
			if err := revocations.revoke(ctx, &c, operator, now); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour + clockSkew - time.Second)
		synctest.Wait()
		if got := n.store.revocations(); got != many {
			t.Errorf("%d are kept, want %d", got, many)
		}
		time.Sleep(2 * pruneRest)
		synctest.Wait()
		if got := n.store.revocations(); got != 0 || n.keyring.revoked.len() != 0 {
			t.Errorf("%d are kept, %d in memory", got, n.keyring.revoked.len())
		}
		cancel()
	})
}

// A write whose answer got lost is looked for, and one that this node has not
// applied is no success.
func TestRevocationWithoutAnAnswer(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{now: now})
	issuer := n.issuer(t, IssuerConfig{})
	token := mint(t, issuer, testPrincipal("a"), now)
	revocations := n.revocations(t, 0)
	n.store.mu.Lock()
	n.store.failing = fmt.Errorf("writing: %w", keystore.ErrUnavailable)
	n.store.mu.Unlock()
	err := revocations.revoke(context.Background(), claimsOf(t, issuer, token), operator, now)
	wantError(t, "the store is down", err, keystore.ErrUnavailable)
	if revocations.pending != 0 {
		t.Error("the place is not given back")
	}
	n.store.mu.Lock()
	n.store.failing = nil
	n.store.mu.Unlock()
	woken := 0
	revocations.cfg.Follower = brokenFollower{woken: &woken}
	err = revocations.revoke(context.Background(), claimsOf(t, issuer, token), operator, now)
	wantError(t, "not applied", err, keystore.ErrUnavailable)
	revocations.cfg.Store = lossy{}
	err = revocations.revoke(context.Background(), &claims{id: "x", expires: 1}, operator, now)
	wantError(t, "the answer got lost", err, keystore.ErrUnavailable)
	if woken != 1 {
		t.Errorf("the follower was woken %d times", woken)
	}
}

type brokenFollower struct{ woken *int }

func (brokenFollower) Await(context.Context, keystore.Revision) error {
	return errors.New("not applied")
}
func (f brokenFollower) Wake() { *f.woken++ }

type lossy struct{}

func (lossy) Transact(context.Context, func(keystore.Tx) error) (keystore.Revision, error) {
	return 0, keystore.ErrUnavailable
}

// A document that says nothing ends all trust.
func TestUnreadableRevocation(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{now: now})
	issuer := n.issuer(t, IssuerConfig{})
	token := remembered(t, issuer, testPrincipal("a"), now)
	for _, body := range []string{"", "{", "{}", `{"expires_at":"soon"}`} {
		d := keystore.Document{Kind: keystore.KindRevokedToken, Name: "jti", Body: []byte(body)}
		err := n.keyring.Apply(keystore.Change{Kind: d.Kind, Name: d.Name, Document: &d}, 9)
		wantError(t, "applying "+body, err, keystore.ErrCorrupt)
		snapshot, err := n.store.Snapshot(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		snapshot.Documents = append(snapshot.Documents, d)
		wantError(t, "loading "+body, n.keyring.Reset(snapshot), keystore.ErrCorrupt)
		_, err = issuer.Verify(token, now)
		wantError(t, "verifying after "+body, err, keystore.ErrUnavailable)
	}
}

// BenchmarkTokenHitBesideRevoked is BenchmarkTokenHit with as many revoked
// tokens as there may be.
func BenchmarkTokenHitBesideRevoked(b *testing.B) {
	n := newTestNode(b, nodeOptions{})
	issuer := n.issuer(b, IssuerConfig{})
	now := time.Now()
	documents := make([]keystore.Document, MaximumRevoked)
	for i := range documents {
		documents[i] = keystore.Document{
			Kind: keystore.KindRevokedToken, Name: newTokenID(), Body: []byte(`{"key_id":"key_a","expires_at":4102444800}`),
		}
	}
	if err := n.keyring.revoked.reset(documents); err != nil {
		b.Fatal(err)
	}
	token := remembered(b, issuer, testPrincipal("hello:read"), now)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := issuer.Verify(token, now); err != nil {
			b.Fatal(err)
		}
	}
}
