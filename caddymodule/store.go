package caddymodule

import (
	"context"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
)

// StoreModule is a guest module in the namespace warder.stores: it knows where
// a store is and how to open it.
type StoreModule interface {
	caddy.Module

	// Identity names the store. Configurations whose stores have the same
	// driver and identity share one engine, across reloads too.
	Identity() (string, error)

	// Open opens the store and its secret. The zero MasterKey is one that is
	// not configured.
	Open(ctx context.Context, master, previous keystore.MasterKey, logger *zap.Logger) (OpenedStore, error)
}

// OpenedStore is a store ready for use.
type OpenedStore struct {
	keystore.Store
	keystore.SecretRow

	Secret keystore.StoreSecret

	Copier  keystore.Copier // nil: the store has tools of its own
	KeyFile KeyFile         // nil: the master key is configured

	// Other processes write the store, too, so that what is known of it ages.
	// Both nil: this process is the only writer. Either both, or none.
	Registry keystore.Registry
	Notifier keystore.Notifier
}

// KeyFile is where a store keeps a master key that is not configured.
type KeyFile interface {
	// KeyFilePath is where it is.
	KeyFilePath() string
	// RotateKeyFile puts a new key in its place and returns the fingerprints
	// of both.
	RotateKeyFile(ctx context.Context) (former, present string, err error)
}

// unlock opens the store's secret; see keystore.Unlock.
func (s *OpenedStore) unlock(ctx context.Context, master, previous keystore.MasterKey) (keystore.StoreSecret, error) {
	if s.shared() {
		return keystore.UnlockShared(ctx, s, master, previous)
	}
	return keystore.Unlock(ctx, s, master, previous)
}

// shared reports whether other processes may write the store.
func (s *OpenedStore) shared() bool { return s.Registry != nil }
