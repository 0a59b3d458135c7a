package tokenissuer

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
)

// A ring that does not open is an error, and nothing that was trusted before
// is trusted any more.
func TestUnopenableRing(t *testing.T) {
	now := time.Now()
	good := newTestNode(t, nodeOptions{now: now}).keyring
	sealed := func(secret keystore.StoreSecret, context, plain string) []byte {
		return secret.Seal(ringPurpose, context, []byte(plain))
	}
	ring := good.current.Load().ring
	ring.keys = nil
	for what, c := range map[string]struct {
		body []byte
		want error
	}{
		"empty":               {nil, keystore.ErrCorrupt},
		"garbage":             {bytes.Repeat([]byte{7}, 400), keystore.ErrCorrupt},
		"another secret":      {sealed(keystore.NewStoreSecret(), ringContext, "{}"), keystore.ErrCorrupt},
		"of another document": {sealed(good.secret, "signing_ring/other", "{}"), keystore.ErrCorrupt},
		"no JSON":             {sealed(good.secret, ringContext, "x"), keystore.ErrCorrupt},
		"no keys":             {sealed(good.secret, ringContext, `{"format":1,"interval_days":42,"rotate_at":1,"keys":[]}`), keystore.ErrCorrupt},
		"unknown member":      {sealed(good.secret, ringContext, `{"format":1,"x":1}`), keystore.ErrCorrupt},
		"newer":               {sealed(good.secret, ringContext, `{"format":2,"x":1}`), keystore.ErrNewerSchema},
	} {
		n := newTestNode(t, nodeOptions{now: now})
		n.keyring.secret = good.secret
		issuer := n.issuer(t, IssuerConfig{})
		token := mint(t, issuer, testPrincipal(""), now)
		d := keystore.Document{Kind: keystore.KindSigningRing, Name: ringDocument, Body: c.body, Revision: 9}
		wantError(t, what+": applied", n.keyring.Apply(keystore.Change{Kind: d.Kind, Name: d.Name, Document: &d}, 9), c.want)
		_, err := issuer.Verify(token, now)
		wantError(t, what+": verifying", err, keystore.ErrUnavailable)
		_, err = issuer.Mint(testPrincipal(""), "", now)
		wantError(t, what+": minting", err, keystore.ErrUnavailable)
		_, err = n.keyring.Info()
		wantError(t, what+": listing", err, keystore.ErrUnavailable)
		wantError(t, what+": loaded", n.keyring.Reset(keystore.Snapshot{Documents: []keystore.Document{d}}), c.want)
	}
}

// The start is refused over a ring that does not open; it is not replaced.
func TestEnsureTouchesNoRing(t *testing.T) {
	ctx := context.Background()
	n := newTestNode(t, nodeOptions{now: time.Now()})
	was := n.rotation.cfg.Store.(*memoryStore).ringRevision()
	if err := n.rotation.Ensure(ctx, time.Now()); err != nil {
		t.Errorf("over a good ring: %v", err)
	}
	n.keyring.secret = keystore.NewStoreSecret()
	wantError(t, "under another secret", n.rotation.Ensure(ctx, time.Now()), keystore.ErrCorrupt)
	_, err := n.rotation.Rotate(ctx, operator, time.Now())
	wantError(t, "rotate under another secret", err, keystore.ErrCorrupt)
	_, err = n.rotation.RotateEmergency(ctx, operator, time.Now())
	wantError(t, "emergency under another secret", err, keystore.ErrCorrupt)
	if is := n.rotation.cfg.Store.(*memoryStore).ringRevision(); is != was {
		t.Errorf("revision %d became %d", was, is)
	}
}

