package main_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// tour is what README.md tells a newcomer to type, word for word.
const tour = `set -eu
echo '== create'
eval "$(./warder keys create --name demo --scope hello:read --format env)"
echo "$WARDER_KEY_ID $WARDER_API_KEY $WARDER_ACCESS_KEY $WARDER_SECRET_KEY"
echo '== key'
curl -s -i -H "Authorization: Token $WARDER_API_KEY" localhost:8080/v1/hello
echo '== exchange'
curl -s -u "$WARDER_ACCESS_KEY:$WARDER_SECRET_KEY" -d grant_type=client_credentials localhost:8080/token
ACCESS_TOKEN=$(curl -s -u "$WARDER_ACCESS_KEY:$WARDER_SECRET_KEY" -d grant_type=client_credentials localhost:8080/token | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
echo '== token'
curl -s -i -H "Authorization: Bearer $ACCESS_TOKEN" localhost:8080/v1/hello
echo '== block'
./warder keys block "$WARDER_KEY_ID"
echo '== blocked key'
curl -s -i -H "Authorization: Token $WARDER_API_KEY" localhost:8080/v1/hello
echo '== blocked token'
curl -s -i -H "Authorization: Bearer $ACCESS_TOKEN" localhost:8080/v1/hello
echo '== audit'
./warder audit
echo '== usage'
./warder usage
`

// steps runs the tour over base and returns what each step printed.
func (s *site) steps(base string, curl ...string) map[string]string {
	s.t.Helper()
	script := strings.ReplaceAll(s.onPorts(tour), fmt.Sprintf("localhost:%d", s.gate), base)
	if len(curl) > 0 {
		script = strings.ReplaceAll(script, "curl -s", "curl -s "+strings.Join(curl, " "))
	}
	done := s.run("bash", "-c", script)
	if done.code != 0 || done.stderr != "" {
		s.t.Fatalf("the tour ended with %d\n%s\n%s", done.code, done.stdout, done.stderr)
	}
	s.t.Log(done.stdout)
	printed := map[string]string{}
	for _, step := range strings.Split(done.stdout, "== ")[1:] {
		name, text, _ := strings.Cut(step, "\n")
		printed[name] = strings.ReplaceAll(text, "\r", "")
	}
	return printed
}

func needsCurl(t *testing.T) {
	t.Helper()
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the tour takes %s: %v", program, err)
		}
	}
}

func contains(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%s: %q is missing in:\n%s", what, w, text)
		}
	}
}

func lacks(t *testing.T, what, text string, unwanted ...string) {
	t.Helper()
	for _, u := range unwanted {
		if u == "" {
			t.Errorf("%s: nothing to look for", what)
		} else if strings.Contains(text, u) {
			t.Errorf("%s shows %q", what, u)
		}
	}
}

// checkTour demands of a whole tour what the README promises.
func checkTour(t *testing.T, printed map[string]string, protocol string) {
	t.Helper()
	made := strings.Fields(printed["create"])
	if len(made) != 4 {
		t.Fatalf("keys create set %q", made)
	}
	id, apiKey, secretKey := made[0], made[1], made[3]
	contains(t, "with the key", printed["key"], protocol+" 200", "X-Warder-Key-Id: "+id, "X-Warder-Key-Name: demo",
		"X-Warder-Organization: default", "X-Warder-Scope: hello:read", "X-Warder-Credential: key", "Authorization: \n")
	lacks(t, "the API behind", printed["key"], apiKey, secretKey)
	contains(t, "the exchange", printed["exchange"], `"access_token":"`, `"token_type":"Bearer"`, `"expires_in":900`)
	contains(t, "with the token", printed["token"], protocol+" 200", "X-Warder-Key-Id: "+id, "X-Warder-Credential: access_token", "Authorization: \n")
	contains(t, "blocking", printed["block"], id, "blocked")
	for _, step := range []string{"blocked key", "blocked token"} {
		contains(t, step, printed[step], protocol+" 401", "application/problem+json", `"reason":"blocked"`, "The key is blocked.")
	}
	contains(t, "the audit log", printed["audit"], "keys.create", "keys.block", "blocked: false → true")
	contains(t, "usage", printed["usage"], "REQUESTS", "(blocked ")
}

