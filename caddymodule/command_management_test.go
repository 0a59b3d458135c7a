package caddymodule

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/warderhq/warder/managementapi"
)

// says demands success and the words on standard output.
func (r ran) says(words ...string) {
	r.t.Helper()
	r.done()
	for _, word := range words {
		if !strings.Contains(r.out, word) {
			r.t.Errorf("%s: %q is missing in\n%s", r.line, word, r.out)
		}
	}
}

// What a key may do, on creation and later, by the same flags.
func TestKeyFieldsInCommands(t *testing.T) {
	w := start(t, guarded("", ""))
	shared := read[managementapi.Permission](w.command("permissions", "create", "--name", "read", "--allow", "GET /v1/*", "--json"))
	w.command("organizations", "create", "acme").done()
	own := read[managementapi.Permission](w.command("permissions", "create", "--name", "write", "--organization", "acme", "--allow", "POST /v1/*", "--json"))
	fields := []string{"--permission", "read", "--permission", own.ID, "--network", "10.0.0.0/8", "--network", "::1", "--limit", "100/s burst 200", "--metadata", `{"a":1}`}
	key := read[managementapi.IssuedKey](w.command(append([]string{"keys", "create", "--organization", "acme", "--json"}, fields...)...))
	check := func(k managementapi.Key) {
		t.Helper()
		if len(k.Permissions) != 2 || len(k.Networks) != 2 || k.Limit == nil || *k.Limit != "100/s burst 200" || compact(t, k.Metadata) != `{"a":1}` {
			t.Errorf("%+v", k)
		}
	}
	check(key.Key)
	id := string(key.ID)
	w.command("keys", "get", id).says("10.0.0.0/8 ::1/128", "100/s burst 200", shared.ID)
	bare := read[managementapi.Key](w.command("keys", "update", id, "--permission", "", "--network", "", "--limit", "default", "--metadata", "null", "--json"))
	if len(bare.Permissions) != 0 || len(bare.Networks) != 0 || bare.Limit != nil || string(bare.Metadata) != "{}" {
		t.Errorf("%+v", bare)
	}
	check(read[managementapi.Key](w.command(append([]string{"keys", "update", id, "--json"}, fields...)...)))
	check(read[managementapi.Key](w.command("keys", "update", id, "--permission", "write", "--permission", "read", "--json")))

	w.command("keys", "list", "--permission", "read", "--organization", "acme").says(id)
	w.command("keys", "list", "--name", "none").says("ID")
	w.command("keys", "create", "--permission", "write").fails(exitNotFound, "--permission", "write")
	w.command("keys", "create", "--limit", "many").fails(exitUsage, "--limit", "100/s burst 200")
	w.command("keys", "create", "--network", "10.0.0.1/8").fails(exitUsage, "--network", "CIDR")
	w.command("keys", "update", id).fails(exitUsage, "nothing to change", "--permission", "--network")
}

