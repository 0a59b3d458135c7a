package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
)

func init() {
	caddy.RegisterModule(AdminHandler{})
}

// AdminHandler serves the management API on a site: the routes of Caddy's
// admin endpoint under /v1, for callers who show a credential of their own and
// may do what its scopes allow. It serves exactly its own paths; everything
// else goes on to the next handler.
//
// Whoever reaches it can try credentials on it: it belongs on an interface of
// its own, and behind TLS where that is not the loopback one.
type AdminHandler struct {
	// Moves the paths below a prefix, as in "/auth".
	PathPrefix string `json:"path_prefix,omitempty"`

	// How often each caller may call. Default: "20/s burst 100".
	Limit string `json:"limit,omitempty"`

	// Serves the calls of other systems' clients, too.
	Dialects []*Dialect `json:"dialects,omitempty"`

	callers *callers
	mounts  []mount
}

const (
	defaultAdminLimit = "20/s burst 100"
	managementPath    = "/v1"
)

// mount is something to serve, and where.
type mount struct {
	http.Handler
	serves func(path string) bool
}

// CaddyModule returns the Caddy module information.
func (AdminHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.warder_admin",
		New: func() caddy.Module { return new(AdminHandler) },
	}
}

// Provision mounts the management API of the warder app.
func (h *AdminHandler) Provision(ctx caddy.Context) error {
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	app.noteListeners(ctx)
	if !validPathPrefix(h.PathPrefix) {
		return fmt.Errorf("path_prefix %q: must be a plain path that begins with / and does not end with it", h.PathPrefix)
	}
	if h.Limit == "" {
		h.Limit = defaultAdminLimit
	}
	limit, err := keystore.ParseLimit(h.Limit)
	if err != nil {
		return fmt.Errorf("limit: %w", err)
	}
	h.callers = newCallers(app, limit, ctx.Logger())
	root := h.PathPrefix + managementPath
	h.mounts = []mount{{app.newManagement(root, nil, h.callers.caller), func(path string) bool { return below(path, root) }}}
	for _, d := range h.Dialects {
		if err := h.mount(ctx, app, d); err != nil {
			return fmt.Errorf("dialect %s: %w", d.Name, err)
		}
	}
	return nil
}

// mount adds a dialect, unless its paths belong to what was mounted before.
func (h *AdminHandler) mount(ctx caddy.Context, app *App, d *Dialect) error {
	for _, other := range h.Dialects {
		if other != d && other.Name == d.Name && other.Prefix == d.Prefix {
			return errors.New("stands twice")
		}
	}
	spoken, err := d.provision(ctx, app, h.callers)
	if err != nil {
		return err
	}
	for _, place := range spoken.Places() {
		if slices.ContainsFunc(h.mounts, func(m mount) bool { return m.serves(place) }) {
			return fmt.Errorf("path %s: something else is served there", place)
		}
	}
	h.mounts = append(h.mounts, mount{spoken, spoken.Serves})
	return nil
}

// ServeHTTP answers on the paths of the management API and of the dialects.
func (h *AdminHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	for i := range h.mounts {
		if h.mounts[i].serves(r.URL.Path) {
			h.mounts[i].ServeHTTP(w, r)
			return nil
		}
	}
	return next.ServeHTTP(w, r)
}

// below reports whether path is root or below it.
func below(path, root string) bool {
	rest, ok := strings.CutPrefix(path, root)
	return ok && (rest == "" || rest[0] == '/')
}

// validPathPrefix: neither a client nor a proxy writes such a path differently.
func validPathPrefix(prefix string) bool {
	for i := range len(prefix) {
		if c := prefix[i]; !isUnreserved(c) && c != '/' {
			return false
		}
	}
	return prefix == "" || prefix[0] == '/' && prefix != "/" && path.Clean(prefix) == prefix
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*AdminHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*AdminHandler)(nil)
)
