//go:build linux

package main

import (
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

//go:embed config
var configFiles embed.FS

// kind is what a server is asked with, and what it has to check.
type kind int

const (
	bare        kind = iota // nothing is checked
	named                   // neither, and yet the API behind is told as many names, by Caddy
	key                     // one API key
	seenToken               // one access token
	unseenToken             // each access token once
)

// A contender is a program in one configuration.
type contender struct {
	name    string
	program string // path of the binary
	style   style
	kind    kind
	proxied bool // asks an API behind, else answers itself
	keys    int  // how many it is to hold in memory; 0: a few

	ownCollector bool // collects as it chooses to, not as GOGC says
}

// checks reports whether a credential is looked at.
func (k kind) checks() bool { return k != bare && k != named }

// style is how a program is configured and run.
type style int

const (
	stock  style = iota // Caddy without Warder
	warder              // with it
	nginx
	haproxy
)

// settings are what the files below config are made of.
type settings struct {
	Port, Admin, Issuer, Upstream int
	App, Gate, Token, Named       bool
	CacheSize                     int
}

// A running contender, and what it is asked with.
type running struct {
	contender
	*process
	settings
	dir    string
	header string                 // Authorization; empty: none
	buy    func() (string, error) // another access token
}

const (
	fewKeys    = 1000 // in the maps of peers
	someMemory = 100_000
)

// run starts a contender in a directory of its own below dir, with a prefix
// before its command line, which may be nil.
func (c contender) run(dir string, upstream int, prefix []string, env ...string) (*running, error) {
	r := &running{contender: c, dir: dir, settings: settings{
		App: c.style == warder, Gate: c.kind.checks(), Named: c.kind == named, Token: c.kind == seenToken || c.kind == unseenToken, CacheSize: max(c.keys, someMemory),
	}}
	if c.proxied {
		r.Upstream = upstream
	}
	if err := r.configure(); err != nil {
		return nil, fmt.Errorf("configuring %s: %w", c.name, err)
	}
	return r, r.start(prefix, env...)
}

func (r *running) start(prefix []string, env ...string) (err error) {
	argv := map[style][]string{
		stock:   {r.program, "run", "--config", "Caddyfile"},
		warder:  {r.program, "run", "--config", "Caddyfile"},
		nginx:   {r.program, "-p", r.dir, "-c", "nginx.conf", "-e", "stderr"},
		haproxy: {r.program, "-db", "-f", "haproxy.cfg"},
	}[r.style]
	r.process, err = start(r.name, r.dir, r.Port, serverCore, append(prefix, argv...), env...)
	if err != nil || r.header != "" || !r.kind.checks() {
		return err
	}
	if err := r.authorize(); err != nil {
		r.kill()
		return fmt.Errorf("getting a credential for %s: %w", r.name, err)
	}
	return nil
}

func (r *running) configure() (err error) {
	for _, port := range []*int{&r.Port, &r.Admin, &r.Issuer} {
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	name := map[style]string{stock: "Caddyfile", warder: "Caddyfile", nginx: "nginx.conf", haproxy: "haproxy.cfg"}[r.style]
	text, err := template.ParseFS(configFiles, "config/"+name)
	if err != nil {
		return err
	}
	file, err := os.Create(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	defer file.Close()
	if r.style == nginx || r.style == haproxy {
		if err := r.writeCredentials(); err != nil {
			return err
		}
	}
	return text.Execute(file, r.settings)
}

// writeCredentials writes what a peer knows its callers by.
func (r *running) writeCredentials() error {
	if r.Token {
		token, public, err := signedToken()
		if err != nil {
			return err
		}
		r.header = "Bearer " + token
		return os.WriteFile(filepath.Join(r.dir, "public.pem"), public, 0o600)
	}
	if !r.Gate {
		return nil
	}
	var forNginx, forHAProxy strings.Builder
	for i := range fewKeys {
		r.header = "Bearer " + madeUpKey(uint64(i))
		fmt.Fprintf(&forNginx, "%q key-%d;\n", r.header, i)
		fmt.Fprintf(&forHAProxy, "%s key-%d\n", madeUpKey(uint64(i)), i)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "nginx.map"), []byte(forNginx.String()), 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.dir, "haproxy.map"), []byte(forHAProxy.String()), 0o600)
}

// usual is what a client says beside its credential; here, what Python's
// requests does. Some of what a request costs depends on how many there are.
var usual = []string{"User-Agent: python-requests/2.32.5", "Accept-Encoding: gzip, deflate", "Accept: */*", "Connection: keep-alive"}

// request is the text of one request with a credential, or none.
func (r *running) request(header string) []byte {
	lines := append([]string{"GET /v1/hello HTTP/1.1", "Host: " + r.address()}, usual...)
	if header != "" {
		lines = append(lines, "Authorization: "+header)
	}
	return []byte(strings.Join(append(lines, "", ""), "\r\n"))
}
