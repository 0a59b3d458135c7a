package caddymodule

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// changeLines are the lines of the log that tell of a change, as what they
// say and with which fields, by revision.
func (w *world) changeLines() (lines []map[string]any) {
	w.t.Helper()
	for line := range strings.Lines(w.log()) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			w.t.Fatalf("%v in %s", err, line)
		}
		if entry["logger"] == "warder" && entry["revision"] != nil {
			lines = append(lines, entry)
		}
	}
	return lines
}

// Every change of anything is one line in the log, and says what it is about.
func TestEachChangeIsOneLine(t *testing.T) {
	w := start(t, guarded("", ""))
	var secrets []string
	for _, step := range []struct {
		what, field string
		value       func() any // makes the change, and returns what the field is to say
	}{
		{"key changed", "key_id", func() any {
			c := w.create(fields{"name": "Alice's"})
			secrets = append(secrets, c.SecretKey.Reveal())
			return string(c.ID)
		}},
		{"organization changed", "organization", func() any {
			w.manage(http.StatusOK, http.MethodPatch, "/organizations/default", fields{"maximum_expiry_days": 90})
			return "default"
		}},
		{"permission changed", "permission_id", func() any { return w.permit("Alice's", nil...) }},
		{"signing keys changed", "kid", func() any {
			w.manage(http.StatusOK, http.MethodPost, "/signing-keys/rotate", fields{"emergency": true})
			ring, err := w.app().engine.keyring.Info()
			if err != nil {
				t.Fatal(err)
			}
			return ring.Keys[0].KID
		}},
		{"signing keys changed", "kid", func() any {
			w.manage(http.StatusOK, http.MethodPatch, "/settings", fields{"signing_key_interval_days": 30})
			ring, err := w.app().engine.keyring.Info()
			if err != nil {
				t.Fatal(err)
			}
			return ring.Keys[0].KID
		}},
	} {
		before := len(w.changeLines())
		want := step.value()
		wantLine(t, w, before, step.what, step.field, want)
	}

	c := w.create(nil)
	token := w.accessToken(c, "")
	secrets = append(secrets, c.SecretKey.Reveal(), token)
	before := len(w.changeLines())
	w.oauth("/revoke", c.basic(), url.Values{"token": {token}})
	wantLine(t, w, before, "access token revoked", "jti", nil)

	before = len(w.changeLines())
	w.manage(http.StatusOK, http.MethodPost, "/keys/import", fields{"keys": []fields{{"credential": "from-another-system"}}})
	secrets = append(secrets, "from-another-system")
	told := map[any]bool{}
	for _, line := range w.changeLines()[before:] {
		told[line["msg"]] = true
	}
	if len(told) != 2 || !told["key changed"] || !told["setting changed"] {
		t.Errorf("an import is told as %v", told)
	}
	for _, secret := range append(secrets, "Alice") {
		if strings.Contains(w.log(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

// wantLine demands one more line than there were.
func wantLine(t *testing.T, w *world, before int, what, field string, value any) {
	t.Helper()
	lines := w.changeLines()[before:]
	if len(lines) != 1 || lines[0]["msg"] != what || lines[0][field] == nil || value != nil && lines[0][field] != value {
		t.Errorf("%s is told as %v, want one line with %s %v", what, lines, field, value)
	}
}
