package caddymodule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/warderhq/warder/managementapi"
)

// ran is what a command has left.
type ran struct {
	t      *testing.T
	line   string
	out    string
	errors string
	code   int
}

// command runs one in this process, in a tree as Caddy's main builds it.
func command(t *testing.T, args ...string) ran {
	t.Helper()
	return commandReading(t, "", args...)
}

// commandReading runs one with input on its standard input.
func commandReading(t *testing.T, input string, args ...string) ran {
	t.Helper()
	root := &cobra.Command{Use: "warder", SilenceUsage: true}
	for _, c := range Commands() {
		child := &cobra.Command{Use: strings.TrimSpace(c.Name + " " + c.Usage), Short: c.Short, Long: c.Long}
		c.CobraFunc(child)
		root.AddCommand(child)
	}
	var out, errors bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errors)
	root.SetIn(strings.NewReader(input))
	root.SetArgs(args)
	err := root.ExecuteContext(t.Context())
	return ran{t, strings.Join(args, " "), out.String(), errors.String(), codeOf(err)}
}

// codeOf is how Caddy's main ends on err.
func codeOf(err error) int {
	if err == nil {
		return 0
	}
	if code := reflect.Indirect(reflect.ValueOf(err)).FieldByName("ExitCode"); code.IsValid() {
		return int(code.Int())
	}
	return 1
}

// on runs a command against the world's admin endpoint.
func (w *world) command(args ...string) ran {
	w.t.Helper()
	return command(w.t.(*testing.T), append(args, "--address", w.admin)...)
}

func (w *world) commandReading(input string, args ...string) ran {
	w.t.Helper()
	return commandReading(w.t.(*testing.T), input, append(args, "--address", w.admin)...)
}

// done demands success, and silence but for what is said.
func (r ran) done() ran {
	r.t.Helper()
	if r.code != 0 || strings.Contains(r.errors, "rror") {
		r.t.Fatalf("%s: exit code %d, %s", r.line, r.code, r.errors)
	}
	return r
}

// fails demands an exit code and one line on standard error, with the words.
func (r ran) fails(code int, words ...string) {
	r.t.Helper()
	if r.code != code || strings.Count(r.errors, "\n") != 1 || !strings.HasPrefix(r.errors, "warder: ") || r.out != "" {
		r.t.Errorf("%s: exit code %d, want %d; %q %q", r.line, r.code, code, r.errors, r.out)
	}
	for _, word := range words {
		if !strings.Contains(r.errors, word) {
			r.t.Errorf("%s: %q does not say %q", r.line, r.errors, word)
		}
	}
}

func read[T any](r ran) (v T) {
	r.t.Helper()
	r.done()
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		r.t.Fatalf("%s: %v in %q", r.line, err, r.out)
	}
	return v
}

// The README's tour: eval makes the key usable in this shell and in what it
// starts.
func TestCommandTour(t *testing.T) {
	w := start(t, guarded("", ""))
	r := w.command("keys", "create", "--name", "it's", "--scope", "hello:read", "--scope", "b", "--format", "env").done()
	shell := exec.Command("sh", "-euc", `eval "$1"; sh -c 'echo "$WARDER_KEY_ID $WARDER_API_KEY $WARDER_ACCESS_KEY $WARDER_SECRET_KEY"'`, "sh", r.out)
	out, err := shell.CombinedOutput()
	words := strings.Fields(string(out))
	if err != nil || len(words) != 4 {
		t.Fatalf("%v: %s", err, out)
	}
	id, key := words[0], words[1]
	wantStatus(t, "the new key", w.get("/v1/hello", "Authorization: Token "+key), http.StatusOK)
	if shown := w.command("keys", "get", id).done().out; !strings.Contains(shown, "it's") || !strings.Contains(shown, "b hello:read") ||
		!strings.Contains(shown, "Never Expires") || strings.Contains(shown, words[3]) {
		t.Errorf("%s", shown)
	}
	if shown := w.command("keys", "block", id).done().out; !strings.Contains(shown, "blocked") {
		t.Errorf("%s", shown)
	}
	wantStatus(t, "the blocked key", w.get("/v1/hello", "Authorization: Token "+key), http.StatusUnauthorized)
}