// compact undoes the indentation of --json.
func compact(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGraceCommand(t *testing.T) {
	w := start(t, guarded("", ""))
	key := w.create(fields{})
	id := string(key.ID)
	w.command("keys", "grace", id, "--ends-in", "2h").fails(exitState, "no secret")
	w.reissue(key, "rotate", nil)
	wantStatus(t, "the old secret", w.get("/", key.token()), http.StatusOK)
	w.command("keys", "get", id).says("Old secret until", "Old secret last used at")
	w.command("keys", "grace", id, "--ends-at", "2099-01-01").done()
	w.command("keys", "grace", id, "--ends-in", "90m").says("Old secret until")
	if ended := read[managementapi.Key](w.command("keys", "grace", id, "--ends-in", "0s", "--json")); ended.GraceEnd != nil {
		t.Errorf("%+v", ended)
	}
	wantStatus(t, "the old secret, ended", w.get("/", key.token()), http.StatusUnauthorized)
	for _, args := range []string{"", "--ends-in soon", "--ends-in 1ms", "--ends-at soon", "--ends-in 1h --ends-at 2099-01-01"} {
		w.command(append([]string{"keys", "grace", id}, strings.Fields(args)...)...).fails(exitUsage, "--ends-")
	}
}

func TestDeleteCommand(t *testing.T) {
	w := start(t, guarded("", ""))
	w.create(fields{"name": "last"})
	var ids []string
	for range 5 {
		ids = append(ids, string(w.create(fields{}).ID))
	}
	w.command("keys", "delete", ids[0], ids[1], "--dry-run").says("would delete "+ids[0], "would delete "+ids[1])
	w.command("keys", "delete", ids[0], "--dry-run").says("would delete")
	w.command("keys", "delete", ids[0], ids[1]).says("deleted "+ids[0]+"\n", "deleted "+ids[1]+"\n")
	again := w.command("keys", "delete", ids[0], ids[2])
	if again.code != exitNotFound || !strings.Contains(again.out, ids[2]) || !strings.Contains(again.errors, "1 of 2 keys stay: "+ids[0]) {
		t.Errorf("%+v", again)
	}
	w.command("keys", "expire", ids[3]).done()
	if dry := read[managementapi.DeletedKeys](w.command("keys", "delete", "--expired", "--dry-run", "--json")); len(dry.Deleted) != 1 || !dry.DryRun {
		t.Errorf("%+v", dry)
	}
	w.command("keys", "delete", "--expired", "--organization", "default").says("deleted " + ids[3])
	if left := read[[]managementapi.Key](w.command("keys", "list", "--json")); len(left) != 2 {
		t.Errorf("%+v", left)
	}
	w.command("keys", "delete").fails(exitUsage, "--expired")
	w.command("keys", "delete", ids[4], "--expired").fails(exitUsage, "--expired")
	w.command("keys", "delete", ids[4], "--organization", "default").fails(exitUsage, "--organization")
	w.command("keys", "delete", ids[4], "odd").fails(exitUsage, "no key id")
}

// More than one call takes, and some that stay.
func TestDeleteCommandGoesOn(t *testing.T) {
	calls := 0
	fake := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/keys/delete") {
			fmt.Fprint(rw, `{"service":"warder"}`)
			return
		}
		calls++
		fmt.Fprintf(rw, `{"deleted":["key_%d"],"failed":[{"id":"key_stays","code":"last_key","detail":"it stays"}],"more":%t,"dry_run":false}`, calls, calls < 3)
	}))
	defer fake.Close()
	r := command(t, "keys", "delete", "--expired", "--address", fake.Listener.Addr().String())
	if r.code != exitState || calls != 3 || r.out != "deleted key_1\ndeleted key_2\ndeleted key_3\n" || !strings.Contains(r.errors, "1 of 4 keys stay: key_stays: it stays") {
		t.Errorf("%d calls: %+v", calls, r)
	}
}

func TestOrganizationLife(t *testing.T) {
	w := start(t, guarded("", ""))
	perm := read[managementapi.Permission](w.command("permissions", "create", "--name", "read", "--allow", "/v1/*", "--json"))
	key := read[managementapi.IssuedKey](w.command("organizations", "create", "acme", "--grace", "2d", "--limit", "5/m", "--allowed-scope", "a",
		"--allowed-permission", "read", "--default-expiry", "30d", "--metadata", `{"a":1}`, "--key-name", "first", "--key-scope", "a", "--json"))
	if key.Name != "first" || key.Organization != "acme" || key.SecretKey == "" || len(key.Scopes) != 1 {
		t.Errorf("%+v", key.Key)
	}
	w.command("organizations", "get", "acme").says("48h0m0s", "5/m", perm.ID, "30d", `{"a":1}`)
	w.command("organizations", "update", "acme", "--grace", "default", "--limit", "none", "--allow-all-permissions").says("Grace period", "default", "all")
	w.command("organizations", "create", "acme").fails(exitState, "choose another")
	w.command("organizations", "create", "other", "--key-scope", "warder:none").fails(exitUsage, "--key-scope")
	w.command("organizations", "create", "other", "--allowed-permission", "none").fails(exitNotFound, "--allowed-permission")
	w.command("organizations", "update", "acme", "--allowed-scope", "a", "--allow-all-scopes").fails(exitUsage, "--allowed-scope", "--allow-all-scopes")
	w.command("organizations", "update", "acme", "--grace", "soon").fails(exitUsage, "--grace", "6h")
	w.command("organizations", "update", "acme", "--limit", "often").fails(exitUsage, "--limit")
	w.command("organizations", "delete", "default").fails(exitState, "default")
	second := read[managementapi.IssuedKey](w.command("keys", "create", "--organization", "acme", "--scope", "a", "--json"))
	w.command("organizations", "delete", "acme").fails(exitState, "still has keys")
	w.command("keys", "delete", string(second.ID)).done()
	w.command("keys", "delete", string(key.ID)).fails(exitState, "last standard key")
	w.command("organizations", "delete", "acme").says("deleted acme")
	w.command("organizations", "get", "acme").fails(exitNotFound)
}

