// Command caddy is Caddy with its standard modules and nothing else, built from
// the versions that Warder is built from: what Warder is measured beside.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() { caddycmd.Main() }
