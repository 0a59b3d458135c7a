package tokenissuer

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/warderhq/warder/keystore"
)

const day = 24 * time.Hour

// remote verifies tokens somewhere else, by a copy of the JWKS that it keeps
// for as long as it may.
type remote struct {
	keys    jwk.Set
	fetched time.Time
}

func (v *remote) verify(t *testing.T, n *node, token string) error {
	t.Helper()
	if v.keys == nil || time.Since(v.fetched) >= jwksMaxAge {
		var err error
		if v.keys, err = jwk.Parse(n.keyring.current.Load().jwks); err != nil {
			t.Fatal(err)
		}
		v.fetched = time.Now()
	}
	_, err := jwt.Parse([]byte(token), jwt.WithKeySet(v.keys), jwt.WithValidate(true))
	return err
}

// Over years of planned rotations, and rotations at any moment in between, a
// verifier with a copy of the JWKS as old as allowed accepts every token from
// its minting to its end, and so do two nodes.
func TestNoVerifierEverFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		store, secret := newMemoryStore(), keystore.NewStoreSecret()
		a := newNode(t, ctx, store, secret, nodeOptions{memo: -1, now: time.Now()})
		b := newNode(t, ctx, store, secret, nodeOptions{memo: -1, now: time.Now()})
		go a.rotation.Run(ctx)
		go b.rotation.Run(ctx)
		minter := a.issuer(t, IssuerConfig{TTL: MaximumTTL})
		verifier := b.issuer(t, IssuerConfig{})
		far := new(remote)
		kids := map[string]bool{}
		for round := range 3 * 365 / 2 {
			p := testPrincipal("a")
			if round%49 == 25 { // twice, so that the second meets a next key that nobody may know yet
				far.keys = nil
				if err := far.verify(t, a, mint(t, minter, p, time.Now())); err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if _, err := a.rotation.Rotate(ctx, operator, time.Now()); err != nil {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Second)
				}
			}
			token := mint(t, minter, p, time.Now())
			for _, wait := range []time.Duration{0, time.Second, jwksMaxAge - 2*time.Second, MaximumTTL - jwksMaxAge} {
				time.Sleep(wait)
				synctest.Wait()
				if err := far.verify(t, a, token); err != nil {
					t.Fatalf("round %d, %s after minting: far away: %v", round, wait, err)
				}
				if _, err := verifier.Verify(token, time.Now()); err != nil {
					t.Fatalf("round %d, %s after minting: on the other node: %v", round, wait, err)
				}
			}
			kids[a.keyring.current.Load().active.kid] = true
			if n := len(a.info(t).Keys); n > 5 {
				t.Fatalf("round %d: %d keys in the ring", round, n)
			}
			time.Sleep(day)
		}
		// 3 years in steps of 42 days, and twenty-two on request.
		if len(kids) < 26 || len(kids) > 60 {
			t.Errorf("%d keys have signed", len(kids))
		}
		if !slices.Equal(a.switched, b.switched) || len(a.switched) < len(kids)-1 {
			t.Errorf("%d switches seen here, %d there, %d keys", len(a.switched), len(b.switched), len(kids))
		}
		cancel()
	})
}

func TestPlannedRotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		began := time.Now()
		n := newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), nodeOptions{memo: -1, now: began})
		go n.rotation.Run(ctx)
		first := n.info(t)
		if len(first.Keys) != 2 || first.Interval != DefaultInterval || !first.RotatesAt.Equal(began.Add(42*day)) {
			t.Fatalf("the first ring: %+v", first)
		}
		time.Sleep(42*day - time.Second)
		synctest.Wait()
		if got := n.info(t); got.Keys[0].KID != first.Keys[0].KID {
			t.Fatal("rotated too early")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		second := n.info(t)
		if len(second.Keys) != 3 || second.Keys[0].KID != first.Keys[1].KID || second.Keys[2].KID != first.Keys[0].KID {
			t.Fatalf("next did not become active, or active not retired: %+v", second)
		}
		if !second.RotatesAt.Equal(began.Add(84 * day)) {
			t.Errorf("the next rotation is at %s", second.RotatesAt)
		}
		if !second.Keys[2].DropsAt.Equal(began.Add(49 * day)) {
			t.Errorf("the retired key is dropped at %s", second.Keys[2].DropsAt)
		}
		time.Sleep(7*day - time.Second)
		synctest.Wait()
		if len(n.info(t).Keys) != 3 {
			t.Error("the retired key was dropped too early")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if keys := n.info(t).Keys; len(keys) != 2 || keys[0].KID != second.Keys[0].KID {
			t.Errorf("the retired key was not dropped alone: %+v", keys)
		}
		cancel()
	})
}

func TestRotateNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		began := time.Now()
		n := newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), nodeOptions{memo: -1, now: began})
		go n.rotation.Run(ctx)
		first := n.info(t)

		time.Sleep(100 * time.Second) // next is too young yet
		done, err := n.rotation.Rotate(ctx, operator, time.Now())
		if err != nil || !done.Pending || done.KID != first.Keys[1].KID || !done.SignsAt.Equal(began.Add(300*time.Second)) {
			t.Fatalf("a rotation while next is young: %+v, %v", done, err)
		}
		if got := n.info(t); !got.Awaited.Equal(began.Add(100 * time.Second)) {
			t.Errorf("asked for at %s, says %s", began.Add(100*time.Second), got.Awaited)
		}
		again, err := n.rotation.Rotate(ctx, operator, time.Now())
		if err != nil || again != done {
			t.Errorf("asked twice: %+v, %v", again, err)
		}
		time.Sleep(199 * time.Second)
		synctest.Wait()
		if n.info(t).Keys[0].KID != first.Keys[0].KID {
			t.Error("signs before its time")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		second := n.info(t)
		if second.Keys[0].KID != first.Keys[1].KID || !second.Awaited.IsZero() || !second.RotatesAt.Equal(began.Add(300*time.Second+42*day)) {
			t.Fatalf("the rotation at its time: %+v", second)
		}

		time.Sleep(10 * day)
		done, err = n.rotation.Rotate(ctx, operator, time.Now())
		if err != nil || done.Pending || done.KID != second.Keys[1].KID || !done.SignsAt.Equal(time.Now()) {
			t.Fatalf("a rotation while next is old enough: %+v, %v", done, err)
		}
		if got := n.info(t); got.Keys[0].KID != done.KID || got.Revision != done.Revision || !got.RotatesAt.Equal(time.Now().Add(42*day)) {
			t.Errorf("after the answer: %+v", got)
		}
		if !slices.Equal(n.switched, []string{second.Keys[0].KID, done.KID}) {
			t.Errorf("the hook was told %v", n.switched)
		}
		cancel()
	})
}

func TestRotatedTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		n := newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), nodeOptions{memo: -1, now: time.Now()})
		for range maxRetired {
			time.Sleep(jwksMaxAge)
			if _, err := n.rotation.Rotate(ctx, operator, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(jwksMaxAge)
		_, err := n.rotation.Rotate(ctx, operator, time.Now())
		wantError(t, "one too many", err, ErrRotatedTooOften)
		time.Sleep(retiredLife)
		if _, err := n.rotation.Rotate(ctx, operator, time.Now()); err != nil {
			t.Errorf("a week later: %v", err)
		}
		cancel()
	})
}

// From the answer on, nothing of the old ring passes, seen before or not.
func TestEmergency(t *testing.T) {
	ctx := context.Background()
	start := time.Now().Add(-50 * day)
	n := newTestNode(t, nodeOptions{now: start})
	issuer := n.issuer(t, IssuerConfig{TTL: MaximumTTL})
	now := start.Add(time.Hour)
	retired := remembered(t, issuer, testPrincipal("a"), now)
	if _, err := n.rotation.Rotate(ctx, operator, now); err != nil {
		t.Fatal(err)
	}
	warm, cold := remembered(t, issuer, testPrincipal("a"), now), mint(t, issuer, testPrincipal("a"), now)
	before := n.info(t)
	for _, token := range []string{retired, warm} {
		if _, err := issuer.Verify(token, now); err != nil {
			t.Fatal(err)
		}
	}

	done, err := n.rotation.RotateEmergency(ctx, operator, now)
	if err != nil || done.Pending {
		t.Fatalf("emergency: %+v, %v", done, err)
	}
	for what, token := range map[string]string{"retired": retired, "seen before": warm, "never seen": cold} {
		_, err := issuer.Verify(token, now)
		wantError(t, what, err, keystore.ErrInvalid)
	}
	after := n.info(t)
	for _, k := range after.Keys {
		for _, old := range before.Keys {
			if k.KID == old.KID {
				t.Errorf("%s is still trusted", k.KID)
			}
		}
	}
	if len(after.Keys) != 2 || after.Keys[0].KID != done.KID {
		t.Errorf("after the emergency: %+v", after)
	}
	if _, err := issuer.Verify(mint(t, issuer, testPrincipal("a"), now), now); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
}