func TestPermissionCommands(t *testing.T) {
	w := start(t, guarded("", ""))
	made := read[managementapi.Permission](w.command("permissions", "create", "--name", "read", "--description", "to read",
		"--allow", "GET,HEAD /v1/* /v2/*", "--allow", "/open", "--metadata", `{"a":1}`, "--json"))
	if len(made.Rules) != 2 || len(made.Rules[0].Methods) != 2 || len(made.Rules[0].Paths) != 2 || len(made.Rules[1].Methods) != 0 {
		t.Errorf("%+v", made)
	}
	w.command("permissions", "get", "read").says(made.ID, "GET,HEAD /v1/* /v2/*; /open", "(everybody)", "to read")
	w.command("permissions", "list").says(made.ID, "(everybody)")
	w.command("permissions", "update", "read", "--allow", "PUT /v3", "--description", "").says("PUT /v3")
	w.command("permissions", "update", "read", "--if-match", "1", "--name", "x").fails(exitState, "--if-match")
	w.command("permissions", "create", "--name", "read").fails(exitState, "--name", "choose another")
	w.command("permissions", "create", "--name", "odd", "--allow", "GET").fails(exitUsage, "--allow", "'GET,POST /v1/*'")
	w.command("permissions", "create", "--name", "odd", "--allow", "get /v1").fails(exitUsage, "--allow", "upper case")
	w.command("permissions", "create", "--name", "odd", "--allow", "GET /v1/../x").fails(exitUsage, "--allow", "/v1/*")
	w.command("permissions", "update", "read").fails(exitUsage, "nothing to change", "--allow")
	w.command("permissions", "get", "none").fails(exitNotFound, "none")
	w.command("permissions", "get", "perm_none").fails(exitNotFound, "no such permission")

	key := read[managementapi.IssuedKey](w.command("keys", "create", "--permission", "read", "--json"))
	w.command("permissions", "delete", "read").fails(exitState, "refer to", string(key.ID))
	w.command("keys", "update", string(key.ID), "--permission", "").done()
	w.command("permissions", "delete", "read").says("deleted " + made.ID)

	w.command("organizations", "create", "acme").done()
	w.command("permissions", "create", "--name", "own", "--organization", "acme", "--allow", "/x").done()
	w.command("permissions", "get", "own").fails(exitNotFound, "own")
	w.command("permissions", "get", "own", "--organization", "acme").says("acme")
	w.command("permissions", "create", "--name", "own", "--allow", "/y").done()
	w.command("permissions", "get", "own", "--organization", "acme").fails(exitUsage, "several", "perm_")
	w.command("permissions", "list", "--organization", "acme").says("acme")
}

func TestUsageAndAuditCommands(t *testing.T) {
	w := start(t, guarded("", ""))
	key := w.create(fields{"name": "counted"})
	for range 3 {
		wantStatus(t, "a request", w.get("/", key.token()), http.StatusOK)
	}
	id := string(key.ID)
	w.command("keys", "update", id, "--name", "renamed").done()
	w.command("keys", "block", id).done()
	wantStatus(t, "a refused request", w.get("/", key.token()), http.StatusUnauthorized)

	w.command("usage").says("REQUESTS", "4", "1 (blocked 1)")
	w.command("usage", "--by", "day", "--by-key", "--key", id).says(id, "4")
	if sums := read[[]managementapi.UsageSum](w.command("usage", "--from", "2001-01", "--to", "2001-02", "--json")); len(sums) != 0 {
		t.Errorf("%+v", sums)
	}
	w.command("usage", "--by", "year").fails(exitUsage, "--by")
	w.command("usage", "--from", "yesterday").fails(exitUsage, "--from")
	w.command("usage", "--key", "odd").fails(exitUsage, "no key id")
	w.command("usage", "extra").fails(exitUsage, "usage")

	w.command("keys", "rotate", id).fails(exitState, "blocked")
	w.command("audit").says("keys.create", "made", "keys.block", `blocked: false → true`, `name: "counted" → "renamed"`, "local")
	w.command("audit", "--refused", "--object", id).says("keys.rotate", "refused: key is blocked")
	if changes := read[[]managementapi.AuditEntry](w.command("audit", "--refused=false", "--operation", "keys.block", "--actor", "local", "--since", "2001-01-01", "--json")); len(changes) != 1 {
		t.Errorf("%+v", changes)
	}
	if last := read[[]managementapi.AuditEntry](w.command("audit", "--limit", "1", "--json")); len(last) != 1 || last[0].Operation != "keys.rotate" {
		t.Errorf("%+v", last)
	}
	if none := read[[]managementapi.AuditEntry](w.command("audit", "--until", "2001-01-01T00:00:00Z", "--json")); len(none) != 0 {
		t.Errorf("%+v", none)
	}
	w.command("audit", "--since", "yesterday").fails(exitUsage, "--since", "RFC 3339")
	w.command("audit", "--limit", "0").fails(exitUsage, "--limit")
}

func TestSigningKeyInterval(t *testing.T) {
	w := start(t, guarded("", ""))
	w.command("signing-keys", "list").says("every 42 days")
	w.command("signing-keys", "interval", "30d").says("every 30 days")
	w.command("signing-keys", "list").says("every 30 days")
	w.command("signing-keys", "interval", "3").fails(exitUsage, "21")
	w.command("signing-keys", "interval", "soon").fails(exitUsage, "number of days")
}