// Other changes leave the ring alone; without one, nothing is trusted.
func TestKeyringFollows(t *testing.T) {
	n := newTestNode(t, nodeOptions{now: time.Now()})
	before := n.keyring.current.Load()
	for _, c := range []keystore.Change{
		{Kind: keystore.KindKey, Name: ringDocument}, {Kind: "future", Name: ringDocument}, {Kind: keystore.KindSigningRing, Name: "other"},
	} {
		if err := n.keyring.Apply(c, 9); err != nil || n.keyring.current.Load() != before {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := n.keyring.Apply(keystore.Change{Kind: keystore.KindSigningRing, Name: ringDocument}, 9); err != nil {
		t.Error(err)
	}
	if _, err := n.keyring.Info(); err == nil {
		t.Error("a ring that is gone is still trusted")
	}
}

// Nothing that can be printed, listed or published holds private material.
func TestPrivateKeysDoNotShow(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256} {
		n := newTestNode(t, nodeOptions{algorithm: alg, now: time.Now()})
		s := n.keyring.current.Load()
		der, err := s.active.material()
		if err != nil {
			t.Fatal(err)
		}
		private := der[len(der)-32:]
		if alg == ES256 {
			private = der[36:68]
		}
		shown := asJSON(t, n.info(t)) + string(s.jwks) + asJSON(t, s.active) + asJSON(t, s.active.signingKey) +
			string(n.rotation.cfg.Store.(*memoryStore).log[1].Document.Body)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			for _, v := range []any{s.active, s.active.signingKey, &s.active.signingKey, s.ring, s.ring.keys, s.ring.keys[0]} {
				shown += fmt.Sprintf(verb, v)
			}
		}
		for _, spelling := range []string{
			string(private), fmt.Sprintf("%x", private), fmt.Sprintf("%v", private), strings.Trim(fmt.Sprintf("%d", private[:8]), "[]"),
			base64.StdEncoding.EncodeToString(private)[:40], base64.RawURLEncoding.EncodeToString(private)[:40],
		} {
			if strings.Contains(shown, spelling) {
				t.Errorf("%s: private material shows in %q", alg, shown)
			}
		}
		for _, member := range []string{`"d"`, `"k"`, `"p"`} {
			if strings.Contains(string(s.jwks), member) {
				t.Errorf("%s: the JWKS has the private member %s", alg, member)
			}
		}
		for _, k := range s.ring.keys {
			if k.private != nil {
				t.Errorf("%s: a reader's ring holds the private key %s", alg, k.kid)
			}
		}
	}
}

// The ring lives through a restart in a real database, and the other node's
// rotation in it arrives through the feed.
func TestRingInSQLite(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	path := filepath.Join(t.TempDir(), "warder.db")
	master, secret := keystore.NewMasterKey(), keystore.NewStoreSecret()
	now := time.Now()
	var token string
	var kids []string
	for run := range 3 {
		store, err := sqlite.Open(ctx, path, func() (keystore.SealedSecret, error) { return keystore.SealStoreSecret(master, secret) })
		if err != nil {
			t.Fatal(err)
		}
		keyring, err := NewKeyring(KeyringConfig{Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		follower := keystore.NewFollower(keystore.FollowerConfig{
			Store: store, Lease: new(keystore.Lease), Failed: func(err error) { t.Error(err) }, Appliers: []keystore.Applier{keyring},
		})
		rotation := NewRotation(RotationConfig{Keyring: keyring, Store: store, Follower: follower})
		if err := rotation.Ensure(ctx, now); err != nil {
			t.Fatal(err)
		}
		if err := follower.Start(ctx); err != nil {
			t.Fatal(err)
		}
		running, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() { follower.Run(running); close(ended) }()
		issuer, err := NewIssuer(IssuerConfig{Keyring: keyring, URL: testIssuer})
		if err != nil {
			t.Fatal(err)
		}
		if run == 0 {
			token = mint(t, issuer, testPrincipal("a"), now)
		}
		if _, err := issuer.Verify(token, now); err != nil {
			t.Errorf("run %d: %v", run, err)
		}
		if _, err := rotation.Rotate(ctx, operator, now.Add(time.Duration(run+1)*time.Hour)); err != nil {
			t.Fatal(err)
		}
		info, err := keyring.Info()
		if err != nil {
			t.Fatal(err)
		}
		kids = append(kids, info.Keys[0].KID)
		if len(info.Keys) != 3+run || (run > 0 && info.Keys[2].KID != kids[run-1]) {
			t.Errorf("run %d: %s", run, asJSON(t, info))
		}
		stop()
		<-ended
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRingInfoJSON(t *testing.T) {
	n := newTestNode(t, nodeOptions{now: time.Now()})
	var got struct {
		Interval int `json:"interval_days"`
		Keys     []map[string]any
	}
	if err := json.Unmarshal([]byte(asJSON(t, n.info(t))), &got); err != nil {
		t.Fatal(err)
	}
	if got.Interval != 42 || len(got.Keys) != 2 || got.Keys[0]["retires_at"] == nil || got.Keys[1]["activates_at"] == nil || got.Keys[1]["activated_at"] != nil {
		t.Errorf("%+v", got)
	}
}
