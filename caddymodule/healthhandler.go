package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/managementapi"
)

func init() {
	caddy.RegisterModule(HealthHandler{})
}

// HealthHandler serves exactly two paths, to anybody: /healthz, which answers
// as long as the process lives, and /readyz, which says whether this node may
// decide. Everything else goes on to the next handler.
//
// Neither costs anything worth mentioning: however many ask, the store is read
// at most once a second. Neither shows anything but one of a few fixed texts.
type HealthHandler struct {
	// Moves the paths below a prefix, as in "/warder".
	PathPrefix string `json:"path_prefix,omitempty"`

	app         *App
	live, ready string // the paths
}

const (
	livePath  = "/healthz"
	readyPath = "/readyz"
)

// CaddyModule returns the Caddy module information.
func (HealthHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.warder_health",
		New: func() caddy.Module { return new(HealthHandler) },
	}
}

// Provision finds the warder app.
func (h *HealthHandler) Provision(ctx caddy.Context) error {
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	app.noteListeners(ctx)
	if !validPathPrefix(h.PathPrefix) {
		return fmt.Errorf("path_prefix %q: must be a plain path that begins with / and does not end with it", h.PathPrefix)
	}
	h.app, h.live, h.ready = app, h.PathPrefix+livePath, h.PathPrefix+readyPath
	return nil
}

// ServeHTTP answers on the two paths.
func (h *HealthHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if r.URL.Path != h.live && r.URL.Path != h.ready {
		return next.ServeHTTP(w, r)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		managementapi.WriteError(w, managementapi.ErrMethod)
		return nil
	}
	stale, err := false, error(nil)
	if r.URL.Path == h.ready {
		stale, err = h.app.ready(r.Context(), time.Now())
	}
	managementapi.WriteHealth(w, stale, err)
	return nil
}

// ready says whether this configuration may decide at now; see
// managementapi.Config.
func (a *App) ready(ctx context.Context, now time.Time) (stale bool, err error) {
	switch {
	case caddy.Exiting(): // in Caddy's shutdown_delay, say: whoever sends requests here should cease to
		return false, managementapi.ErrStopping
	case !a.engine.runs(a):
		return false, managementapi.ErrStarting
	}
	return a.engine.readiness.Check(ctx, now, a.freshness())
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*HealthHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*HealthHandler)(nil)
)
