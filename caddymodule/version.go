package caddymodule

import (
	"runtime/debug"

	"github.com/caddyserver/caddy/v2"
)

const modulePath = "github.com/warderhq/warder"

// Version is what nodes and the management API call themselves: what the build
// was stamped with, which is Caddy's CustomVersion, else the version of this
// module that it was built from.
func Version() string {
	if caddy.CustomVersion != "" {
		return caddy.CustomVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range append(info.Deps, &info.Main) {
			if module.Path == modulePath && module.Version != "" {
				return module.Version
			}
		}
	}
	return "unknown"
}
