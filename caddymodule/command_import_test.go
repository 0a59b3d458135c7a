package caddymodule

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// What is imported passes at the gate, is listed, and is imported only once.
func TestImportedCredentialsPass(t *testing.T) {
	w := start(t, guarded("", ""))
	w.command("organizations", "create", "acme").done()
	w.command("permissions", "create", "--name", "read", "--allow", "GET /v1/*").done()
	own := read[managementapi.Permission](w.command("permissions", "create", "--name", "write", "--organization", "acme", "--allow", "POST /v1/*", "--json"))
	const csv = "\xef\xbb\xbfcredential,name , organization,scopes,permissions,networks,limit,metadata,expires_in_days\r\n" +
		"first-credential,one,acme,b a,read write,127.0.0.0/8,10/s burst 20,\"{\"\"plan\"\":1}\",30\r\n" +
		"second-credential,,,,,,,,\n"
	if out := w.commandReading(csv, "import").done().out; out != "imported 2 keys\n" {
		t.Errorf("%q", out)
	}
	const sum = "6ad25a5b1b5a4a1c9b5d0d7b1a0d6a6f1c8c0a4b1f3a1f1d7a1f5f4f3f2f1f00"
	lines := `{"credential":"first-credential","organization":"acme"}` + "\n\n" + `{"sha256":"` + sum + `","name":"hashed"}` + "\n"
	var done []importedKey
	for line := range strings.Lines(w.commandReading(lines, "import", "--json").done().out) {
		var one importedKey
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatal(err)
		}
		done = append(done, one)
	}
	if len(done) != 2 || !done[0].Existed || done[0].Line != 1 || done[1].Existed || done[1].Line != 3 {
		t.Errorf("%+v", done)
	}
	first := read[managementapi.Key](w.command("keys", "get", string(done[0].ID), "--json"))
	if first.Name != "one" || first.Organization != "acme" || strings.Join(first.Scopes, " ") != "a b" || len(first.Permissions) != 2 ||
		strings.Join(first.Networks, " ") != "127.0.0.0/8" || first.Limit == nil || *first.Limit != "10/s burst 20" ||
		compact(t, first.Metadata) != `{"plan":1}` || first.Expires != "Expires in: 30 days" || !first.Imported {
		t.Errorf("%+v", first)
	}
	if listed := read[[]managementapi.Key](w.command("keys", "list", "--imported", "--permission", own.ID, "--json")); len(listed) != 1 || listed[0].ID != first.ID {
		t.Errorf("%+v", listed)
	}
	if table := w.command("keys", "list", "--imported").done().out; strings.Count(table, "(imported)") != 3 {
		t.Errorf("%s", table)
	}
	w.commandReading("credential\nfirst-credential\n", "import").fails(exitState, "line 2: ", "another organization")
	wantStatus(t, "an imported credential", w.get("/v1/hello", "Authorization: Bearer second-credential"), http.StatusOK)
	w.command("keys", "create", "--name", "last", "--organization", "acme").done()
	native := w.command("keys", "rotate", string(first.ID), "--force", "--json")
	if key := read[managementapi.IssuedKey](native); key.Imported || key.AccessKey == "" {
		t.Errorf("%+v", key.Key)
	}
}

// hidden is in the input of every refused import, and in no answer to one.
const hidden = "hidden-credential-4711"

