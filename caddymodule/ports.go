package caddymodule

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Caddy's listeners share their port (SO_REUSEPORT) with those of any other
// Caddy of the same user, so that two of them start without complaint and the
// system deals requests out between them: to a gate with other keys, or to
// none. A first start that meets another one ends here.

// noteListeners remembers where the server that a handler belongs to listens.
func (a *App) noteListeners(ctx caddy.Context) {
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		a.listeners = append(a.listeners, server.Listen...)
	}
}

// refuseSharedPorts returns an error if another process listens where this
// one does, or is about to. A reload meets its own listeners and is let be.
func (a *App) refuseSharedPorts() error {
	if caddy.ActiveContext().Context != nil {
		return nil
	}
	for _, listener := range a.listeners {
		if err := refuseTaken(listener); err != nil {
			return err
		}
	}
	if address := sharedAddress(); address != "" {
		return sharedError(address)
	}
	return nil
}

// refuseTaken tries addresses that this process has not opened yet, without
// the readiness to share them.
func refuseTaken(listener string) error {
	parsed, err := caddy.ParseNetworkAddress(listener)
	if err != nil || parsed.IsUnixNetwork() || parsed.IsFdNetwork() {
		return nil // Caddy will say so, or nobody can share it
	}
	for port := range parsed.PortRangeSize() {
		address := parsed.JoinHostPort(port)
		if caddy.ListenerUsage(parsed.Network, address) > 0 {
			continue
		}
		probe, err := net.Listen(parsed.Network, address)
		if errors.Is(err, syscall.EADDRINUSE) {
			return sharedError(address)
		}
		if err == nil {
			_ = probe.Close() // it was never used
		}
	}
	return nil
}

func sharedError(address string) error {
	return fmt.Errorf("listening on %s: address already in use: another process, probably another Caddy, listens there", address)
}