func TestKeyCommands(t *testing.T) {
	w := start(t, guarded("", ""))
	file := filepath.Join(w.dir, "metadata.json")
	if err := os.WriteFile(file, []byte(`{"team":"blue"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	key := read[managementapi.IssuedKey](w.command("keys", "create", "--name", "k", "--type", "standard", "--expires-in", "30d", "--metadata", "@"+file, "--json"))
	if key.Expires != "Expires in: 30 days" || string(key.Metadata) == "" || key.APIKey == "" || key.SecretKey == "" || key.AccessKey == "" {
		t.Errorf("%+v", key.Key)
	}
	id := string(key.ID)
	state := func(verb string, args ...string) managementapi.Key {
		t.Helper()
		return read[managementapi.Key](w.command(append([]string{"keys", verb, id, "--json"}, args...)...))
	}
	for _, step := range [][]string{
		{"deactivate", "deactivated"}, {"block", "blocked"}, {"unblock", "deactivated"}, {"activate", "active"}, {"expire", "expired"}, {"renew", "active", "--days", "5d"},
	} {
		if got := state(step[0], step[2:]...); got.State != step[1] {
			t.Errorf("%s: %s, want %s", step[0], got.State, step[1])
		}
	}
	revision := state("get").Revision
	got := state("update", "--name", "m", "--scope", "x", "--scope", "y", "--metadata", `{"team":null,"n":1}`, "--if-match", fmt.Sprint(revision))
	if got.Name != "m" || strings.Join(got.Scopes, " ") != "x y" || strings.Contains(string(got.Metadata), "team") || got.Expires != "Expires in: 5 days" {
		t.Errorf("%+v %s", got, got.Metadata)
	}
	if got := state("update", "--name", "", "--scope", "", "--metadata", "null"); got.Name != "" || len(got.Scopes) != 0 || string(got.Metadata) != "{}" {
		t.Errorf("%+v", got)
	}
	second := read[managementapi.IssuedKey](w.command("keys", "rotate", id, "--json", "--idempotency-key", "r1"))
	if again := read[managementapi.IssuedKey](w.command("keys", "rotate", id, "--json", "--idempotency-key", "r1")); again.SecretKey != second.SecretKey || second.GraceEnd == nil {
		t.Errorf("%+v %+v", second.Key, again.Key)
	}
	if third := read[managementapi.IssuedKey](w.command("keys", "rotate", id, "--force", "--json")); third.GraceEnd != nil || third.Generation != 3 {
		t.Errorf("%+v", third.Key)
	}
	at := time.Now().Add(72 * time.Hour).UTC().Format(time.RFC3339)
	if fourth := read[managementapi.IssuedKey](w.command("keys", "regenerate", id, "--expires-at", at, "--json")); fourth.Expires != "Expires in: 3 days" || fourth.AccessKey == second.AccessKey {
		t.Errorf("%+v", fourth.Key)
	}
	if table := w.command("keys", "regenerate", id).done().out; !strings.Contains(table, "API key") || !strings.Contains(table, "Secret key") {
		t.Errorf("%s", table)
	}
	if out := w.command("keys", "delete", id).done().out; out != "deleted "+id+"\n" {
		t.Errorf("%s", out)
	}
	w.command("keys", "get", id).fails(exitNotFound, "no such key")
}

func TestListCommandPagesThroughEverything(t *testing.T) {
	w := start(t, guarded("", ""))
	for i := range 5 {
		w.create(fields{"name": fmt.Sprintf("k%d", i)})
	}
	w.command("keys", "block", string(w.create(fields{"name": "bad"}).ID)).done()
	count := func(args ...string) int {
		t.Helper()
		return len(read[[]managementapi.Key](w.command(append([]string{"keys", "list", "--json"}, args...)...)))
	}
	if all, three, blocked, trial := count(), count("--limit", "3"), count("--state", "blocked"), count("--type", "trial", "--organization", "default"); all != 6 || three != 3 || blocked != 1 || trial != 0 {
		t.Errorf("%d %d %d %d", all, three, blocked, trial)
	}
	table := w.command("keys", "list", "--state", "blocked").done().out
	if strings.Count(table, "\n") != 2 || !strings.Contains(table, "bad") || !strings.Contains(table, "Never Expires") {
		t.Errorf("%s", table)
	}
	w.command("keys", "list", "--state", "odd").fails(exitUsage, "--state: must be")
	w.command("keys", "list", "--limit", "0").fails(exitUsage, "--limit")
}

// More keys than one call gives.
func TestListCommandFollowsTheCursor(t *testing.T) {
	const pages = 3
	asked := 0
	fake := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/keys") {
			fmt.Fprint(rw, `{"service":"warder"}`)
			return
		}
		asked++
		next := "null"
		if after := r.URL.Query().Get("after"); asked > 1 && after != fmt.Sprint(asked-1) {
			t.Errorf("call %d after %q", asked, after)
		}
		if asked < pages {
			next = fmt.Sprintf(`"%d"`, asked)
		}
		fmt.Fprintf(rw, `{"keys":[{"id":"key_%d","name":"\u001b[31m"}],"next":%s}`, asked, next)
	}))
	defer fake.Close()
	r := command(t, "keys", "list", "--address", fake.Listener.Addr().String()).done()
	if asked != pages || !strings.Contains(r.out, "key_3") || strings.Contains(r.out, "\x1b") {
		t.Errorf("%d calls: %q", asked, r.out)
	}
}

func TestOrganizationCommands(t *testing.T) {
	w := start(t, guarded("", ""))
	made := w.command("keys", "create", "--organization", "acme", "--name", "first", "--json")
	if key := read[managementapi.IssuedKey](made); key.Organization != "acme" || !strings.Contains(made.errors, "acme") {
		t.Errorf("%+v %q", key.Key, made.errors)
	}
	if second := w.command("keys", "create", "--organization", "acme", "--name", "second", "--json").done(); second.errors != "" {
		t.Errorf("%q", second.errors)
	}
	w.command("keys", "create", "--organization", "acme", "--name", "second").fails(exitState, "--name", "choose another")
	w.command("keys", "create", "--organization", "elsewhere", "--type", "trial").fails(exitNotFound, "no such organization")
	w.command("keys", "create", "--organization", "Not a slug").fails(exitUsage, "--organization")

	w.command("organizations", "update", "acme", "--default-expiry", "30d", "--maximum-expiry", "90", "--allowed-scope", "a", "--allowed-scope", "b").done()
	if table := w.command("organizations", "list").done().out; !strings.Contains(table, "acme") || !strings.Contains(table, "30d") || !strings.Contains(table, "a b") || !strings.Contains(table, "all but warder:*") {
		t.Errorf("%s", table)
	}
	w.command("keys", "create", "--organization", "acme", "--scope", "c").fails(exitUsage, "--scope")
	org := read[managementapi.Organization](w.command("organizations", "update", "acme", "--default-expiry", "never", "--maximum-expiry", "none", "--allow-all-scopes", "--metadata", `{"plan":1}`, "--json"))
	if org.DefaultExpiryDays != nil || org.MaximumExpiryDays != nil || org.AllowedScopes != nil || string(org.Metadata) == "{}" {
		t.Errorf("%+v", org)
	}
	w.command("organizations", "update", "acme", "--if-match", "1", "--default-expiry", "3d").fails(exitState, "--if-match")
	w.command("organizations", "update", "acme").fails(exitUsage, "nothing to change")
	w.command("organizations", "update", "acme", "--default-expiry", "soon").fails(exitUsage, "--default-expiry")
	w.command("organizations", "update", "nowhere", "--default-expiry", "3d").fails(exitNotFound)
}

// A retry after a lost answer makes neither a second key nor a second
// organization, whichever of the two calls it was that got through.
func TestCreateCommandRetried(t *testing.T) {
	w := start(t, guarded("", ""))
	for _, organization := range []string{"fresh", "default"} {
		args := []string{"keys", "create", "--organization", organization, "--idempotency-key", "once-" + organization, "--json"}
		first := read[managementapi.IssuedKey](w.command(args...))
		second := read[managementapi.IssuedKey](w.command(args...))
		if second.ID != first.ID || second.SecretKey != first.SecretKey {
			t.Errorf("%s: two keys: %s %s", organization, first.ID, second.ID)
		}
		w.command(append(args, "--name", "other")...).fails(exitState, "Idempotency-Key")
	}
}

func TestSigningKeyCommands(t *testing.T) {
	w := start(t, guarded("", ""))
	if table := w.command("signing-keys", "list").done().out; !strings.Contains(table, "active") || !strings.Contains(table, "next") {
		t.Errorf("%s", table)
	}
	if out := w.command("signing-keys", "rotate").done().out; !strings.Contains(out, "will sign from") {
		t.Errorf("%s", out)
	}
	done := read[managementapi.SigningRotation](w.command("signing-keys", "rotate", "--emergency", "--json"))
	if table := w.command("signing-keys", "list").done().out; !strings.Contains(table, done.KID) {
		t.Errorf("%s", table)
	}
}

func TestCommandMistakes(t *testing.T) {
	for _, c := range []struct{ line, word string }{
		{"keys frobnicate", "frobnicate"},
		{"keys create --nmae demo", "--nmae"},
		{"keys create extra", "keys create"},
		{"keys get", "keys get <id>"},
		{"keys get key_a key_b", "keys get <id>"},
		{"keys get demo", "no key id"},
		{"keys get ../organizations", "no key id"},
		{"keys create --expires-in soon", "--expires-in"},
		{"keys create --expires-in 3d --expires-at 2030-01-01T00:00:00Z", "--expires-at"},
		{"keys create --expires-at tomorrow", "--expires-at"},
		{"keys create --metadata {", "--metadata"},
		{"keys list --format xml", "--format"},
		{"keys list --format env", "--format env"},
		{"keys list --json --format table", "contradict"},
		{"keys renew key_a", "--days"},
		{"keys update key_a", "nothing to change"},
		{"keys list --address localhost:1-9", "--address"},
		{"keys --frob", "--frob"},
	} {
		command(t, strings.Fields(c.line)...).fails(exitUsage, c.word)
	}
	if r := command(t, "keys"); r.code != 0 || !strings.Contains(r.out, "create") {
		t.Errorf("%d %q", r.code, r.out)
	}
}

func TestCommandMeetsNoWarder(t *testing.T) {
	closed := freeAddress(t)
	command(t, "keys", "list", "--address", closed).fails(exitUnreachable, closed, "--address")
	command(t, "keys", "list", "--address", "unix/"+filepath.Join(t.TempDir(), "none.sock")).fails(exitUnreachable, "none.sock")

	answer := func(status int, media, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet {
				t.Errorf("%s was sent to what is no Warder", r.Method)
			}
			rw.Header().Set("Content-Type", media)
			rw.WriteHeader(status)
			fmt.Fprint(rw, body)
		}))
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	for _, c := range []struct {
		status      int
		media, body string
		code        int
		word        string
	}{
		{404, "text/plain", "404 page not found\n", exitUnreachable, "not a Warder"},
		{200, "text/html", "<html>\x1b[31m", exitUnreachable, "not a Warder"},
		{200, "application/json", `{"service":"other"}`, exitUnreachable, "not a Warder"},
		{302, "text/plain", "moved", exitUnreachable, "not a Warder"},
		{403, "application/json", `{"error":"host not allowed: x"}`, exitUnreachable, "host not allowed"},
		{503, "application/problem+json", `{"status":503,"code":"not_configured","detail":"no warder app"}`, exitUnreachable, "no warder app"},
		{503, "application/problem+json", `{"status":503,"code":"unavailable","detail":"later"}`, exitUnavailable, "later"},
		{403, "application/problem+json", `{"status":403,"code":"remote_endpoint","detail":"not local"}`, exitForbidden, "not local"},
		{500, "application/problem+json", `{"status":500,"code":"internal","detail":"broken"}`, exitFailed, "broken"},
	} {
		command(t, "keys", "create", "--address", answer(c.status, c.media, c.body)).fails(c.code, c.word)
	}
}

// Unix sockets, with Caddy's permission bits in the address, and the address
// from a configuration file.
func TestCommandFindsTheEndpoint(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Origin") != "" || r.Host != "127.0.0.1" {
			t.Errorf("%s %v", r.Host, r.Header)
		}
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprint(rw, `{"service":"warder","keys":[]}`)
	})}}
	server.Start()
	t.Cleanup(server.Close)
	command(t, "keys", "list", "--address", "unix/"+socket+"|0220").done()
	config := filepath.Join(t.TempDir(), "caddy.json")
	if err := os.WriteFile(config, []byte(`{"admin":{"listen":"unix/`+socket+`"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "keys", "list", "--config", config).done()
	command(t, "keys", "list", "--config", filepath.Join(t.TempDir(), "none.json")).fails(exitFailed, "none.json")
}

// TestCommandProcess is Caddy's main in a process of its own; see
// TestExitCodes.
func TestCommandProcess(t *testing.T) {
	if os.Getenv("WARDER_TEST_COMMAND") == "" {
		return
	}
	os.Args = append([]string{"warder"}, os.Args[1+slices.Index(os.Args, "--"):]...)
	caddycmd.Main()
	os.Exit(0)
}

// The codes that a shell sees, through Caddy's own main.
func TestExitCodes(t *testing.T) {
	w := start(t, guarded("", ""))
	id := string(w.create(fields{"expires_in_days": 3}).ID)
	w.command("keys", "block", id).done()
	for _, c := range []struct {
		line string
		code int
	}{
		{"keys list", 0}, {"keys get " + id, 0}, {"keys", 0}, {"keys frob", exitUsage}, {"keys list --frob", exitUsage},
		{"keys get key_none", exitNotFound}, {"keys rotate " + id, exitState}, {"keys renew " + id + " --days 0", exitState}, {"signing-keys list", 0},
		{"keys create --expires-in 0d", exitUsage}, {"keys list --config /none.json", exitFailed}, {"keys list --address " + freeAddress(t), exitUnreachable},
	} {
		args := append([]string{"-test.run=^TestCommandProcess$", "--", "warder"}, strings.Fields(c.line)...)
		if strings.Count(c.line, " ") > 0 && !strings.Contains(c.line, "--address") && !strings.Contains(c.line, "--config") && !strings.Contains(c.line, "frob") {
			args = append(args, "--address", w.admin)
		}
		cmd := exec.Command(os.Args[0], args...)
		cmd.Env = append(os.Environ(), "WARDER_TEST_COMMAND=yes")
		var out, errors bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errors
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		lines := strings.Count(errors.String(), "\n")
		if code := cmd.ProcessState.ExitCode(); code != c.code || (code != 0 && lines != 1) || (code == 0 && lines != 0) {
			t.Errorf("%s: exit code %d, want %d: %q %q", c.line, code, c.code, errors.String(), out.String())
		}
	}
}

// Whatever a server sends, eval assigns it and runs nothing.
func TestCommandQuotesForTheShell(t *testing.T) {
	const hostile = `a'b"c $(echo run) ` + "`echo run`" + ` \ ;`
	text := environment(&managementapi.IssuedKey{APIKey: hostile})
	out, err := exec.Command("sh", "-euc", `eval "$1"; printf %s "$WARDER_API_KEY"`, "sh", text).CombinedOutput()
	if err != nil || string(out) != hostile {
		t.Errorf("%v: %q", err, out)
	}
}