func TestImportMistakes(t *testing.T) {
	w := start(t, guarded("", ""))
	for _, c := range []struct {
		input string
		words []string
	}{
		{"", []string{"empty"}},
		{hidden + "\nother,credential\n", []string{"line 1: credential: is required"}},
		{hidden + ",name\n", []string{"line 1: credential: is required"}},
		{"credential,colour\n" + hidden + ",red\n", []string{"line 1: colour: is unknown", "expires_in_days"}},
		{"credential,credential\n" + hidden + ",x\n", []string{"line 1: credential: is there twice"}},
		{"credential,name\n" + hidden + "\n", []string{"line 2: has 1 cells, and the first line has 2"}},
		{"credential,name\n\"" + hidden + ",x\nand,more\n", []string{"line 2: is no CSV"}},
		{"credential,name\n" + hidden + ",\xff\n", []string{"line 2: name: is not UTF-8"}},
		{"credential,metadata\nother-credential,\n" + hidden + ",[1]\n", []string{"line 3: metadata: must be a JSON object"}},
		{"credential,expires_in_days\n" + hidden + ",soon\n", []string{"line 2: expires_in_days: must be a whole number"}},
		{"credential,expires_in_days,expires_at\n" + hidden + ",1,2030-01-01T00:00:00Z\n", []string{"line 2: expires_in_days: cannot stand beside"}},
		{"credential,sha256\n" + hidden + ",12\n", []string{"line 2: sha256: "}},
		{"credential,type\n" + hidden + ",odd\n", []string{"line 2: type: "}},
		{"credential,limit\nother-credential,\n" + hidden + ",often\n", []string{"line 3: limit: ", "burst"}},
		{"credential,networks\n" + hidden + ",10.0.0.1/8\n", []string{"line 2: networks: ", "CIDR"}},
		{"credential,permissions\n" + hidden + ",perm_none\n", []string{"line 2: permissions: "}},
		{"credential,name\n" + hidden + ",x\n" + hidden + "2,x\n", []string{"line 3: name: ", "choose another"}},
		{"credential\n" + hidden + " \"x\n", []string{"line 2: is no CSV"}},
		{`[{"credential":"` + hidden + `"}]`, []string{"jq"}},
		{`{"credential":"` + hidden + `","colour":1}`, []string{"line 1: colour: is unknown"}},
		{`{"credential":"` + hidden + `","name":"a","name":"b"}`, []string{"line 1", "twice"}},
		{`{"` + hidden + `":"acme"}`, []string{"line 1: credential: is required"}},
		{`{"credential":"` + hidden + `"}` + "\n" + hidden, []string{"line 2: is not one JSON object"}},
		{`{"credential":"` + hidden + "\xff\"}", []string{"line 1: is not UTF-8"}},
		{`{"credential":"` + hidden + `","metadata":{"x":"` + strings.Repeat("x", maxImportBody) + `"}}`, []string{"line 1: is larger"}},
		{`{"credential":7}`, []string{"line 1: credential: must be a string"}},
	} {
		r := w.commandReading(c.input, "import")
		r.fails(exitUsageOrState(r.code), c.words...)
		if strings.Contains(r.errors, hidden) {
			t.Errorf("%.80q: the credential is shown: %s", c.input, r.errors)
		}
	}
	w.commandReading("credential\n"+hidden+"\n", "import", "--input-format", "xml").fails(exitUsage, "--input-format")
	w.commandReading("credential,organization\n"+hidden+",nowhere\n", "import").fails(exitNotFound, "line 2", "no such organization")
	w.commandReading("credential,permissions\n"+hidden+",nameless\n", "import").fails(exitNotFound, "line 2: permissions: ", "nameless")
	if n := len(read[[]managementapi.Key](w.command("keys", "list", "--json"))); n != 0 {
		t.Errorf("refused imports left %d keys", n)
	}
}

// exitUsageOrState: a value that is wrong by itself, or beside what is there.
func exitUsageOrState(code int) int {
	if code == exitState {
		return exitState
	}
	return exitUsage
}

// importServer acknowledges imports and remembers what it was sent.
type importServer struct {
	*httptest.Server
	t      *testing.T
	refuse func(first string, call int) (status int, retryAfter string) // by the first name and how often it came; zero: acknowledged
	lost   bool                                                         // no key is known any more

	mu    sync.Mutex // guards calls
	calls [][]map[string]any
}

func newImportServer(t *testing.T) *importServer {
	s := &importServer{t: t}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *importServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/keys/import"):
		s.take(w, r)
	case strings.Contains(r.URL.Path, "/keys/key_") && s.lost:
		answerProblem(w, http.StatusNotFound, "key_not_found", "")
	default:
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"service":"warder"}`)
	}
}

func (s *importServer) take(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	var body struct {
		Keys []map[string]any `json:"keys"`
	}
	if err != nil || json.Unmarshal(raw, &body) != nil || len(raw) > 1<<20 || len(body.Keys) < 1 || len(body.Keys) > 1000 {
		s.t.Errorf("a body of %d bytes with %d keys", len(raw), len(body.Keys))
	}
	if call := s.note(body.Keys); s.refuse != nil {
		if status, retry := s.refuse(fmt.Sprint(body.Keys[0]["name"]), call); status != 0 {
			answerProblem(w, status, "unavailable", retry)
			return
		}
	}
	var answer managementapi.ImportedKeys
	for _, key := range body.Keys {
		answer.Keys = append(answer.Keys, managementapi.ImportedKey{ID: keystore.KeyID(fmt.Sprint("key_", key["name"]))})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// note returns how often this batch came.
func (s *importServer) note(keys []map[string]any) (call int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, keys)
	for _, batch := range s.calls {
		if batch[0]["name"] == keys[0]["name"] {
			call++
		}
	}
	return call
}

func answerProblem(w http.ResponseWriter, status int, code, retryAfter string) {
	if retryAfter != "" {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"status":%d,"code":%q,"detail":"not now"}`, status, code)
}

func (s *importServer) run(input string, args ...string) ran {
	s.t.Helper()
	return commandReading(s.t, input, append([]string{"import", "--address", s.Listener.Addr().String()}, args...)...)
}

// sent returns the names in all calls, those of each in their order, and
// forgets them.
func (s *importServer) sent() (names []string) {
	slices.SortFunc(s.calls, func(a, b []map[string]any) int {
		first, _ := strconv.Atoi(fmt.Sprint(a[0]["name"]))
		second, _ := strconv.Atoi(fmt.Sprint(b[0]["name"]))
		return first - second
	})
	for _, call := range s.calls {
		for _, key := range call {
			names = append(names, fmt.Sprint(key["name"]))
		}
	}
	s.calls = nil
	return names
}

