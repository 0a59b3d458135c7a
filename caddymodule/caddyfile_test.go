package caddymodule

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// TestAdapt compares Caddyfiles with the JSON that they become, or the error
// that they end in. Each file below testdata/adapt holds both.
func TestAdapt(t *testing.T) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".caddyfiletest"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, found := strings.Cut(string(text), "----------\n")
			if !found || want == "" {
				t.Fatal("the file has no second half")
			}
			if got := adapted(t, input); got != want {
				t.Errorf("adapted to\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func adapted(t *testing.T, input string) string {
	t.Helper()
	config, err := adapt(input)
	if err != nil {
		return err.Error() + "\n"
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, config, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return pretty.String() + "\n"
}

// However the directives are written, they run in one order.
func TestDirectiveOrder(t *testing.T) {
	lines := []string{"warder_health", "warder_issuer", "warder_admin", "warder", "basic_auth {\nsomeone $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}", "reverse_proxy 127.0.0.1:9000"}
	var first string
	permute(lines, func(order []string) {
		got := adapted(t, ":8080 {\n"+strings.Join(order, "\n")+"\n}\n")
		if first == "" {
			first = got
		}
		if got != first {
			t.Errorf("written as %q they run in another order:\n%s", order, got)
		}
	})
	last := -1
	for _, handler := range []string{`"warder_health"`, `"warder_issuer"`, `"warder_admin"`, `"warder"`, `"authentication"`, `"reverse_proxy"`} {
		at := strings.Index(first, `"handler": `+handler)
		if at <= last {
			t.Errorf("%s does not stand in its place:\n%s", handler, first)
		}
		last = at
	}
}

// permute calls fn with every order of items.
func permute(items []string, fn func([]string)) {
	var place func(chosen, left []string)
	place = func(chosen, left []string) {
		if len(left) == 0 {
			fn(chosen)
		}
		for i := range left {
			rest := append(append([]string{}, left[:i]...), left[i+1:]...)
			place(append(append([]string{}, chosen...), left[i]), rest)
		}
	}
	place(nil, items)
}

// What parses but cannot be meant is refused when it is provisioned, with the
// option's name.
func TestProvisioningRefuses(t *testing.T) {
	for _, row := range []struct{ app, gate, want string }{
		{"prefix with-hyphen", "", "prefix"},
		{"prefix abcdefghijklmnopq", "", "prefix"},
		{"admin_api everywhere", "", "admin_api"},
		{"master_key short", "", "master_key"},
		{"master_key {env.WARDER_TEST_UNSET}", "", "master_key"},
		{"previous_master_key short", "", "previous_master_key"},
		{"issuer ftp://id.example", "", "issuer"},
		{"issuer http://id.example?x", "", "issuer"},
		{"issuer http://id.example {\nalgorithm HS256\n}", "", "algorithm"},
		{"issuer http://id.example {\ntoken_ttl 100ms\n}", "", "token_ttl"},
		{"issuer http://id.example {\ntoken_ttl 25h\n}", "", "token_ttl"},
		{"", "public healthz", "public"},
		{"", "public /a/../b", "public"},
		{"", "public /a*", "public"},
		{"", "require type gold", "require_types"},
		{"", "require scope \"two words\"", "require_scopes"},
		{"", "preflight maybe", "preflight"},
		{"", "realm `with \"quotes\"`", "realm"},
		{"", "credential header \"X Api Key\"", "credential_header"},
		{"", "credential header X-Warder-Key-Id", "credential_header"},
		{"", "credential header x_warder_secret", "credential_header"},
		{"", "identity_prefix X", "identity_prefix"},
		{"", "identity_prefix \"X Y\"", "identity_prefix"},
	} {
		w := newWorld(t)
		if err := w.load(siteConfig("", row.app, "warder {\n"+row.gate+"\n}")); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s%s: %v, want an error about %s", row.app, row.gate, err, row.want)
		}
	}
}

func TestIssuerHandlerNeedsAnIssuer(t *testing.T) {
	w := newWorld(t)
	if err := w.load(siteConfig("", "", "warder_issuer")); err == nil || !strings.Contains(err.Error(), "issuer") {
		t.Errorf("err = %v, want one about the missing issuer", err)
	}
	w = newWorld(t)
	if err := w.load(siteConfig("", "issuer http://x", "warder_issuer {\npath_prefix auth\n}")); err == nil || !strings.Contains(err.Error(), "path_prefix") {
		t.Errorf("err = %v, want one about path_prefix", err)
	}
}

// FuzzCaddyfile: no text makes the parsers of the options panic or hang.
func FuzzCaddyfile(f *testing.F) {
	files, err := filepath.Glob("testdata/adapt/*.caddyfiletest")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		input, _, _ := strings.Cut(string(text), "----------\n")
		if _, block, found := strings.Cut(input, "warder"); found {
			f.Add("warder" + block)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := caddyfile.Tokenize([]byte(text), "Caddyfile")
		if err != nil {
			return
		}
		for _, into := range []caddyfile.Unmarshaler{new(App), new(Handler), new(IssuerHandler), new(AdminHandler), new(SQLiteStore), new(PostgresStore)} {
			if into.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)) != nil {
				continue
			}
			if _, err := json.Marshal(into); err != nil {
				t.Errorf("%q is accepted as %T, which does not become JSON: %v", text, into, err)
			}
		}
	})
}