func TestTour(t *testing.T) {
	needsCurl(t)
	t.Parallel()
	s := newSite(t, example(t))
	v := s.start()
	checkTour(t, s.steps(fmt.Sprintf("localhost:%d", s.gate)), "HTTP/1.1")
	checkFirstLog(t, v)
	checkStop(t, v)
}

// checkFirstLog: a first start tells how to go on, and what to keep.
func checkFirstLog(t *testing.T, v *server) {
	t.Helper()
	for _, line := range []string{"warder keys create", "back it up"} {
		if n := strings.Count(v.log.String(), line); n != 1 {
			t.Errorf("the log says %q %d times:\n%s", line, n, v.log)
		}
	}
}

// checkStop: Ctrl-C ends it with success, frees its ports and leaves nothing
// behind but what the next start needs.
func checkStop(t *testing.T, v *server) {
	t.Helper()
	if code := v.interrupt(); code != 0 {
		t.Errorf("exit code %d:\n%s", code, v.log)
	}
	for _, port := range []int{v.gate, v.demo, v.admin} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Errorf("after the end: %v", err)
			continue
		}
		l.Close()
	}
	want := []string{"warder.db", "warder.db.key", "warder.db.lock"}
	if got := names(t, v.path("data")); !slices.Equal(got, want) {
		t.Errorf("left in data: %q, want %q", got, want)
	}
	if got := names(t, v.dir); !slices.Equal(got, []string{"Caddyfile", "data", "warder"}) {
		t.Errorf("left beside: %q", got)
	}
	if info, err := os.Stat(v.path("data/warder.db.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v %v", info.Mode(), err)
	}
}

