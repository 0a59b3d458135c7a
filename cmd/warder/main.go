// Command warder is Caddy with its standard modules and Warder.
package main

import (
	"time"
	_ "time/tzdata" // an image may hold nothing but this program

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	"github.com/warderhq/warder/caddymodule"
)

// started is when a server has done what is only done at its start, and knows
// its limits.
const started = 10 * time.Second

func main() {
	caddy.CustomBinaryName = "warder"
	caddy.CustomVersion = caddymodule.Version() // before Caddy's own
	caddy.CustomLongDescription = `Warder gives an HTTP API keys, short-lived tokens, a key life cycle and
revocation: it stands in front as an authenticating reverse proxy. It is Caddy
with all of its standard modules, and one of its own.

	$ warder run --config Caddyfile     serve
	$ warder keys create --name demo    make a key on the running server
	$ warder keys block <id>            refuse it, and every token minted from it`
	for _, command := range caddymodule.Commands() {
		caddycmd.RegisterCommand(command) // keys ... beside warder keys ...
	}
	time.AfterFunc(started, dropFilePages)
	time.AfterFunc(started, giveCollectorRoom)
	caddycmd.Main()
}
