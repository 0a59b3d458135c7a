package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres"
)

func init() {
	caddy.RegisterModule(PostgresStore{})
}

// PostgresStore keeps everything in a schema of a PostgreSQL database, which
// any number of nodes share. It demands a master_key: all nodes need the same.
type PostgresStore struct {
	// Where the database is: "postgres://user:password@host/database" or the
	// same in keywords, "host=... dbname=...", with any parameter of libpq,
	// sslmode above all. A password has to come by placeholder, as in
	// "{env.WARDER_POSTGRES}", or from where libpq would look for it.
	URL string `json:"url,omitempty"`

	// How many connections are used at the same time, at least 5, besides one
	// that listens. Default: 10.
	PoolSize int `json:"pool_size,omitempty"`

	// The schema that holds Warder's tables, made on first start. Default:
	// "warder".
	Schema string `json:"schema,omitempty"`

	resolved keystore.Secret // the URL, without placeholders
}

// CaddyModule returns the Caddy module information.
func (PostgresStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "warder.stores.postgres",
		New: func() caddy.Module { return new(PostgresStore) },
	}
}

// Provision resolves placeholders. The URL is kept as it was written: it is
// part of the configuration that Caddy shows, and what it stands for is not.
func (s *PostgresStore) Provision(caddy.Context) error {
	if holdsPassword(s.URL) {
		return errors.New("url: must name its password by a placeholder, such as {env.WARDER_POSTGRES} for the whole; one written here, or put here by {$VARIABLE}, would stand in the configuration for all to read")
	}
	replacer := caddy.NewReplacer()
	text, err := replacer.ReplaceOrErr(s.URL, true, true)
	if err != nil {
		return fmt.Errorf("url: %w", err)
	}
	if s.resolved = keystore.Secret(text); text == "" {
		return errors.New("url: is missing, as in store postgres {env.WARDER_POSTGRES}")
	}
	if s.Schema, err = replacer.ReplaceOrErr(s.Schema, true, true); err != nil {
		return fmt.Errorf("schema: %w", err)
	}
	return nil
}

// Identity implements StoreModule. The same place with another password or
// pool size is another store, a node of its own: the new one is opened, and
// proved, before the old one is closed.
func (s *PostgresStore) Identity() (string, error) {
	place, err := postgres.Canonical(s.config())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s %016x", place, maphash.Comparable(identitySeed, s.config())), nil
}

// identitySeed lets nobody guess a password by the identities made of it.
var identitySeed = maphash.MakeSeed()

func (s *PostgresStore) config() postgres.Config {
	return postgres.Config{URL: s.resolved, PoolSize: s.PoolSize, Schema: s.Schema}
}

// Open implements StoreModule. A database that does not answer yet is asked
// again until ctx ends.
func (s *PostgresStore) Open(ctx context.Context, master, previous keystore.MasterKey, logger *zap.Logger) (OpenedStore, error) {
	if master.IsZero() {
		return OpenedStore{}, errors.New("master_key: is missing; a store of several nodes needs one that all of them are given, as in master_key {env.WARDER_MASTER_KEY}; openssl rand -base64 32 makes one")
	}
	created := false
	store, err := s.connect(ctx, logger, func() (keystore.SealedSecret, error) {
		created = true
		return keystore.SealedGenesis(master)()
	})
	if err != nil {
		return OpenedStore{}, err
	}
	if created {
		logger.Warn("made a new schema: if there should have been one, stop and restore it; back up the database, and the master_key apart from it", zap.Stringer("store", store))
	}
	secret, err := keystore.UnlockShared(ctx, store, master, previous)
	if err != nil {
		return OpenedStore{}, errors.Join(fmt.Errorf("opening %s with the configured master_key: %w", store, err), store.Close())
	}
	return OpenedStore{Store: store, SecretRow: store, Secret: secret, Registry: store, Notifier: store}, nil
}

// connectDelay is between two attempts to open a database.
const connectDelay = 500 * time.Millisecond

// connect waits for a database that starts together with this process, and
// says so once.
func (s *PostgresStore) connect(ctx context.Context, logger *zap.Logger, genesis keystore.Genesis) (*postgres.Store, error) {
	var why error // of the last attempt that was not cut short
	for {
		store, err := postgres.Open(ctx, s.config(), genesis)
		switch {
		case err == nil:
			return store, nil
		case ctx.Err() != nil && why != nil:
			return nil, why
		case !errors.Is(err, keystore.ErrUnavailable):
			return nil, err
		case why == nil:
			logger.Warn("the store does not answer; trying again for a while", zap.Error(err))
		}
		why = err
		select {
		case <-time.After(connectDelay):
		case <-ctx.Done():
			return nil, why
		}
	}
}

// holdsPassword reports whether the text of a connection, as it is written in
// the configuration, holds a password other than by placeholder.
func holdsPassword(text string) bool {
	const stands = "27182818" // for a placeholder; a port, too, could be one
	text = placeholders.ReplaceAllLiteralString(text, stands)
	if strings.Contains(text, "://") {
		u, err := url.Parse(text)
		if err != nil {
			return true // who knows
		}
		password, _ := u.User.Password()
		for _, name := range []string{"password", "sslpassword"} {
			password += strings.Join(u.Query()[name], "")
		}
		return strings.ReplaceAll(password, stands, "") != ""
	}
	for _, found := range passwordKeyword.FindAllStringSubmatch(text, -1) {
		if strings.ReplaceAll(strings.Trim(found[1], "'"), stands, "") != "" {
			return true
		}
	}
	return false
}

var (
	placeholders    = regexp.MustCompile(`\{[^{}$]+\}`)
	passwordKeyword = regexp.MustCompile(`(?i)\b(?:ssl)?password\s*=\s*('(?:[^'\\]|\\.)*'|\S*)`)
)

// UnmarshalCaddyfile reads:
//
//	postgres <url> {
//	    pool_size <connections>
//	    schema    <name>
//	}
func (s *PostgresStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the driver's name
	if err := oneArg(d, &s.URL); err != nil {
		return err
	}
	return block(d, "store postgres", options{
		"pool_size": func() error { return countArg(d, &s.PoolSize) },
		"schema":    func() error { return oneArg(d, &s.Schema) },
	})
}

// Interface guards.
var (
	_ StoreModule           = (*PostgresStore)(nil)
	_ caddy.Provisioner     = (*PostgresStore)(nil)
	_ caddyfile.Unmarshaler = (*PostgresStore)(nil)
)