func names(t *testing.T, dir string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// overTLS is the example with its gate behind Caddy's own authority.
func overTLS(t *testing.T) string {
	t.Helper()
	return edit(t, example(t),
		"{\n\twarder {\n\t\tstore", "{\n\tskip_install_trust\n\tauto_https disable_redirects\n\twarder {\n\t\tstore",
		"issuer http://", "issuer https://",
		"\n:8080 {", "\nhttps://localhost:8080 {\n\ttls internal")
}

func TestTourOverTLS(t *testing.T) {
	needsCurl(t)
	t.Parallel()
	s := newSite(t, overTLS(t))
	v := s.start()
	root := filepath.Join(s.home(), "data", "caddy", "pki", "authorities", "local", "root.crt")
	base := fmt.Sprintf("https://localhost:%d", s.gate)
	checkTour(t, s.steps(base, "--http1.1", "--cacert", root), "HTTP/1.1")
	if out, _ := exec.Command("curl", "--version").Output(); strings.Contains(string(out), "HTTP2") {
		old := s.keyNamed("demo")
		s.mustManage(http.MethodDelete, "/keys/"+old.ID, "")
		checkTour(t, s.steps(base, "--http2", "--cacert", root), "HTTP/2")
	}
	k := s.createKey()
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		if got := getOver(t, protocol, root, base+"/v1/hello", "Token "+k.APIKey); got.status != http.StatusOK {
			t.Errorf("over %s: %v", protocol, got)
		}
	}
	if code := v.interrupt(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// keyNamed finds a key in the list.
func (s *site) keyNamed(name string) key {
	s.t.Helper()
	for _, k := range s.keys() {
		if k.Name == name {
			return k
		}
	}
	s.t.Fatalf("no key is named %s", name)
	return key{}
}

// keys lists every key with the command.
func (s *site) keys() (all []key) {
	s.t.Helper()
	done := s.warder("keys", "list", "--json")
	if err := json.Unmarshal([]byte(done.stdout), &all); err != nil || done.code != 0 {
		s.t.Fatalf("keys list: %d %v\n%s%s", done.code, err, done.stdout, done.stderr)
	}
	return all
}

// getOver asks once over one protocol, and trusts only the authority in root.
func getOver(t *testing.T, protocol, root, url, authorization string) answer {
	t.Helper()
	pem, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: new(http.Protocols)}
	defer transport.CloseIdleConnections()
	transport.Protocols.SetHTTP1(protocol == "HTTP/1.1")
	transport.Protocols.SetHTTP2(protocol == "HTTP/2.0")
	r, _ := http.NewRequest(http.MethodGet, url, nil)
	r.Header.Set("Authorization", authorization)
	resp, err := (&http.Client{Transport: transport, Timeout: requestTimeout}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Proto != protocol {
		t.Errorf("it spoke %s, not %s", resp.Proto, protocol)
	}
	return answer{status: resp.StatusCode}
}

func TestCreateAsJSON(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.start()
	done := s.warder("keys", "create", "--name", "demo", "--scope", "hello:read", "--json")
	var made map[string]any
	if err := json.Unmarshal([]byte(done.stdout), &made); err != nil || done.code != 0 {
		t.Fatalf("%d %v\n%s%s", done.code, err, done.stdout, done.stderr)
	}
	for _, field := range []string{"id", "api_key", "access_key", "secret_key", "name", "organization", "type", "state", "scopes", "generation", "created_at", "expires_at", "revision"} {
		if _, ok := made[field]; !ok {
			t.Errorf("%s is missing in %s", field, done.stdout)
		}
	}
	s.expect(http.StatusOK, fmt.Sprint("Token ", made["api_key"]), "the key from JSON")
	s.expect(http.StatusUnauthorized, "", "no key")
}

// TestExitCodes: scripts tell refusals apart.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	unreachable := s.warder("keys", "list")
	t.Log(unreachable.stderr)
	if unreachable.code != 3 || strings.Count(strings.TrimSpace(unreachable.stderr), "\n") != 0 {
		t.Errorf("nothing runs: %d %s", unreachable.code, unreachable.stderr)
	}
	s.start()
	id := s.createKey().ID
	for _, c := range []struct {
		code int
		args string
	}{
		{0, "keys get " + id}, {0, "keys block " + id}, {5, "keys rotate " + id}, {2, "keys frobnicate"}, {2, "keys get"},
		{4, "keys get key_0000000000000000000000"}, {2, "keys create --expires-in soon"}, {0, "signing-keys list"}, {0, "organizations list"},
	} {
		if done := s.warder(strings.Fields(c.args)...); done.code != c.code {
			t.Errorf("%s: exit code %d, want %d: %s", c.args, done.code, c.code, done.stderr)
		}
	}
}

const nobody = 65534

// asNobody lets the site's processes run as a user who owns nothing but data.
func (s *site) asNobody() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Skip("becoming another user takes root; every other test runs without it then")
	}
	s.user = &syscall.Credential{Uid: nobody, Gid: nobody}
	if err := os.Chmod(filepath.Dir(filepath.Dir(s.dir)), 0o711); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{s.dir, s.path("Caddyfile"), filepath.Dir(s.dir)} {
		if err := os.Chown(name, nobody, nobody); err != nil {
			s.t.Fatal(err)
		}
	}
	s.ownBinary()
}

// ownBinary puts the binary where any user may start it.
func (s *site) ownBinary() {
	s.t.Helper()
	_ = os.Remove(s.path("warder"))
	if err := os.Link(binary, s.path("warder")); err != nil {
		text, err := os.ReadFile(binary)
		if err != nil {
			s.t.Fatal(err)
		}
		s.write("warder", string(text))
	}
	if err := os.Chmod(s.path("warder"), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

// TestWithoutRootOrHome: it takes no rights and no home directory.
func TestWithoutRootOrHome(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	if os.Geteuid() == 0 {
		s.asNobody()
	}
	s.env = []string{"HOME=/nonexistent", "XDG_CONFIG_HOME=", "XDG_DATA_HOME="}
	v := s.start()
	k := s.createKey()
	s.expect(http.StatusOK, "Token "+k.APIKey, "without root and home")
	checkStop(t, v)
}
