// Package warder is what a Caddy build imports to have Warder in it: the app,
// the handlers and the commands of package caddymodule.
package warder

import _ "github.com/warderhq/warder/caddymodule" // registers everything
