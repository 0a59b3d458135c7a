package managementapi

import (
	"bytes"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// Every check has a text, and a remedy.
func TestEveryCheckIsExplained(t *testing.T) {
	all := make(map[keystore.Check]bool)
	for _, kind := range []keystore.CredentialKind{keystore.CredentialNone, keystore.CredentialKey, keystore.CredentialAccessToken, keystore.CredentialImported} {
		for _, check := range keystore.ChecksOf(kind) {
			all[check] = true
			if text := checkTexts[check]; text.asks == "" || text.remedy == "" {
				t.Errorf("%s: %+v", check, text)
			}
		}
	}
	if len(all) != len(checkTexts) {
		t.Errorf("%d checks, %d texts", len(all), len(checkTexts))
	}
}

func (e *Explanation) result(check string) string {
	for _, c := range e.Checks {
		if c.Check == check {
			return c.Result
		}
	}
	return "none"
}

func TestExplain(t *testing.T) {
	g := newRig(t)
	key := g.make(`{"name":"x","scopes":["a"]}`)
	ask := func(credential string) Explanation {
		t.Helper()
		return ok[Explanation](g.send("POST", "/explain", `{"credential":"Token `+credential+`"}`), 200)
	}
	e := ask(key.APIKey.Reveal())
	if !e.Passes || e.Refusal != nil || e.Credential != "key" || e.Key == nil || e.Key.ID != key.ID || e.Key.State != "active" || e.Key.Name != "x" {
		t.Errorf("%+v", e)
	}
	g.send("POST", "/keys/"+string(key.ID)+"/block", "")
	e = ask(key.APIKey.Reveal())
	if e.Passes || e.result("secret") != "passed" || e.result("blocked") != "refused" || e.result("expiry") != "not_reached" || e.Key.State != "blocked" {
		t.Errorf("%+v", e)
	}
	for _, c := range e.Checks {
		if c.Check == "blocked" && !strings.Contains(c.Remedy, "keys unblock "+string(key.ID)) || (c.Remedy == "") != (c.Check != "blocked") {
			t.Errorf("%+v", c)
		}
	}
}

// What is asked about stands in no answer, no log and no audit entry, and who
// is no administrator learns nothing.
func TestExplainTellsNobodyElse(t *testing.T) {
	g := newRig(t)
	key := g.make(`{}`)
	secret := key.APIKey.Reveal()
	before := g.everything()
	body := `{"credential":"Token ` + secret + `"}`
	g.send("POST", "/explain", body)
	for _, scopes := range []string{"", "warder:read", "warder:keys", "a"} {
		g.as("default", scopes)
		good, bad := g.send("POST", "/explain", body), g.send("POST", "/explain", `{"credential":"Token nothing"}`)
		good.refused(403, "forbidden", "")
		if !bytes.Equal(good.raw, bad.raw) {
			t.Errorf("%q: %s and %s", scopes, good.raw, bad.raw)
		}
	}
	g.asAdmin()
	for body, place := range map[string]string{
		`{}`: "/credential", `{"credential":1}`: "/credential", `{"credential":"` + secret + `","method":"GET"}`: "/path",
		`{"credential":"` + secret + `","from":"` + secret + `"}`: "/from", `{"credential":"` + secret + `","require_types":["` + secret + `"]}`: "/require_types",
	} {
		if r := g.send("POST", "/explain", body); bytes.Contains(r.raw, []byte(secret)) {
			t.Errorf("%s", r.raw)
		} else {
			r.refused(400, "invalid_field", place)
		}
	}
	g.send("POST", "/explain?wait=5s", body).refused(400, "invalid_parameter", "wait") // it changes nothing
	if after := g.everything(); after != before {
		t.Error("asking has changed something")
	}
	if r := g.send("GET", "/audit", ""); bytes.Contains(r.raw, []byte(secret)) || bytes.Contains(r.raw, []byte(secret[30:60])) {
		t.Errorf("%s", r.raw)
	}
	if logged := strings.Join(g.takeLog(), " "); strings.Contains(logged, secret[30:60]) {
		t.Errorf("logged %s", logged)
	}
}
