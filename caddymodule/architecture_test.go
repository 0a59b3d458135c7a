package caddymodule

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows are the packages of ours that a package may import. One that is not
// here may import none.
var arrows = map[string][]string{
	".":                                 {"caddymodule"},
	"cmd/warder":                        {"caddymodule"},
	"caddymodule":                       {"managementapi", "managementapi/dialect", "tokenissuer", "keystore", "keystore/sqlite", "keystore/postgres"},
	"managementapi":                     {"tokenissuer", "keystore"},
	"managementapi/dialect":             {"managementapi", "tokenissuer", "keystore"},
	"managementapi/dialect/dialecttest": {"tokenissuer", "keystore", "keystore/sqlite"},
	"tokenissuer":                       {"keystore"},
	"keystore":                          nil,
	"keystore/sqlite":                   {"keystore"},
	"keystore/postgres":                 {"keystore"},
	"keystore/storetest":                {"keystore"},
	"bench":                             nil,
	"bench/caddy":                       nil,

	"keystore/postgres/postgrestest":              nil,
	"keystore/postgres/postgrestest/postgresonce": {"keystore/postgres/postgrestest"},
}

const caddyPrefix = "github.com/caddyserver/"

// confined are dependencies that stay behind one door.
var confined = map[string][]string{
	caddyPrefix:                      {"caddymodule", "cmd/warder", "bench/caddy"}, // of tests, too: they take minutes to compile
	"github.com/lestrrat-go/":        {"tokenissuer"},
	"github.com/dgraph-io/ristretto": {"tokenissuer"},
	"modernc.org/":                   {"keystore/sqlite"},
	"database/sql":                   {"keystore/sqlite"},
	"github.com/jackc/":              {"keystore/postgres", "keystore/postgres/postgrestest"},
	"go.uber.org/zap":                {"caddymodule"},
	"github.com/prometheus/":         {"caddymodule"},
	"go.opentelemetry.io/":           {"caddymodule"},
	"github.com/spf13/cobra":         {"caddymodule"},
	"net/http":                       {"bench", "caddymodule", "cmd/warder", "managementapi", "managementapi/dialect", "managementapi/dialect/dialecttest", "tokenissuer"},
	"testing":                        {"keystore/postgres/postgrestest", "keystore/storetest", "managementapi/dialect/dialecttest"},

	// Clients that others use, and what judges the OpenAPI document.
	"github.com/cloudflare/":      {onlyTests},
	"github.com/coreos/go-oidc":   {onlyTests},
	"github.com/golang-jwt/":      {onlyTests},
	"github.com/santhosh-tekuri/": {onlyTests},
	"golang.org/x/oauth2":         {onlyTests},

	// What receives spans.
	"google.golang.org/protobuf": {onlyTests},
}

const onlyTests = "tests" // no package of that name exists

// TestArrows holds the shape of the house: who may know of whom.
func TestArrows(t *testing.T) {
	seen := make(map[string]bool)
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != ".." && strings.HasPrefix(entry.Name(), "."):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go"):
			return nil
		}
		from := path.Dir(strings.TrimPrefix(filepath.ToSlash(name), "../"))
		test := strings.HasSuffix(name, "_test.go")
		seen[from] = seen[from] || !test
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			checkImport(t, name, from, imported, test)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for from := range arrows {
		if !seen[from] {
			t.Errorf("there is no package %s: take it off the list", from)
		}
	}
}

func checkImport(t *testing.T, file, from, imported string, test bool) {
	t.Helper()
	if ours, ok := strings.CutPrefix(imported+"/", modulePath+"/"); ok {
		// Tests may look at their package from outside, and with its users.
		if to := path.Clean("./" + ours); !test && !slices.Contains(arrows[from], to) {
			t.Errorf("%s: %s must not know of %s", file, from, to)
		}
		return
	}
	for prefix, homes := range confined {
		within := imported == prefix || strings.HasPrefix(imported, prefix) && strings.Contains(prefix, ".")
		if within && !slices.Contains(homes, from) && (!test || prefix == caddyPrefix) {
			t.Errorf("%s: %s belongs behind %s", file, imported, strings.Join(homes, ", "))
		}
	}
}
