package caddymodule

import (
	"errors"
	"net"
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(AdminAPI{})
}

// AdminAPI serves the management routes on Caddy's admin endpoint, under
// /warder/. Whoever reaches that endpoint could replace the configuration, so
// its callers are administrators, with the actor "local".
//
// It holds nothing: the admin endpoint is rebuilt before the apps of a new
// configuration load, so each request asks for the app that is active then.
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.warder", New: func() caddy.Module { return new(AdminAPI) }}
}

const adminPrefix = "/warder"

// Routes implements caddy.AdminRouter.
func (AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: adminPrefix + "/", Handler: caddy.AdminHandlerFunc(serveAdmin)}}
}

func serveAdmin(w http.ResponseWriter, r *http.Request) error {
	ctx := caddy.ActiveContext()
	value, err := ctx.AppIfConfigured("warder")
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errors.New("the running configuration has no warder")}
	}
	app := value.(*App)
	if app.AdminAPI != "remote" && !isLocal(r) {
		return caddy.APIError{HTTPStatus: http.StatusForbidden, Err: errors.New("management on an admin endpoint beyond loopback needs the option admin_api remote")}
	}
	app.management.ServeHTTP(w, r)
	return nil
}

// isLocal reports whether the request came in through the loopback interface
// or a unix socket.
func isLocal(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	if addr.Network() == "unix" {
		return true
	}
	ip, err := netip.ParseAddrPort(addr.String())
	return err == nil && ip.Addr().Unmap().IsLoopback()
}

// Interface guards.
var _ caddy.AdminRouter = (*AdminAPI)(nil)
