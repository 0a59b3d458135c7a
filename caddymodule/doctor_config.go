package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// configuration is Caddy's as the doctor reads it.
type configuration struct {
	Admin struct {
		Disabled bool   `json:"disabled"`
		Listen   string `json:"listen"`
	} `json:"admin"`
	Apps struct {
		HTTP struct {
			Servers map[string]server `json:"servers"`
		} `json:"http"`
		Warder *App `json:"warder"`
	} `json:"apps"`

	App    *App
	Driver string
	Store  StoreModule
}

// server is one of Caddy's HTTP servers, as far as it matters here.
type server struct {
	Listen  []string        `json:"listen"`
	Trusted json.RawMessage `json:"trusted_proxies"`
	TLS     json.RawMessage `json:"tls_connection_policies"`
	Logs    struct {
		Credentials bool `json:"should_log_credentials"`
	} `json:"logs"`
	AutoHTTPS struct {
		Disabled bool `json:"disable"`
	} `json:"automatic_https"`
	Routes json.RawMessage `json:"routes"`
}

// readConfiguration reads Caddy's JSON, and finds the store that it names.
func readConfiguration(text []byte) (*configuration, error) {
	c := new(configuration)
	if err := json.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if c.App = c.Apps.Warder; c.App == nil {
		return nil, errors.New("it has no warder app")
	}
	c.App.setDefaults()
	var chosen struct {
		Driver string `json:"driver"`
	}
	if err := json.Unmarshal(c.App.StoreRaw, &chosen); err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	c.Driver = chosen.Driver
	if module, err := caddy.GetModule("warder.stores." + c.Driver); err == nil { // else provisioning says so
		store := module.New()
		if json.Unmarshal(c.App.StoreRaw, store) == nil {
			c.Store, _ = store.(StoreModule)
		}
	}
	return c, nil
}

func (c *configuration) adminAddress() string {
	return orWord(c.Admin.Listen, caddy.DefaultAdminListen)
}

// issuerURL is the issuer's without placeholders, empty if it cannot be known.
func (c *configuration) issuerURL() string {
	url, err := caddy.NewReplacer().ReplaceOrErr(c.App.Issuer.URL, true, true)
	if err != nil {
		return ""
	}
	return url
}

func (c *configuration) logsCredentials() bool {
	return c.anyServer(func(s *server) bool { return s.Logs.Credentials })
}

func (c *configuration) trustsProxies() bool {
	return c.anyServer(func(s *server) bool { return len(s.Trusted) > 0 })
}

// terminatesTLS: a server does so if it is told how, or by itself on its port.
func (c *configuration) terminatesTLS() bool {
	return c.anyServer(func(s *server) bool {
		for _, listen := range s.Listen {
			if strings.HasSuffix(listen, ":443") && !s.AutoHTTPS.Disabled {
				return true
			}
		}
		return len(s.TLS) > 0
	})
}

// serves reports whether a handler stands anywhere in the routes.
func (c *configuration) serves(handler string) bool {
	return c.anyServer(func(s *server) bool { return strings.Contains(string(s.Routes), `"`+handler+`"`) })
}

func (c *configuration) anyServer(is func(*server) bool) bool {
	for _, s := range c.Apps.HTTP.Servers {
		if is(&s) {
			return true
		}
	}
	return false
}

// errNoRoom says nothing about the configuration.
var errNoRoom = errors.New("it cannot be tried")

// provisioned returns why a configuration would not be served. It provisions
// all of it, on an empty store, with logs and Caddy's own storage in a
// directory that is removed: so it touches nothing that is there.
func provisioned(text []byte) error {
	dir, err := os.MkdirTemp("", "warder-doctor-")
	if err != nil {
		return fmt.Errorf("%w: %w", errNoRoom, err)
	}
	defer os.RemoveAll(dir)
	trial, err := onTrial(text, dir)
	if err != nil {
		return err
	}
	return caddy.Validate(trial)
}

// onTrial returns the configuration with stand-ins below dir.
func onTrial(text []byte, dir string) (*caddy.Config, error) {
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	app := member(member(config, "apps"), "warder")
	app["store"] = map[string]any{"driver": "sqlite", "path": filepath.Join(dir, "warder.db")}
	config["storage"] = map[string]any{"module": "file_system", "root": filepath.Join(dir, "storage")}
	logs := member(member(config, "logging"), "logs")
	for name := range logs {
		member(logs, name)["writer"] = quiet(dir)
	}
	member(logs, "default")["writer"] = quiet(dir)
	if _, redirected := member(config, "logging")["sink"]; redirected {
		member(member(config, "logging"), "sink")["writer"] = quiet(dir)
	}
	changed, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	trial := new(caddy.Config)
	if err := json.Unmarshal(changed, trial); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return trial, nil
}

// quiet is a file: what a log that is discarded would show, nobody could see.
func quiet(dir string) map[string]any {
	return map[string]any{"output": "file", "filename": filepath.Join(dir, "log")}
}

// member returns an object in an object, made if it is not there.
func member(object map[string]any, name string) map[string]any {
	inner, ok := object[name].(map[string]any)
	if !ok {
		inner = make(map[string]any)
		object[name] = inner
	}
	return inner
}
