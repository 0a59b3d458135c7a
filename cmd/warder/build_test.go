package main_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// custom is the main package that xcaddy writes.
const custom = `package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/warderhq/warder/caddymodule"
)

func main() { caddycmd.Main() }
`

// buildTime bounds a build, which links at least, and compiles everything if
// nothing has before.
const buildTime = 10 * time.Minute

// buildCustom makes a Caddy of its own in dir with the module beside the
// standard ones. It takes over exactly the versions that the module was built
// with, so that nothing is fetched and nothing compiled twice.
func buildCustom(t *testing.T, dir string) string {
	t.Helper()
	repository, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"main.go": custom,
		"go.mod": strings.Replace(readFile(t, filepath.Join(repository, "go.mod")), "module github.com/warderhq/warder", "module custom", 1) +
			"\nrequire github.com/warderhq/warder v0.0.0\n\nreplace github.com/warderhq/warder => " + repository + "\n",
		"go.sum": readFile(t, filepath.Join(repository, "go.sum")),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "caddy")
	goBuild(t, dir, "-mod=mod", "-o", out, ".")
	return out
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// goBuild builds without cgo and without a network.
func goBuild(t *testing.T, dir string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"build"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOPROXY=off", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %q: %v\n%s", args, err, out)
	}
}

var modules = []string{"admin.api.warder", "http.handlers.warder", "http.handlers.warder_issuer", "warder", "warder.stores.sqlite"}

// TestCustomCaddy: the module in somebody else's Caddy is all there, and its
// commands stay below one of their own.
func TestCustomCaddy(t *testing.T) {
	if testing.Short() {
		t.Skip("links a Caddy")
	}
	t.Parallel()
	s := newSite(t, example(t))
	caddy := buildCustom(t, filepath.Dir(s.dir))
	checkModules(t, s.run(caddy, "list-modules"))
	for _, command := range []string{"keys", "organizations", "permissions", "signing-keys", "usage", "audit", "import", "backup", "restore", "master-key"} {
		help := s.run(caddy, "warder", command, "--help")
		if help.code != 0 {
			t.Errorf("caddy warder %s --help: %d %s", command, help.code, help.stderr)
		}
		contains(t, command, help.stdout, "caddy warder "+command)
	}
	if done := s.run(caddy, "keys", "--help"); strings.Contains(done.stdout, "API keys") {
		t.Errorf("the short forms reached a Caddy that is not Warder's:\n%s", done.stdout)
	}
	if done := s.run(caddy, "validate", "--config", "Caddyfile"); done.code != 0 {
		t.Errorf("caddy validate: %d %s", done.code, done.stderr)
	}
}

// TestBinary: the one that everything here runs is Caddy with the module, is
// built without cgo, and knows the short forms.
func TestBinary(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	checkModules(t, s.warder("list-modules"))
	contains(t, "its settings", s.run("go", "version", "-m", binary).stdout, "CGO_ENABLED=0", "github.com/warderhq/warder/cmd/warder")
	help := s.warder("keys", "--help")
	contains(t, "keys --help", help.stdout, "warder keys", "create", "block", "Exit codes")
	contains(t, "help", s.warder("--help").stdout, "warder keys create", "warder run")
}

// TestVersionStamp: a release and an image call themselves what they are told
// to.
func TestVersionStamp(t *testing.T) {
	t.Parallel()
	repository := filepath.Join("..", "..")
	built := map[string]string{}
	for _, file := range []string{"Makefile", "Dockerfile"} {
		found := versionStamp.FindStringSubmatch(readFile(t, filepath.Join(repository, file)))
		if found == nil {
			t.Fatalf("%s stamps no version", file)
		}
		built[found[1]] = file
	}
	for variable, file := range built { // one, unless they differ
		s := newSite(t, example(t))
		out := filepath.Join(filepath.Dir(s.dir), "stamped")
		goBuild(t, repository, "-ldflags", "-X "+variable+"=v9.8.7", "-o", out, "./cmd/warder")
		if got := s.run(out, "version").stdout; !strings.HasPrefix(got, "v9.8.7") {
			t.Errorf("stamped as in %s it is version %s", file, got)
		}
	}
}

var versionStamp = regexp.MustCompile(`-X ([\w./]+)=\$`)

func checkModules(t *testing.T, done ended) {
	t.Helper()
	if done.code != 0 {
		t.Errorf("list-modules: %d %s", done.code, done.stderr)
	}
	listed := map[string]bool{}
	for line := range strings.Lines(done.stdout) {
		listed[strings.TrimSpace(line)] = true
	}
	for _, module := range append(modules, "http.handlers.reverse_proxy", "tls") {
		if !listed[module] {
			t.Errorf("%s is not among the modules", module)
		}
	}
}
