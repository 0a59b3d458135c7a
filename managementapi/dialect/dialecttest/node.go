// Package dialecttest is what the tests of dialects share: one node over a real
// store, whose callers present real credentials.
package dialecttest

import (
	"context"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
	"github.com/warderhq/warder/tokenissuer"
)

// Node is the core of one sidecar.
type Node struct {
	Store    *sqlite.Store
	Service  *keystore.Service
	Keyring  *tokenissuer.Keyring
	Issuer   *tokenissuer.Issuer
	Rotation *tokenissuer.Rotation
	Stop     func() // ends the follower: what is committed then does not come into force

	auth *keystore.Authenticator
}

// NewNode returns a node that lives as long as the test. Its tokens live for
// ttl.
func NewNode(t testing.TB, ttl time.Duration) *Node {
	t.Helper()
	secret := keystore.NewStoreSecret()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "warder.db"), func() (keystore.SealedSecret, error) {
		return keystore.SealStoreSecret(keystore.NewMasterKey(), secret)
	})
	check(t, err)
	t.Cleanup(func() { _ = store.Close() })
	keyring, err := tokenissuer.NewKeyring(tokenissuer.KeyringConfig{Secret: secret})
	check(t, err)
	issuer, err := tokenissuer.NewIssuer(tokenissuer.IssuerConfig{Keyring: keyring, URL: "http://issuer.example", TTL: ttl})
	check(t, err)
	lease := new(keystore.Lease)
	view := keystore.NewView(store, lease, 1000)
	directory, rulebook := new(keystore.Directory), new(keystore.Rulebook)
	follower := keystore.NewFollower(keystore.FollowerConfig{
		Store: store, Lease: lease, Failed: func(err error) { t.Error(err) },
		Appliers: []keystore.Applier{view, directory, rulebook, keyring},
	})
	rotation := tokenissuer.NewRotation(tokenissuer.RotationConfig{Keyring: keyring, Store: store, Follower: follower})
	check(t, rotation.Ensure(t.Context(), time.Now().Add(-time.Hour))) // all verifiers know the next key by now
	check(t, follower.Start(t.Context()))

	credentials := keystore.NewCredentials(secret)
	n := &Node{Store: store, Keyring: keyring, Issuer: issuer, Rotation: rotation, Stop: run(t, follower)}
	n.Service = &keystore.Service{
		Store: store, Follower: follower, Credentials: credentials, Replays: keystore.NewReplays(secret),
		Meters: view.Meters(), Directory: directory, Rulebook: rulebook,
		Policy: keystore.Policy{Prefix: keystore.DefaultPrefix, Grace: keystore.DefaultGrace},
	}
	n.auth = &keystore.Authenticator{View: view, Credentials: credentials, Tokens: issuer}
	return n
}

func run(t testing.TB, follower *keystore.Follower) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { follower.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Identify says who calls, as a mount does.
func (n *Node) Identify(r *http.Request, authorization string) (keystore.Caller, error) {
	presented, err := keystore.ParseAuthorization(keystore.DefaultPrefix, authorization)
	if err != nil {
		return keystore.Caller{}, err
	}
	p, err := n.Authenticate(r, presented)
	if err != nil {
		return keystore.Caller{}, err
	}
	return keystore.Caller{Actor: string(p.Record.ID), From: r.RemoteAddr, Organization: p.Record.Organization, Scopes: p.Scopes}, nil
}

// Authenticate proves a credential, as a mount does.
func (n *Node) Authenticate(r *http.Request, presented keystore.Presented) (keystore.Principal, error) {
	return n.auth.Authenticate(r.Context(), presented, time.Now())
}
