// Command warder is Caddy with its standard modules and Warder.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/warderhq/warder/caddymodule"
)

func main() {
	caddycmd.Main()
}
