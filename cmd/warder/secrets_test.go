package main_test

import (
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A hoard is every secret that a run has used, by what it is.
type hoard map[string]string

// key adds all forms in which a key's secret goes over the wire.
func (h hoard) key(name string, k key) {
	h[name+": API key"], h[name+": secret key"] = k.APIKey, k.SecretKey
	h[name+": Basic"] = strings.TrimPrefix(basic(k), "Basic ")
}

// absentFrom demands that none of the secrets is in text.
func (h hoard) absentFrom(t *testing.T, place, text string) {
	t.Helper()
	if text == "" {
		t.Errorf("%s is empty", place)
	}
	for what, secret := range h {
		if len(secret) < 8 {
			t.Errorf("%s is no secret: %q", what, secret)
		} else if strings.Contains(text, secret) {
			t.Errorf("%s shows the %s", place, what)
		}
	}
}

// loud is the example with every log that Caddy has.
func loud(t *testing.T, lines string) string {
	t.Helper()
	return edit(t, withOptions(t, lines), "{\n\twarder {", "{\n\tdebug\n\twarder {", "\twarder_issuer\n", "\tlog\n\twarder_issuer\n")
}

// TestNoSecretShows: a run through everything, successes and refusals, at the
// noisiest that logs can be.
func TestNoSecretShows(t *testing.T) {
	for _, c := range []struct{ name, options string }{
		{"with a key file", ""},
		{"with a master key", "\t\tmaster_key {env.WARDER_MASTER_KEY}\n\t\tprevious_master_key {file.previous.key}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			used := hoard{"master key": newMasterKey(), "previous master key": newMasterKey()}
			s := newSite(t, loud(t, c.options))
			s.env = []string{"WARDER_MASTER_KEY=" + used["master key"]}
			s.write("previous.key", used["previous master key"])
			v := s.start()
			s.useEverything(used)
			if c.options == "" {
				used["key file"] = strings.TrimSpace(s.read(keyFile))
			}
			for _, path := range []string{"/config/", "/metrics", "/warder/v1/keys", "/warder/v1/signing-keys"} {
				got, err := send(client, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d%s", s.admin, path), "")
				if err != nil || got.status != http.StatusOK {
					t.Errorf("GET %s: %v %v", path, got.status, err)
				}
				used.absentFrom(t, path, got.body)
			}
			v.interrupt()
			log := v.log.String()
			hoard{"Idempotency-Key": used["Idempotency-Key"]}.absentFrom(t, "the log", withoutAdminRequests(t, log))
			delete(used, "Idempotency-Key")
			used.absentFrom(t, "the log", log)
			contains(t, "the log", log, "handled request", `"Authorization":["REDACTED"]`, `"level":"debug"`)
			used.checkFiles(t, s)
		})
	}
}

// withoutAdminRequests leaves out what Caddy's admin endpoint itself logs of
// every request, headers included, before any module sees it. An
// Idempotency-Key is in there. It opens nothing by itself: a kept answer takes
// the store's secret, too, and whoever reaches the endpoint is administrator.
func withoutAdminRequests(t *testing.T, log string) string {
	t.Helper()
	var rest strings.Builder
	for line := range strings.Lines(log) {
		if !strings.Contains(line, `"logger":"admin.api","msg":"received request"`) {
			rest.WriteString(line)
		}
	}
	if rest.Len() == len(log) {
		t.Error("the admin endpoint logs nothing: this exception can go")
	}
	return rest.String()
}

// useEverything goes through every way that takes or gives a secret.
func (s *site) useEverything(used hoard) {
	s.t.Helper()
	used["Idempotency-Key"] = "idem-" + newMasterKey()[:20]
	k := s.mustManage(http.MethodPost, "/keys", `{"name":"all","scopes":["hello:read"]}`, "Idempotency-Key", used["Idempotency-Key"])
	s.mustManage(http.MethodPost, "/keys", `{"name":"all","scopes":["hello:read"]}`, "Idempotency-Key", used["Idempotency-Key"])
	used.key("first", k)
	used["access token"] = s.token(k)
	for _, credential := range []string{"Token " + k.APIKey, "Bearer " + k.APIKey, basic(k), "Bearer " + used["access token"]} {
		s.expect(http.StatusOK, credential, "before")
	}
	s.refusedOnes(used, k)
	rotated := s.mustManage(http.MethodPost, "/keys/"+k.ID+"/rotate", `{"force":true}`, "Idempotency-Key", used["Idempotency-Key"])
	used.key("rotated", rotated)
	s.expect(http.StatusUnauthorized, "Token "+k.APIKey, "superseded")
	used.key("regenerated", s.mustManage(http.MethodPost, "/keys/"+k.ID+"/regenerate", `{}`))
	for _, verb := range []string{"deactivate", "block", "expire", "unblock", "activate"} {
		got, err := s.manage(http.MethodPost, "/keys/"+k.ID+"/"+verb, "")
		if err != nil {
			s.t.Fatal(err)
		}
		s.t.Logf("%s: %d", verb, got.status)
		s.expect(http.StatusUnauthorized, "Token "+rotated.APIKey, verb)
	}
	s.mustManage(http.MethodDelete, "/keys/"+k.ID, "")
}

// refusedOnes sends secrets where they do not belong.
func (s *site) refusedOnes(used hoard, k key) {
	s.t.Helper()
	used["mistyped key"] = k.APIKey[:len(k.APIKey)-1] + "!"
	used["mistyped token"] = used["access token"][:len(used["access token"])-4]
	for _, credential := range []string{"Token " + used["mistyped key"], "Bearer " + used["mistyped token"], "Token  " + k.APIKey + " ", "Token " + k.APIKey + ", Token " + k.APIKey} {
		if got, err := s.knock(credential); err != nil || got.status/100 != 4 {
			s.t.Errorf("a bad credential: %v %v", got, err)
		}
	}
	form := "grant_type=client_credentials&client_id=" + k.AccessKey + "&client_secret="
	for _, body := range []string{form + k.SecretKey, form + "x" + k.SecretKey, form + k.SecretKey + "&client_secret=" + k.SecretKey, `{"secret_key":"` + k.SecretKey + `"`} {
		if _, err := send(client, http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/token", s.gate), body, "Content-Type", "application/x-www-form-urlencoded"); err != nil {
			s.t.Error(err)
		}
	}
	if got, err := s.manage(http.MethodPost, "/keys", `{"name":"`+k.APIKey+"\x00"+`"}`); err != nil || got.status/100 != 4 {
		s.t.Errorf("a secret as a broken name: %v %v", got, err)
	}
}

// checkFiles: what Caddy writes down of the configuration holds no secret
// either, and the database holds no secret that it could open by itself.
func (h hoard) checkFiles(t *testing.T, s *site) {
	t.Helper()
	read := 0
	for _, dir := range []string{s.home(), s.path("data")} {
		_ = filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || strings.HasSuffix(name, ".key") {
				return err
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Error(err)
			}
			read++
			h.absentFrom(t, name, string(text)+" ")
			return nil
		})
	}
	if read < 3 {
		t.Errorf("only %d files were found", read)
	}
}