func numbered(n int) string {
	var b strings.Builder
	b.WriteString("credential,name\n")
	for i := range n {
		fmt.Fprintf(&b, "credential-%d,%d\n", i, i)
	}
	return b.String()
}

func TestImportInBatches(t *testing.T) {
	s := newImportServer(t)
	if out := s.run(numbered(2500)).done().out; out != "imported 2500 keys\n" || len(s.calls) != 3 {
		t.Errorf("%d calls: %s", len(s.calls), out)
	}
	for n, name := range s.sent() {
		if name != strconv.Itoa(n) {
			t.Fatalf("%s is sent as number %d", name, n)
		}
	}
	large := strings.Repeat(`{"credential":"long-enough","metadata":{"x":"`+strings.Repeat("<", 300<<10)+`"}}`+"\n", 7)
	if s.run(large).done(); len(s.calls) != 3 {
		t.Errorf("%d calls for seven large keys", len(s.calls))
	}
}

// A server that asks for patience is asked again, and one that does not answer
// is named with what was done before.
func TestImportIsPatient(t *testing.T) {
	s := newImportServer(t)
	s.refuse = func(first string, call int) (int, string) {
		switch {
		case first == "0" && call == 1:
			return http.StatusTooManyRequests, "1"
		case first == "1000" && call == 1:
			return http.StatusServiceUnavailable, "1"
		case first == "2000":
			return http.StatusServiceUnavailable, ""
		default:
			return 0, ""
		}
	}
	s.run(numbered(2500)).fails(exitUnavailable, "not now", "the 2000 keys before are imported")
	if len(s.calls) != 5 {
		t.Errorf("%d calls", len(s.calls))
	}
}

// What was sent beside a refused batch is not recorded: it comes again.
func TestImportEndsInOrder(t *testing.T) {
	s := newImportServer(t)
	file := filepath.Join(t.TempDir(), "state")
	s.refuse = func(first string, _ int) (int, string) {
		if first != "1000" {
			return 0, ""
		}
		time.Sleep(100 * time.Millisecond) // the next one is acknowledged before
		return http.StatusServiceUnavailable, ""
	}
	s.run(numbered(3500), "--resume", file).fails(exitUnavailable, "not now", "the 1000 keys before are imported")
	if names := s.sent(); len(names) != 3000 {
		t.Errorf("%d names: there are two batches under way, no more and no less", len(names))
	}
	s.refuse = nil
	if s.run(numbered(3500), "--resume", file).done(); len(s.sent()) != 2500 {
		t.Error("what was acknowledged out of its turn did not come again")
	}
	s.run(numbered(1500)+"credential-x\n", "--resume", filepath.Join(t.TempDir(), "state")).fails(exitUsage, "line 1502", "the 1000 keys before")
}

func TestImportResumes(t *testing.T) {
	s := newImportServer(t)
	file := filepath.Join(t.TempDir(), "state")
	s.refuse = func(first string, _ int) (int, string) {
		return map[string]int{"2000": http.StatusServiceUnavailable}[first], ""
	}
	s.run(numbered(2500), "--resume", file).fails(exitUnavailable, "2000 keys before")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", info, err)
	}
	s.refuse, s.calls = nil, nil
	for _, input := range []string{numbered(1999), strings.Replace(numbered(2500), "credential-7,", "credential-x,", 1), "credential,name\n"} {
		s.run(input, "--resume", file).fails(exitUsage, "--resume", "another input")
	}
	s.lost = true
	s.run(numbered(2500), "--resume", file).fails(exitUsage, "--resume", "key_1999", "remove the file")
	if s.lost = false; len(s.calls) != 0 {
		t.Errorf("%d calls before it was sure", len(s.calls))
	}
	if out := s.run(numbered(2500), "--resume", file).done().out; !strings.Contains(out, "imported 500 keys; 2000 were skipped") {
		t.Errorf("%s", out)
	}
	if names := s.sent(); len(names) != 500 || names[0] != "2000" {
		t.Errorf("%d names from %s", len(names), names[0])
	}
	if s.run(numbered(2500), "--resume", file).done(); len(s.calls) != 0 {
		t.Error("what is done was done again")
	}
	if s.run(numbered(2501), "--resume", file).done(); len(s.sent()) != 1 {
		t.Error("what was added was not imported alone")
	}
	if left, _ := filepath.Glob(file + "*"); len(left) != 1 {
		t.Errorf("%q", left)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.run(numbered(1), "--resume", file).fails(exitUsage, "--resume")
	s.run(numbered(1), "--resume", filepath.Join(file, "below")).fails(exitFailed, "--resume")
	if len(s.calls) != 0 {
		t.Error("it began without a place to record")
	}
}
