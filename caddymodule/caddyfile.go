package caddymodule

import (
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("warder", parseApp)
	httpcaddyfile.RegisterHandlerDirective("warder_issuer", parseIssuerHandler)
	httpcaddyfile.RegisterHandlerDirective("warder", parseHandler)
	// First who issues, then who guards, both before anything else that
	// authenticates or answers.
	httpcaddyfile.RegisterDirectiveOrder("warder_issuer", httpcaddyfile.Before, "basic_auth")
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
//	        algorithm EdDSA|ES256|RS256
//	    }
//	    prefix              <letters and digits>
//	    grace_period        <duration>
//	    cache_size          <keys>
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
	d.Next() // warder
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(options)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.once(d); err != nil {
			return err
		}
		if err := a.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (a *App) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "store":
		return a.unmarshalStore(d)
	case "issuer":
		a.Issuer = new(Issuer)
		return a.Issuer.unmarshal(d)
	case "master_key":
		a.MasterKey = new(string)
		return oneArg(d, a.MasterKey)
	case "previous_master_key":
		a.PreviousMasterKey = new(string)
		return oneArg(d, a.PreviousMasterKey)
	case "prefix":
		return oneArg(d, &a.Prefix)
	case "grace_period":
		return durationArg(d, &a.GracePeriod)
	case "cache_size":
		return countArg(d, &a.CacheSize)
	case "admin_api":
		return oneArg(d, &a.AdminAPI)
	default:
		return d.Errf("unknown warder option: %s", d.Val())
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
	seen := make(options)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.once(d); err != nil {
			return err
		}
		var err error
		switch d.Val() {
		case "token_ttl":
			err = durationArg(d, &i.TokenTTL)
		case "audience":
			err = oneArg(d, &i.Audience)
		case "algorithm":
			err = oneArg(d, &i.Algorithm)
		default:
			err = d.Errf("unknown issuer option: %s", d.Val())
		}
		if err != nil {
			return err
		}
	}
	return nil
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
	d.Next() // warder
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(options)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if option := d.Val(); option != "public" && option != "require" { // these add up
			if err := seen.once(d); err != nil {
				return err
			}
		}
		if err := h.unmarshalOption(d); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) unmarshalOption(d *caddyfile.Dispenser) error {
	switch d.Val() {
	case "public":
		return moreArgs(d, &h.Public)
	case "require":
		return h.unmarshalRequire(d)
	case "credential":
		return h.unmarshalCredential(d)
	case "preflight":
		return oneArg(d, &h.Preflight)
	case "identity_prefix":
		return oneArg(d, &h.IdentityPrefix)
	case "realm":
		return oneArg(d, &h.Realm)
	case "optional":
		return flag(d, &h.Optional)
	case "shadow":
		return flag(d, &h.Shadow)
	case "forward_credential":
		return flag(d, &h.ForwardCredential)
	case "allow_encoded_slash":
		return flag(d, &h.AllowEncodedSlash)
	default:
		return d.Errf("unknown warder option: %s", d.Val())
	}
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
	d.Next() // warder_issuer
	if d.NextArg() {
		return d.ArgErr()
	}
	seen := make(options)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := seen.once(d); err != nil {
			return err
		}
		if d.Val() != "path_prefix" {
			return d.Errf("unknown warder_issuer option: %s", d.Val())
		}
		if err := oneArg(d, &h.PathPrefix); err != nil {
			return err
		}
	}
	return nil
}

// options are those a block has named so far.
type options map[string]struct{}

// once refuses an option that stands twice: the second would silently win.
func (o options) once(d *caddyfile.Dispenser) error {
	if _, twice := o[d.Val()]; twice {
		return d.Errf("option %s stands twice", d.Val())
	}
	o[d.Val()] = struct{}{}
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
	_ caddyfile.Unmarshaler = (*IssuerHandler)(nil)
)
