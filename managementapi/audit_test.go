package managementapi

import (
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Every route that changes something leaves an entry for each object that it
// has changed: one, under the route's own name, with who did it and from where.
func TestEveryChangeIsInTheAuditLogOnce(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	for _, rt := range routes {
		if !rt.changes() {
			continue
		}
		path := g.pathTo(rt, g.ready(rt))
		g.callFrom("key_admin", "192.0.2.7")
		head, last := g.head(), g.lastEntry()
		if r := g.send(rt.method, path, bodyFor(rt, "acme")); r.status/100 != 2 {
			t.Fatalf("%s %s: %s", rt.method, rt.pattern, r.raw)
		}
		batch, err := g.store.Changes(t.Context(), head, 1000)
		if err != nil {
			t.Fatal(err)
		}
		var changed, noted []string
		for _, c := range batch.Changes {
			changed = append(changed, string(c.Kind)+" "+c.Name)
		}
		if strings.HasPrefix(rt.operation, "master_key.") {
			changed = []string{"store "} // how it is sealed is no part of the log
		}
		g.asAdmin()
		for _, e := range g.entriesAfter(last) {
			noted = append(noted, e.Kind+" "+e.Object)
			if e.Operation != rt.operation || e.Actor != "key_admin" || e.From != "192.0.2.7" || e.Refused != nil || time.Since(e.At) > time.Minute || e.Before == nil && e.After == nil {
				t.Errorf("%s: %+v", rt.operation, e)
			}
		}
		slices.Sort(changed)
		slices.Sort(noted)
		if len(changed) == 0 || strings.Join(changed, ", ") != strings.Join(noted, ", ") {
			t.Errorf("%s changed %q, and the audit log says %q", rt.operation, changed, noted)
		}
	}
}

// Every route that changes something leaves an entry with the reason when its
// caller is refused, and no other.
func TestEveryRefusalIsInTheAuditLog(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	for _, rt := range routes {
		g.asAdmin()
		path := g.pathTo(rt, g.ready(rt))
		last := g.lastEntry()
		g.as("acme", "hello:read")
		if rt.scope == anybody || rt.scope == anyCaller {
			continue
		}
		g.send(rt.method, path, bodyFor(rt, "acme")).refused(403, "forbidden", "")
		g.asAdmin()
		entries := g.entriesAfter(last)
		if !rt.changes() {
			if len(entries) != 0 {
				t.Errorf("%s: %+v", rt.operation, entries)
			}
			continue
		}
		if len(entries) != 1 || entries[0].Operation != rt.operation || entries[0].Actor != "key_caller" || entries[0].Organization != "acme" ||
			entries[0].Refused == nil || *entries[0].Refused != keystore.ErrForbidden.Error() || entries[0].Revision != 0 {
			t.Errorf("%s: %+v", rt.operation, entries)
		}
	}
}

// What is refused later than by the row's scope leaves one entry as well; what
// is no attempt at anything leaves none.
func TestRefusalsOfVerbsAreNotedOnce(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	id := g.changed(`{"expires_in_days":9}`, "block")
	path := "/keys/" + string(id)
	for _, c := range []struct{ method, path, body, operation, object, reason string }{
		{"POST", path + "/rotate", "", "keys.rotate", string(id), "key is blocked"},
		{"POST", path + "/renew", `{"days":0}`, "keys.renew", string(id), "key is blocked"},
		{"POST", path + "/renew", `{}`, "keys.renew", "", "/days: is required: 1 to 36525"},
		{"POST", path + "/grace", `{"ends_in_seconds":1}`, "keys.grace", string(id), "key has no previous secret"},
		{"DELETE", "/keys/key_nosuch", "", "keys.delete", "", "key not found"},
		{"POST", "/keys", `{"organization":"nowhere"}`, "keys.create", "", "organization not found"},
		{"POST", "/keys", `{"expires_in_days":0}`, "keys.create", "", "/expires_in_days: must be 1 to 36525"},
		{"DELETE", "/organizations/default", "", "organizations.delete", "default", "the default organization always exists"},
		{"POST", "/permissions", `{"name":""}`, "permissions.create", "", "/name: must be 1 to 128 bytes of UTF-8 without control characters"},
		{"PATCH", "/settings", `{"signing_key_interval_days":5}`, "settings.update", "", "/signing_key_interval_days: must be 21 to 365"},
		{"POST", "/keys/delete", `{"ids":["` + string(id) + `x"]}`, "keys.bulk_delete", "", "key not found"},
		{"POST", path + "/rotate", `{"surprise":1}`, "", "", ""},
		{"POST", path + "/rotate", `{`, "", "", ""},
		{"POST", path + "/rotate?x=1", ``, "", "", ""},
		{"POST", "/keys/delete", `{"dry_run":true,"ids":["key_nosuch"]}`, "", "", ""},
	} {
		last := g.lastEntry()
		g.send(c.method, c.path, c.body)
		entries := g.entriesAfter(last)
		if c.operation == "" {
			if len(entries) != 0 {
				t.Errorf("%s %s %s: %+v", c.method, c.path, c.body, entries)
			}
			continue
		}
		if len(entries) != 1 || entries[0].Operation != c.operation || entries[0].Object != c.object || entries[0].Refused == nil || *entries[0].Refused != c.reason {
			t.Errorf("%s %s %s: %+v", c.method, c.path, c.body, entries)
		}
	}

	// Nobody is identified: there is nobody to note.
	last := g.lastEntry()
	g.send("POST", path+"/rotate", "", "Origin", "http://evil.example").refused(403, "cross_origin", "")
	g.refuseCallers(&TooManyRequestsError{3 * time.Second})
	g.send("POST", path+"/rotate", "").refused(429, "too_many_requests", "")
	g.refuseCallers(nil)
	if entries := g.entriesAfter(last); len(entries) != 0 {
		t.Errorf("%+v", entries)
	}
}

// No secret, digest or credential reaches the audit log, not even one that its
// owner put in the wrong place.
func TestAuditLogHoldsNoSecret(t *testing.T) {
	g := newRig(t)
	key := g.make(`{"name":"n"}`)
	path := "/keys/" + string(key.ID)
	rotated := ok[IssuedKey](g.send("POST", path+"/rotate", ""), 200)
	fresh := ok[IssuedKey](g.send("POST", path+"/regenerate", ""), 200)
	imported := ok[ImportedKeys](g.send("POST", "/keys/import", `{"keys":[{"credential":"foreign-credential"},{"sha256":"`+strings.Repeat("ab", 32)+`"}]}`), 200).Keys
	org := ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	ok[SigningRotation](g.send("POST", "/signing-keys/rotate", `{"emergency":true}`), 200)

	secrets := []string{"foreign-credential", strings.Repeat("ab", 32), "imported_"}
	for _, k := range []IssuedKey{key, rotated, fresh, org} {
		secrets = append(secrets, k.SecretKey.Reveal(), k.APIKey.Reveal())
		g.send("POST", "/keys/"+k.APIKey.Reveal()+"/rotate", "").refused(404, "key_not_found", "")
		g.send("DELETE", "/permissions/"+k.APIKey.Reveal(), "").refused(404, "permission_not_found", "")
		g.send("DELETE", "/organizations/"+k.SecretKey.Reveal(), "").refused(404, "organization_not_found", "")
		ok[DeletedKeys](g.send("POST", "/keys/delete", `{"ids":["`+k.APIKey.Reveal()+`"]}`), 200)
		g.send("POST", "/keys", `{"`+k.APIKey.Reveal()+`":1}`)
		g.send("POST", "/keys", `{"name":"a","`+k.APIKey.Reveal()+`":1,"`+k.APIKey.Reveal()+`":2}`)
		g.send("POST", "/keys", `{"organization":"`+k.APIKey.Reveal()+`"}`)
		g.send("POST", "/organizations", `{"slug":"`+k.APIKey.Reveal()+`"}`)
	}
	for _, id := range append([]keystore.KeyID{key.ID, org.ID}, imported[0].ID, imported[1].ID) {
		rec := g.record(id)
		for _, pair := range []keystore.Pair{rec.Current, rec.Previous} {
			if pair.Generation != 0 {
				secrets = append(secrets, hex.EncodeToString(pair.Digest[:]))
			}
		}
	}
	all := string(g.send("GET", "/audit?limit=1000", "").raw)
	if !strings.Contains(all, string(imported[1].ID)) || !strings.Contains(all, "key not found") {
		t.Errorf("%s", all)
	}
	for _, secret := range secrets {
		if strings.Contains(all, secret) {
			t.Errorf("the audit log holds %q", secret)
		}
	}
}

func TestAuditFiltersAndPages(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	began := time.Now().UTC().Add(-time.Microsecond)
	g.callFrom("key_admin", "192.0.2.7")
	id := string(g.make(`{"organization":"acme","name":"before"}`).ID)
	ok[Key](g.send("PATCH", "/keys/"+id, `{"name":"after"}`), 200)
	g.asAdmin()
	ok[IssuedKey](g.send("POST", "/keys/"+id+"/rotate", ""), 200)
	g.as("acme", "warder:keys")
	g.send("POST", "/keys/"+id+"/block", "").refused(403, "forbidden", "")
	g.asAdmin()
	g.make(`{"name":"others"}`)

	operations := func(query string) string {
		t.Helper()
		var all []string
		for cursor := ""; ; {
			page := ok[AuditPage](g.send("GET", "/audit?limit=2&since="+began.Format(time.RFC3339Nano)+query+cursor, ""), 200)
			for _, e := range page.Entries {
				all = append(all, e.Operation)
			}
			if page.Next == nil {
				return strings.Join(all, " ")
			}
			cursor = "&after=" + *page.Next
		}
	}
	for query, want := range map[string]string{
		"":                   "keys.create keys.block keys.rotate keys.update keys.create",
		"&organization=acme": "keys.block keys.rotate keys.update keys.create",
		"&actor=key_admin":   "keys.update keys.create", "&actor=key_admin&operation=keys.update": "keys.update",
		"&object=" + id: "keys.rotate keys.update keys.create", "&refused=true": "keys.block", "&refused=false": "keys.create keys.rotate keys.update keys.create",
		"&organization=nowhere": "", "&until=" + began.Format(time.RFC3339Nano): "", "&until=2100-01-01T00:00:00Z&operation=keys.create": "keys.create keys.create",
	} {
		if got := operations(query); got != want {
			t.Errorf("%q: %q, want %q", query, got, want)
		}
	}
	update := ok[AuditPage](g.send("GET", "/audit?operation=keys.update", ""), 200).Entries[0]
	if string(update.Before) != `{"name":"before"}` || string(update.After) != `{"name":"after"}` || update.Object != id || update.Organization != "acme" || update.Kind != "key" || update.Revision == 0 {
		t.Errorf("%+v", update)
	}
	for query, place := range map[string]string{
		"limit=0": "limit", "limit=1001": "limit", "after=x": "after", "after=0": "after", "after=-1": "after", "refused=yes": "refused", "refused=1": "refused",
		"since=yesterday": "since", "until=2026-01-01": "until", "since=1960-01-01T00:00:00Z": "since", "actor=": "actor", "from=x": "from",
	} {
		g.send("GET", "/audit?"+query, "").refused(400, "invalid_parameter", place)
	}
	g.as("acme", "warder:keys")
	if got := operations(""); got != "keys.block keys.rotate keys.update keys.create" {
		t.Errorf("acme sees %s", got)
	}
	g.as("acme", "warder:read")
	g.send("GET", "/audit", "").refused(403, "forbidden", "")
}

// ready makes a key that the route has something to change of.
func (g *rig) ready(rt route) keystore.KeyID {
	g.t.Helper()
	id := g.changed(`{"organization":"acme","expires_in_days":9}`, "rotate")
	path := "/keys/" + string(id)
	switch rt.operation {
	case "keys.activate":
		ok[Key](g.send("POST", path+"/deactivate", ""), http.StatusOK)
	case "keys.unblock":
		ok[Key](g.send("POST", path+"/block", ""), http.StatusOK)
	case "keys.bulk_delete":
		ok[Key](g.send("POST", path+"/expire", ""), http.StatusOK)
	}
	return id
}

func (g *rig) callFrom(actor, address string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.caller = keystore.Caller{Actor: actor, From: address, Scopes: keystore.ScopeAdmin}
}

func (g *rig) head() keystore.Position {
	g.t.Helper()
	snapshot, err := g.store.Snapshot(g.t.Context())
	if err != nil {
		g.t.Fatal(err)
	}
	return snapshot.Head
}

func (g *rig) lastEntry() keystore.Number {
	g.t.Helper()
	page := ok[AuditPage](g.send("GET", "/audit?limit=1", ""), 200)
	if len(page.Entries) == 0 {
		return 0
	}
	return page.Entries[0].Number
}

func (g *rig) entriesAfter(last keystore.Number) []AuditEntry {
	g.t.Helper()
	page := ok[AuditPage](g.send("GET", "/audit?limit=1000", ""), 200)
	return slices.DeleteFunc(page.Entries, func(e AuditEntry) bool { return e.Number <= last })
}
