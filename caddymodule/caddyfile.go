package caddymodule

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("warder", parseApp)
	httpcaddyfile.RegisterHandlerDirective("warder_health", parseHealthHandler)
	httpcaddyfile.RegisterHandlerDirective("warder_issuer", parseIssuerHandler)
	httpcaddyfile.RegisterHandlerDirective("warder_admin", parseAdminHandler)
	httpcaddyfile.RegisterHandlerDirective("warder", parseHandler)
	// First how this node is, then who issues, then who manages, then who guards,
	// all before anything else that authenticates or answers.
	httpcaddyfile.RegisterDirectiveOrder("warder_health", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("warder_issuer", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("warder_admin", httpcaddyfile.Before, "basic_auth")
	httpcaddyfile.RegisterDirectiveOrder("warder", httpcaddyfile.Before, "basic_auth")
}

// parseApp reads the global option:
//
//	warder {
//	    store               <driver> [<arguments>...]
//	    master_key          <placeholder>
//	    previous_master_key <placeholder>
//	    issuer              <url> {
//	        token_ttl <duration>
//	        audience  <audience>
//	        resources <uris...>
//	        algorithm EdDSA|ES256|RS256
//	    }
//	    prefix              <letters and digits>
//	    grace_period        <duration>
//	    cache_size          <keys>
//	    max_staleness       <duration>
//	    on_stale            deny|serve <duration>
//	    admin_api           remote
//	}
func parseApp(d *caddyfile.Dispenser, earlier any) (any, error) {
	app := new(App)
	if earlier != nil {
		d.Next()
		return nil, d.Err("global option warder stands twice")
	}
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "warder", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile reads the block of the global option; see parseApp.
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return directive(d, "warder", options{
		"store":               func() error { return a.unmarshalStore(d) },
		"issuer":              func() error { a.Issuer = new(Issuer); return a.Issuer.unmarshal(d) },
		"master_key":          func() error { a.MasterKey = new(string); return oneArg(d, a.MasterKey) },
		"previous_master_key": func() error { a.PreviousMasterKey = new(string); return oneArg(d, a.PreviousMasterKey) },
		"prefix":              func() error { return oneArg(d, &a.Prefix) },
		"grace_period":        func() error { return durationArg(d, &a.GracePeriod) },
		"cache_size":          func() error { return countArg(d, &a.CacheSize) },
		"max_staleness":       func() error { return durationArg(d, &a.MaxStaleness) },
		"on_stale":            func() error { return a.unmarshalOnStale(d) },
		"admin_api":           func() error { return oneArg(d, &a.AdminAPI) },
	})
}

func (a *App) unmarshalOnStale(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	switch d.Val() {
	case "deny":
		if d.NextArg() {
			return d.ArgErr()
		}
		return nil
	case "serve":
		return durationArg(d, &a.ServeStale)
	default:
		return d.Errf("on_stale: %s is not known; deny, or serve with a duration", d.Val())
	}
}

func (a *App) unmarshalStore(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	driver := d.Val()
	module, err := caddyfile.UnmarshalModule(d, "warder.stores."+driver)
	if err != nil {
		return err
	}
	store, ok := module.(StoreModule)
	if !ok {
		return d.Errf("module %T is no store", module)
	}
	a.StoreRaw = caddyconfig.JSONModuleObject(store, "driver", driver, nil)
	return nil
}

func (i *Issuer) unmarshal(d *caddyfile.Dispenser) error {
	if err := oneArg(d, &i.URL); err != nil {
		return err
	}
	return block(d, "issuer", options{
		"token_ttl": func() error { return durationArg(d, &i.TokenTTL) },
		"audience":  func() error { return oneArg(d, &i.Audience) },
		"resources": func() error { return moreArgs(d, &i.Resources) },
		"algorithm": func() error { return oneArg(d, &i.Algorithm) },
	}, "resources")
}

// parseHandler reads the directive; see Handler.UnmarshalCaddyfile.
func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive:
//
//	warder [<matcher>] {
//	    public     <paths...>
//	    require    scope <scopes...>
//	    require    type  standard|trial...
//	    optional
//	    shadow
//	    preflight  pass|deny
//	    credential header <name>
//	    forward_credential
//	    allow_encoded_slash
//	    identity_prefix <prefix>
//	    realm           <text>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return directive(d, "warder", options{
		"public":              func() error { return moreArgs(d, &h.Public) },
		"require":             func() error { return h.unmarshalRequire(d) },
		"optional":            func() error { return flag(d, &h.Optional) },
		"shadow":              func() error { return flag(d, &h.Shadow) },
		"preflight":           func() error { return oneArg(d, &h.Preflight) },
		"credential":          func() error { return h.unmarshalCredential(d) },
		"forward_credential":  func() error { return flag(d, &h.ForwardCredential) },
		"allow_encoded_slash": func() error { return flag(d, &h.AllowEncodedSlash) },
		"identity_prefix":     func() error { return oneArg(d, &h.IdentityPrefix) },
		"realm":               func() error { return oneArg(d, &h.Realm) },
	}, "public", "require")
}

