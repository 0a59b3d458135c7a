package caddymodule

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/warderhq/warder/managementapi/dialect"
)

// Dialect is the wire of another system, spoken beside the management API so
// that its published clients work when only their base URL is changed.
type Dialect struct {
	// Whose wire: "cloudflare", "f5xc", "lyve", "ricloud".
	Name string `json:"name,omitempty"`

	// Where it is mounted, as in "/client/v4". Default: at the root, where it
	// serves what the system's own paths begin with.
	Prefix string `json:"prefix,omitempty"`

	// The account ids under which Cloudflare's clients may speak of this
	// store. Default: "default".
	Accounts []string `json:"accounts,omitempty"`
}

const (
	dialectCloudflare = "cloudflare"
	dialectLyve       = "lyve"

	cloudflareKeyHeader = "X-Auth-Key"
)

// provision returns the dialect for callers of a site.
func (d *Dialect) provision(ctx caddy.Context, app *App, callers *callers) (*dialect.Dialect, error) {
	if len(d.Accounts) > 0 && d.Name != dialectCloudflare {
		return nil, errors.New("account: only cloudflare has accounts")
	}
	cfg := dialect.Config{
		Service: app.service(), SigningKeys: app.engine.keyring, Rotation: app.engine.rotation,
		Identify: callers.identify, Authenticate: callers.authenticate,
		Prefix: d.Prefix, Accounts: d.Accounts, Log: app.managementFailed,
	}
	switch d.Name {
	case dialectCloudflare:
		if err := requireLogFilter(ctx, "dialect", cloudflareKeyHeader); err != nil {
			return nil, err
		}
	case dialectLyve:
		if app.Issuer == nil {
			break // it gives out no tokens
		}
		tokens, err := app.Issuer.minting(app.engine, dialect.LyveTokenLife)
		if err != nil {
			return nil, fmt.Errorf("issuing tokens: %w", err)
		}
		cfg.Tokens = tokens
	}
	return dialect.New(d.Name, cfg)
}
