package caddymodule

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
)

func init() {
	caddy.RegisterModule(SQLiteStore{})
}

// SQLiteStore keeps everything in one file. This process is its only writer.
type SQLiteStore struct {
	// The database file. Made, with its directory, on first start. Default:
	// "data/warder.db".
	Path string `json:"path,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (SQLiteStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "warder.stores.sqlite",
		New: func() caddy.Module { return new(SQLiteStore) },
	}
}

const defaultPath = "data/warder.db"

// Provision sets the default and resolves placeholders in the path.
func (s *SQLiteStore) Provision(caddy.Context) error {
	path, err := caddy.NewReplacer().ReplaceOrErr(s.Path, true, true)
	if err != nil {
		return fmt.Errorf("path: %w", err)
	}
	if s.Path = path; path == "" {
		s.Path = defaultPath
	}
	return nil
}

// Identity implements StoreModule.
func (s *SQLiteStore) Identity() (string, error) { return sqlite.Canonical(s.Path) }

// Open implements StoreModule. Without a configured master key a key file
// beside the database serves.
func (s *SQLiteStore) Open(ctx context.Context, master, previous keystore.MasterKey, logger *zap.Logger) (OpenedStore, error) {
	if master.IsZero() {
		store, secret, created, err := sqlite.OpenWithKeyFile(ctx, s.Path)
		if err != nil {
			return OpenedStore{}, err
		}
		if created {
			logger.Warn("made a new key file: back it up, without it every key is useless",
				zap.String("key_file", sqlite.KeyFile(s.Path)), zap.String("database", s.Path))
		}
		return OpenedStore{Store: store, SecretRow: store, Secret: secret, Copier: store, KeyFile: store}, nil
	}
	created := false
	store, err := sqlite.Open(ctx, s.Path, func() (keystore.SealedSecret, error) {
		created = true
		return keystore.SealedGenesis(master)()
	})
	if err != nil {
		return OpenedStore{}, err
	}
	if created {
		logger.Warn("made a new database: if there should have been one, stop and restore it", zap.String("database", s.Path))
	}
	secret, err := keystore.Unlock(ctx, store, master, previous)
	if err != nil {
		return OpenedStore{}, errors.Join(fmt.Errorf("opening database %s with the configured master_key: %w", s.Path, err), store.Close())
	}
	return OpenedStore{Store: store, SecretRow: store, Secret: secret, Copier: store}, nil
}

// UnmarshalCaddyfile reads:
//
//	sqlite [<path>]
func (s *SQLiteStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the driver's name
	if d.NextArg() {
		s.Path = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("store sqlite takes no block")
	}
	return nil
}

// Interface guards.
var (
	_ StoreModule           = (*SQLiteStore)(nil)
	_ KeyFile               = (*sqlite.Store)(nil)
	_ caddy.Provisioner     = (*SQLiteStore)(nil)
	_ caddyfile.Unmarshaler = (*SQLiteStore)(nil)
)