// The answer comes only after this node has applied the change.
func TestAnswerAwaitsTheFeed(t *testing.T) {
	ctx := context.Background()
	n := newTestNode(t, nodeOptions{now: time.Now()})
	late := errors.New("this node does not follow")
	n.rotation.cfg.Follower = awaiterFunc(func(context.Context, keystore.Revision) error { return late })
	_, err := n.rotation.RotateEmergency(ctx, operator, time.Now())
	wantError(t, "emergency", err, late)
	_, err = n.rotation.Rotate(ctx, operator, time.Now())
	wantError(t, "rotate", err, late)
	_, err = n.rotation.SetInterval(ctx, operator, 30, time.Now())
	wantError(t, "set interval", err, late)
	wantError(t, "what is committed", err, keystore.ErrNotInForce)
}

type awaiterFunc func(context.Context, keystore.Revision) error

func (f awaiterFunc) Await(ctx context.Context, r keystore.Revision) error { return f(ctx, r) }
func (awaiterFunc) Wake()                                                  {}

// lostAnswers commits and then fails, as a connection does that breaks between.
type lostAnswers struct{ *memoryStore }

func (s lostAnswers) Transact(ctx context.Context, fn func(keystore.Tx) error) (keystore.Revision, error) {
	_, err := s.memoryStore.Transact(ctx, fn)
	return 0, cmp.Or(err, keystore.ErrUnavailable)
}

// What was committed is in force, though who asked for it was told that it
// failed, and though nothing else makes this node look.
func TestLostAnswerOfARotation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		n := newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), nodeOptions{memo: -1, now: time.Now()})
		issuer := n.issuer(t, IssuerConfig{})
		token := mint(t, issuer, testPrincipal("a"), time.Now())
		n.store.followers = nil
		n.rotation.cfg.Store = lostAnswers{n.store}
		_, err := n.rotation.RotateEmergency(ctx, operator, time.Now())
		wantError(t, "emergency", err, keystore.ErrUnavailable)
		synctest.Wait()
		_, err = issuer.Verify(token, time.Now())
		wantError(t, "a token from before", err, keystore.ErrInvalid)
		cancel()
	})
}

// Two nodes find the same rotation due: one swaps, the other sees it.
func TestTwoNodesRace(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	start := time.Now()
	store, secret := newMemoryStore(), keystore.NewStoreSecret()
	a := newNode(t, ctx, store, secret, nodeOptions{memo: -1, now: start})
	b := newNode(t, ctx, store, secret, nodeOptions{memo: -1, now: start})
	for round := 1; round <= 50; round++ {
		was, now := store.ringRevision(), start.Add(time.Duration(round)*43*day)
		errs := make(chan error, 2)
		for _, n := range []*node{a, b} {
			go func() { errs <- n.rotation.step(ctx, now) }()
		}
		if err := errors.Join(<-errs, <-errs); err != nil {
			t.Fatal(err)
		}
		is := store.ringRevision()
		if is != was+1 {
			t.Fatalf("round %d: the ring changed %d times", round, is-was)
		}
		for _, n := range []*node{a, b} {
			if err := n.follower.Await(ctx, is); err != nil {
				t.Fatal(err)
			}
		}
		if x, y := a.info(t), b.info(t); x.Keys[0].KID != y.Keys[0].KID {
			t.Fatalf("round %d: two active keys", round)
		}
	}
}

// What this node knows is old: it does not act on it, whatever the rules
// would say about the ring that is stored.
func TestLostRaceChangesNothing(t *testing.T) {
	ctx := context.Background()
	n := newTestNode(t, nodeOptions{now: time.Now()})
	stale := *n.keyring.current.Load()
	if _, err := n.rotation.SetInterval(ctx, operator, 21, time.Now()); err != nil {
		t.Fatal(err)
	}
	n.keyring.replace(&stale)
	store := n.rotation.cfg.Store.(*memoryStore)
	was := store.ringRevision()
	if err := n.rotation.step(ctx, time.Now().Add(100*day)); err != nil {
		t.Fatal(err)
	}
	if is := store.ringRevision(); is != was {
		t.Errorf("revision %d became %d", was, is)
	}
}

