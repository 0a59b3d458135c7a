package caddymodule

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/warderhq/warder/managementapi"
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
		managementapi.WriteError(w, managementapi.ErrNotConfigured)
		return nil
	}
	app := value.(*App)
	if app.AdminAPI != adminRemote && !isLocal(r) {
		managementapi.WriteError(w, managementapi.ErrRemote)
		return nil
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
	return err == nil && ip.Addr().Unmap().IsLoopback() && isLocalHost(r.Host)
}

// isLocalHost: a page that had its own name point at this machine would come
// from here, too, but under that name (DNS rebinding).
func isLocalHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// Interface guards.
var _ caddy.AdminRouter = (*AdminAPI)(nil)