// A file of keys is complete, its owner's alone, and known to be writable
// before a key is made.
func TestKeyFile(t *testing.T) {
	w := start(t, guarded("", ""))
	file := filepath.Join(w.dir, "keys.csv")
	for _, name := range []string{"plain", `a, "quoted" name`} {
		r := w.command("keys", "create", "--name", name, "--csv", file).done()
		if strings.Contains(r.out, "wdr_") || strings.Contains(r.out, "Secret") {
			t.Errorf("the secret is printed, too: %s", r.out)
		}
	}
	id := string(w.create(fields{"name": "old"}).ID)
	w.command("keys", "rotate", id, "--csv", file).done()
	text, err := os.ReadFile(file)
	rows, csvErr := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || csvErr != nil || len(rows) != 4 || strings.Join(rows[0], ",")+"\n" != keyFileHead() || rows[2][4] != `a, "quoted" name` || rows[3][3] != id {
		t.Fatalf("%v %v %q", err, csvErr, text)
	}
	for _, row := range rows[1:] {
		wantStatus(t, "a key from the file", w.get("/", "Authorization: Token "+row[2]), http.StatusOK)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	before := len(read[[]managementapi.Key](w.command("keys", "list", "--json")))
	foreign, open, torn := filepath.Join(w.dir, "foreign"), filepath.Join(w.dir, "open"), filepath.Join(w.dir, "torn")
	for name, content := range map[string]string{foreign: "something else, as long as the line of names should be\nor longer than that\n", open: keyFileHead(), torn: keyFileHead() + "x"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(open, 0o640); err != nil {
		t.Fatal(err)
	}
	w.command("keys", "create", "--csv", foreign).fails(exitUsage, "--csv", "something else")
	w.command("keys", "create", "--csv", torn).fails(exitUsage, "--csv", "something else")
	w.command("keys", "create", "--csv", open).fails(exitUsage, "--csv", "chmod 600")
	w.command("keys", "create", "--csv", w.dir).fails(exitFailed, "--csv")
	w.command("keys", "create", "--csv", filepath.Join(w.dir, "none", "keys.csv")).fails(exitFailed, "--csv")
	w.command("keys", "create", "--csv", file, "--json").fails(exitUsage, "--csv")
	if after := len(read[[]managementapi.Key](w.command("keys", "list", "--json"))); after != before {
		t.Errorf("%d keys were made without a file", after-before)
	}
}

// The credential for another mount comes from the environment or a file, goes
// into one header, and is in nothing that is printed.
func TestCommandPresentsACredential(t *testing.T) {
	const credential = "wdr_presented"
	fake := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+credential || r.Header.Get("Origin") != "" || !strings.HasPrefix(r.URL.Path, "/v1") {
			rw.Header().Set("Content-Type", "application/problem+json")
			rw.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(rw, `{"status":401,"code":"invalid_token","detail":"the credential is not valid"}`)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		fmt.Fprint(rw, `{"service":"warder","keys":[{"id":"key_a"}]}`)
	}))
	defer fake.Close()
	t.Setenv(credentialVariable, "")
	command(t, "keys", "list", "--url", fake.URL+"/v1").fails(exitUsage, "--url", credentialVariable)
	file := filepath.Join(t.TempDir(), "credential")
	if err := os.WriteFile(file, []byte(credential+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, "keys", "list", "--url", fake.URL+"/v1", "--credential-file", file).says("key_a")
	t.Setenv(credentialVariable, credential)
	command(t, "keys", "list", "--url", fake.URL+"/v1/").says("key_a")
	t.Setenv(credentialVariable, "other")
	command(t, "keys", "list", "--url", fake.URL+"/v1").fails(exitForbidden, "not valid", credentialVariable)
	for url, word := range map[string]string{
		"http://keys.example.com/v1": "https", "keys.example.com": "must be a URL", "https://user:pass@keys.example.com": "without a credential",
		"ftp://127.0.0.1/v1": "https",
	} {
		command(t, "keys", "list", "--url", url).fails(exitUsage, "--url", word)
	}
	t.Setenv(credentialVariable, "two words")
	command(t, "keys", "list", "--url", fake.URL).fails(exitUsage, "--url")
	command(t, "keys", "list", "--url", fake.URL, "--address", "localhost:1").fails(exitUsage, "--url", "--address")
	command(t, "keys", "list", "--credential-file", file).fails(exitUsage, "--credential-file")
	command(t, "keys", "list", "--url", fake.URL, "--credential-file", file+"x").fails(exitFailed, "--credential-file")
	t.Setenv(credentialVariable, credential)
	fake.Close()
	command(t, "keys", "list", "--url", fake.URL).fails(exitUnreachable, "--url", fake.URL)
}