// TestHoardFinds: the search of the tests above finds what is there.
func TestHoardFinds(t *testing.T) {
	k := key{APIKey: "wdr_0123456789", AccessKey: "access-key", SecretKey: "secret-key"}
	h := hoard{}
	h.key("k", k)
	for what, text := range map[string]string{
		"API key": "x wdr_0123456789 y", "secret key": "secret-key",
		"Basic": base64.StdEncoding.EncodeToString([]byte("access-key:secret-key")),
	} {
		if !strings.Contains(text, h["k: "+what]) {
			t.Errorf("%s is not found", what)
		}
	}
}

// TestCredentialHeaderNeedsFilter: a header that Caddy does not redact by
// itself is not logged in clear, not even by default.
func TestCredentialHeaderNeedsFilter(t *testing.T) {
	t.Parallel()
	header := edit(t, example(t), "require scope", "credential header X-Api-Key\n\t\trequire scope")
	s := newSite(t, edit(t, header, "\twarder_issuer\n", "\tlog\n\twarder_issuer\n"))
	checkRefused(t, s, "credential_header", "format filter { request>headers>X-Api-Key delete }")

	const filter = "{\n\tformat filter {\n\t\trequest>headers>X-Api-Key delete\n\t}\n}\n"
	s.configure(edit(t, header, "{\n\twarder {", "{\n\tdebug\n\tlog "+filter+"\twarder {", "\twarder_issuer\n", "\tlog "+filter+"\twarder_issuer\n"))
	v := s.start()
	k, used := s.createKey(), hoard{}
	used.key("key", k)
	for _, credential := range []string{k.APIKey, k.APIKey + "x"} {
		got, err := send(client, http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/v1/hello", s.gate), "", "X-Api-Key", credential)
		if err != nil {
			t.Fatal(err)
		}
		t.Log(got)
	}
	v.interrupt()
	contains(t, "the log", v.log.String(), "handled request", "/v1/hello")
	used.absentFrom(t, "the log", v.log.String())
}