func (h *Handler) unmarshalRequire(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	switch d.Val() {
	case "scope":
		return moreArgs(d, &h.RequireScopes)
	case "type":
		return moreArgs(d, &h.RequireTypes)
	default:
		return d.Errf("unknown requirement: %s; one of scope, type", d.Val())
	}
}

func (h *Handler) unmarshalCredential(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	if d.Val() != "header" {
		return d.Errf("unknown place for a credential: %s; the only one is header", d.Val())
	}
	return oneArg(d, &h.CredentialHeader)
}

// parseIssuerHandler reads the directive; see IssuerHandler.UnmarshalCaddyfile.
func parseIssuerHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(IssuerHandler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive:
//
//	warder_issuer [<matcher>] {
//	    path_prefix <path>
//	}
func (h *IssuerHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return directive(d, "warder_issuer", options{
		"path_prefix": func() error { return oneArg(d, &h.PathPrefix) },
	})
}

// parseHealthHandler reads the directive; see HealthHandler.UnmarshalCaddyfile.
func parseHealthHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(HealthHandler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive:
//
//	warder_health [<matcher>] {
//	    path_prefix <path>
//	}
func (h *HealthHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return directive(d, "warder_health", options{
		"path_prefix": func() error { return oneArg(d, &h.PathPrefix) },
	})
}

// parseAdminHandler reads the directive; see AdminHandler.UnmarshalCaddyfile.
func parseAdminHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(AdminHandler)
	return handler, handler.UnmarshalCaddyfile(h.Dispenser)
}

// UnmarshalCaddyfile reads the directive:
//
//	warder_admin [<matcher>] {
//	    path_prefix <path>
//	    limit       <requests>/s|m|h|d [burst <requests>]
//	    dialect     cloudflare|f5xc|lyve|ricloud [<path>] {
//	        account <ids...>
//	    }
//	}
func (h *AdminHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return directive(d, "warder_admin", options{
		"path_prefix": func() error { return oneArg(d, &h.PathPrefix) },
		"limit":       func() error { return limitArgs(d, &h.Limit) },
		"dialect":     func() error { return h.unmarshalDialect(d) },
	}, "dialect")
}

func (h *AdminHandler) unmarshalDialect(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return d.ArgErr()
	}
	spoken := &Dialect{Name: args[0]}
	if len(args) == 2 {
		spoken.Prefix = args[1]
	}
	h.Dialects = append(h.Dialects, spoken)
	return block(d, "dialect", options{
		"account": func() error { return moreArgs(d, &spoken.Accounts) },
	}, "account")
}

// options are those that a block understands, and how each reads its arguments.
type options map[string]func() error

// directive reads a name without arguments, and the block behind it.
func directive(d *caddyfile.Dispenser, name string, known options, repeatable ...string) error {
	d.Next() // the name
	if d.NextArg() {
		return d.ArgErr()
	}
	return block(d, name, known, repeatable...)
}

// block reads the options of a block. One that stands twice is refused, for
// the second would silently win, unless it is repeatable and adds up.
func block(d *caddyfile.Dispenser, name string, known options, repeatable ...string) error {
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		option := d.Val()
		read, ok := known[option]
		switch {
		case !ok:
			return d.Errf("unknown %s option: %s", name, option)
		case seen[option] && !slices.Contains(repeatable, option):
			return d.Errf("option %s stands twice", option)
		}
		seen[option] = true
		if err := read(); err != nil {
			return err
		}
	}
	return nil
}

func oneArg(d *caddyfile.Dispenser, into *string) error {
	option := d.Val()
	if !d.AllArgs(into) {
		return d.ArgErr()
	}
	if *into == "" {
		return d.Errf("%s: empty argument", option)
	}
	return nil
}

func moreArgs(d *caddyfile.Dispenser, into *[]string) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	*into = append(*into, args...)
	return nil
}

func flag(d *caddyfile.Dispenser, into *bool) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	*into = true
	return nil
}

func durationArg(d *caddyfile.Dispenser, into *caddy.Duration) error {
	option, text := d.Val(), ""
	if err := oneArg(d, &text); err != nil {
		return err
	}
	length, err := caddy.ParseDuration(text)
	if err != nil || length <= 0 {
		return d.Errf("%s: %q is no positive duration like 15m, 6h or 2d", option, text)
	}
	*into = caddy.Duration(length.Round(time.Millisecond))
	return nil
}

func limitArgs(d *caddyfile.Dispenser, into *string) error {
	option, args := d.Val(), d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	limit, err := keystore.ParseLimit(strings.Join(args, " "))
	if err != nil || limit == (keystore.Limit{}) {
		return d.Errf(`%s: %q is no limit like 100/s or "100/s burst 200"; the letter is s, m, h or d`, option, strings.Join(args, " "))
	}
	*into = limit.String()
	return nil
}

func countArg(d *caddyfile.Dispenser, into *int) error {
	option, text := d.Val(), ""
	if err := oneArg(d, &text); err != nil {
		return err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		return d.Errf("%s: %q is no positive number", option, text)
	}
	*into = n
	return nil
}

// Interface guards.
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*HealthHandler)(nil)
	_ caddyfile.Unmarshaler = (*IssuerHandler)(nil)
	_ caddyfile.Unmarshaler = (*AdminHandler)(nil)
)