// A transaction that runs twice changes the ring once.
func TestTransactRunsTwice(t *testing.T) {
	ctx := context.Background()
	n := newTestNode(t, nodeOptions{now: time.Now()})
	store := n.rotation.cfg.Store.(*memoryStore)
	store.before = func() {}
	before := n.info(t)
	done, err := n.rotation.Rotate(ctx, operator, time.Now().Add(day))
	if err != nil || done.KID != before.Keys[1].KID || len(n.info(t).Keys) != 3 {
		t.Errorf("%+v, %v, %+v", done, err, n.info(t))
	}
}

func TestSetInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		began := time.Now()
		n := newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), nodeOptions{memo: -1, now: began})
		go n.rotation.Run(ctx)
		for _, days := range []keystore.Days{-1, 0, 20, 366} {
			_, err := n.rotation.SetInterval(ctx, operator, days, time.Now())
			var field *keystore.FieldError
			if !errors.As(err, &field) {
				t.Errorf("%d days: %v", days, err)
			}
		}
		set := func(days keystore.Days, want time.Time) {
			t.Helper()
			before := n.info(t)
			if _, err := n.rotation.SetInterval(ctx, operator, days, time.Now()); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			after := n.info(t)
			if after.Keys[0].KID != before.Keys[0].KID {
				t.Errorf("%d days: it rotated", days)
			}
			if after.Interval != days || !after.RotatesAt.Equal(want) {
				t.Errorf("%d days: rotates at %s, want %s", days, after.RotatesAt, want)
			}
		}
		set(365, began.Add(365*day))
		time.Sleep(100 * day)
		revision := n.info(t).Revision
		set(365, began.Add(365*day))
		if n.info(t).Revision != revision {
			t.Error("the same interval again is a change")
		}
		set(200, began.Add(200*day))
		set(21, time.Now().Add(day)) // overdue, yet not at once
		time.Sleep(day)
		synctest.Wait()
		if n.info(t).Keys[0].Activated.Equal(began) {
			t.Error("it did not rotate a day later")
		}
		if _, err := n.rotation.Rotate(ctx, operator, time.Now()); err != nil { // pending
			t.Fatal(err)
		}
		set(100, time.Now().Add(jwksMaxAge))
	})
}

// The policy is for keys made from now on; existing ones keep theirs.
func TestAlgorithmPolicy(t *testing.T) {
	ctx := context.Background()
	start := time.Now()
	n := newTestNode(t, nodeOptions{now: start})
	issuer := n.issuer(t, IssuerConfig{})
	n.rotation.SetAlgorithm(ES256)
	token := mint(t, issuer, testPrincipal(""), start)
	for _, want := range []string{"EdDSA", "ES256"} {
		start = start.Add(time.Hour)
		if _, err := n.rotation.Rotate(ctx, operator, start); err != nil {
			t.Fatal(err)
		}
		if got := n.info(t).Keys[0].Algorithm; got != want {
			t.Errorf("signs with %s, want %s", got, want)
		}
	}
	later, err := NewIssuer(IssuerConfig{Keyring: n.keyring, URL: testIssuer})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := later.Verify(token, start.Add(-2*time.Hour)); err != nil {
		t.Errorf("a token of the retired key: %v", err)
	}
	if _, err := later.Verify(mint(t, later, testPrincipal(""), start), start); err != nil {
		t.Errorf("a token of the new key: %v", err)
	}
}

// Run survives a store that fails, says so, and rotates once it is back.
func TestRunRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		store := newMemoryStore()
		n := newNode(t, ctx, store, keystore.NewStoreSecret(), nodeOptions{memo: -1, now: time.Now()})
		failures := 0
		n.rotation.cfg.Failed = func(err error) {
			failures++
			wantError(t, "reported", err, keystore.ErrUnavailable)
		}
		first := n.info(t).Keys[0].KID
		store.failing = keystore.ErrUnavailable
		go n.rotation.Run(ctx)
		time.Sleep(42*day + 10*time.Minute)
		synctest.Wait()
		if failures < 2 || failures > 40 {
			t.Errorf("%d failures in ten minutes", failures)
		}
		store.mu.Lock()
		store.failing = nil
		store.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n.info(t).Keys[0].KID == first {
			t.Error("it never rotated")
		}
		cancel()
	})
}
