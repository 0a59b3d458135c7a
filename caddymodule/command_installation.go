package caddymodule

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
)

// installation is the SQLite database of a server that does not run, and what
// opens it, by the configuration.
type installation struct {
	path             string
	master, previous keystore.MasterKey // zero: not configured
}

// keyFile returns where the master key is; empty: it is configured.
func (i *installation) keyFile() string {
	if !i.master.IsZero() {
		return ""
	}
	return sqlite.KeyFile(i.path)
}

// keyOf returns the file that holds the key which opens sealed; empty: it is
// configured. keystore.ErrWrongMasterKey if there is none here that does.
func (i *installation) keyOf(sealed keystore.SealedSecret) (file string, err error) {
	if i.master.IsZero() {
		return sqlite.KeyFileFor(i.path, sealed)
	}
	for _, master := range append([]keystore.MasterKey{i.master}, i.others()...) {
		if _, err = keystore.OpenStoreSecret(master, sealed); !errors.Is(err, keystore.ErrWrongMasterKey) {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("opening database %s with the configured master_key: %w", i.path, err)
	}
	return "", nil
}

// others are the keys that the database may be sealed under beside the present.
func (i *installation) others() []keystore.MasterKey {
	if i.previous.IsZero() {
		return nil
	}
	return []keystore.MasterKey{i.previous}
}

// installation finds the database as the server would.
func (s *session) installation() (*installation, error) {
	var app App
	if s.given("database") {
		return installationAt(s.text("database"), &app)
	}
	config, err := readConfig(s.text("config"), s.text("adapter"))
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Apps struct {
			Warder json.RawMessage `json:"warder"`
		} `json:"apps"`
	}
	if err := json.Unmarshal(config, &parsed); err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if len(parsed.Apps.Warder) > 0 {
		if err := caddy.StrictUnmarshalJSON(parsed.Apps.Warder, &app); err != nil {
			return nil, fmt.Errorf("reading the configuration: %w", err)
		}
	}
	store := struct {
		Driver string `json:"driver"`
		Path   string `json:"path"`
	}{Driver: "sqlite"}
	if len(app.StoreRaw) > 0 {
		if err := json.Unmarshal(app.StoreRaw, &store); err != nil {
			return nil, fmt.Errorf("reading the configuration: %w", err)
		}
	}
	if store.Driver != "sqlite" {
		return nil, statef("the store of this configuration is kept by %s, whose own tools back it up and restore it; see docs/operation.md", store.Driver)
	}
	return installationAt(store.Path, &app)
}

func installationAt(path string, app *App) (i *installation, err error) {
	store := &SQLiteStore{Path: path}
	if err := store.Provision(caddy.Context{}); err != nil {
		return nil, err
	}
	i = &installation{path: store.Path}
	if i.master, err = masterKey("master_key", app.MasterKey); err != nil {
		return nil, err
	}
	i.previous, err = masterKey("previous_master_key", app.PreviousMasterKey)
	return i, err
}

const defaultConfig = "Caddyfile"

// readConfig returns a configuration as JSON. It says nothing about it, as
// Caddy's own way of loading would.
func readConfig(name, adapter string) ([]byte, error) {
	given := name != ""
	if !given {
		name = defaultConfig
	}
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return nil, usagef("no server runs, and there is no Caddyfile here: name the configuration with --config, or the database with --database")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	if adapter == "" && isCaddyfileName(name) {
		adapter = "caddyfile"
	}
	if adapter == "" {
		return text, nil
	}
	a := caddyconfig.GetAdapter(adapter)
	if a == nil {
		return nil, usagef("--adapter: there is no %q", adapter)
	}
	config, _, err := a.Adapt(text, map[string]any{"filename": name})
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return config, nil
}

func isCaddyfileName(name string) bool {
	base := strings.ToLower(filepath.Base(name))
	return filepath.Ext(base) != ".json" && (strings.HasPrefix(base, "caddyfile") || strings.HasSuffix(base, ".caddyfile"))
}
