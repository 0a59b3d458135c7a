package keystore_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
)

// sqliteNode is the core of one sidecar over a real database.
type sqliteNode struct {
	store       *sqlite.Store
	secret      keystore.StoreSecret
	view        *keystore.View
	follower    *keystore.Follower
	credentials *keystore.Credentials
	directory   *keystore.Directory
	rulebook    *keystore.Rulebook
	settings    *keystore.Settings
	service     *keystore.Service
	auth        *keystore.Authenticator
}

func newSQLiteNode(t testing.TB, viewSize int) *sqliteNode {
	t.Helper()
	ctx := context.Background()
	master := keystore.NewMasterKey()
	store, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "warder.db"), keystore.SealedGenesis(master))
	if err != nil {
		t.Fatalf("opening the store: %v", err)
	}
	t.Cleanup(func() { store.Close() })
	secret, err := keystore.Unlock(ctx, store, master, keystore.MasterKey{})
	if err != nil {
		t.Fatalf("unlocking the store: %v", err)
	}
	n := &sqliteNode{store: store, secret: secret, credentials: keystore.NewCredentials(secret)}
	n.directory, n.rulebook, n.settings = new(keystore.Directory), new(keystore.Rulebook), new(keystore.Settings)
	lease := new(keystore.Lease)
	n.view = keystore.NewView(store, lease, viewSize)
	n.follower = keystore.NewFollower(keystore.FollowerConfig{
		Store: store, Lease: lease, Failed: func(err error) { t.Log(err) },
		Appliers: []keystore.Applier{n.view, n.directory, n.rulebook, n.settings},
	})
	n.service = &keystore.Service{
		Store: store, Follower: n.follower, Credentials: n.credentials, Replays: keystore.NewReplays(secret),
		Meters: n.view.Meters(), Bulk: keystore.NewTurn(), Directory: n.directory, Rulebook: n.rulebook,
		Policy: keystore.Policy{Prefix: keystore.DefaultPrefix, Grace: keystore.DefaultGrace},
	}
	n.auth = &keystore.Authenticator{View: n.view, Credentials: n.credentials, Settings: n.settings}
	n.follow(t)
	return n
}

func (n *sqliteNode) follow(t testing.TB) {
	t.Helper()
	if err := n.follower.Start(context.Background()); err != nil {
		t.Fatalf("starting the follower: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.follower.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// create makes a key in the default organization.
func (n *sqliteNode) create(t testing.TB, in keystore.NewKey) keystore.Issued {
	t.Helper()
	issued, err := n.service.CreateKey(context.Background(), keystore.LocalCaller(), in, nil, time.Now())
	if err != nil {
		t.Fatalf("creating a key: %v", err)
	}
	return issued
}

// present authenticates an API key as a request would.
func (n *sqliteNode) present(key keystore.Secret, now time.Time) (keystore.Principal, error) {
	p, err := keystore.ParseAuthorization(keystore.DefaultPrefix, "Token "+key.Reveal())
	if err != nil {
		return keystore.Principal{}, err
	}
	return n.auth.Authenticate(context.Background(), p, now)
}
