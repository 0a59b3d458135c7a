package managementapi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
)

func TestImportByValueAndByDigest(t *testing.T) {
	g := newRig(t)
	sum := sha256.Sum256([]byte("another-system's-key"))
	body := `{"keys":[
		{"credential":"foreign-credential-1","name":"one","scopes":["a"],"networks":["10.0.0.0/8","2001:db8::1"],"limit":"10/m","metadata":{"x":1},"expires_in_days":3},
		{"sha256":"` + hex.EncodeToString(sum[:]) + `","type":"trial"}]}`
	first := g.send("POST", "/keys/import", body)
	made := ok[ImportedKeys](first, 200).Keys
	if len(made) != 2 || made[0].Existed || made[1].Existed || strings.Contains(string(first.raw), "foreign-credential") {
		t.Fatalf("%s", first.raw)
	}
	shown := g.send("GET", "/keys/"+string(made[0].ID), "")
	key := ok[Key](shown, 200)
	if !key.Imported || key.AccessKey != "" || !strings.Contains(string(shown.raw), `"access_key":null`) || key.Name != "one" ||
		strings.Join(key.Networks, " ") != "10.0.0.0/8 2001:db8::1/128" || *key.Limit != "10/m" || key.Expires != "Expires in: 3 days" {
		t.Errorf("%s", shown.raw)
	}
	for _, secret := range []string{"foreign-credential", "imported_", hex.EncodeToString(sum[:])} {
		if strings.Contains(string(shown.raw), secret) {
			t.Errorf("%q in %s", secret, shown.raw)
		}
	}

	// Run again, it makes nothing, and changes nothing.
	before := g.everything()
	again := ok[ImportedKeys](g.send("POST", "/keys/import", body), 200).Keys
	if again[0] != (ImportedKey{made[0].ID, true}) || again[1] != (ImportedKey{made[1].ID, true}) || g.everything() != before {
		t.Errorf("%+v", again)
	}
	if page := ok[KeyPage](g.send("GET", "/keys?imported=true", ""), 200); len(page.Keys) != 2 {
		t.Errorf("%+v", page)
	}

	// A rotation makes it ours, and the foreign one is the previous secret.
	rotated := g.send("POST", "/keys/"+string(made[0].ID)+"/rotate", "")
	ours := ok[IssuedKey](rotated, 200)
	if ours.Imported || ours.AccessKey == "" || ours.Previous == nil || !ours.Previous.Imported || ours.Previous.GraceEnd == nil {
		t.Errorf("%s", rotated.raw)
	}
}

func TestImportRefusals(t *testing.T) {
	g := newRig(t)
	ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	ok[ImportedKeys](g.send("POST", "/keys/import", `{"keys":[{"credential":"foreign-one","organization":"acme"}]}`), 200)
	native := g.make(`{"name":"taken"}`)
	many := strings.TrimSuffix(strings.Repeat(`{},`, keystore.MaximumImport+1), ",")
	good := `{"credential":"foreign-good"}`
	before := g.everything()
	for _, c := range []struct {
		body, code, place string
		status            int
	}{
		{`{}`, "invalid_field", "/keys", 400},
		{`{"keys":[]}`, "invalid_field", "/keys", 400},
		{`{"keys":null}`, "invalid_field", "/keys", 400},
		{`{"keys":{}}`, "invalid_field", "/keys", 400},
		{`{"keys":["foreign-one"]}`, "invalid_field", "/keys", 400},
		{`{"keys":[` + many + `]}`, "invalid_field", "/keys", 400},
		{`{"keys":[` + good + `,null]}`, "invalid_field", "/keys/1", 400},
		{`{"keys":[` + good + `,{}]}`, "invalid_field", "/keys/1/credential", 400},
		{`{"keys":[` + good + `,{"credential":"short"}]}`, "invalid_field", "/keys/1/credential", 400},
		{`{"keys":[` + good + `,{"credential":"with a space"}]}`, "invalid_field", "/keys/1/credential", 400},
		{`{"keys":[` + good + `,{"credential":"a.token.likeone"}]}`, "invalid_field", "/keys/1/credential", 400},
		{`{"keys":[` + good + `,{"credential":"` + native.APIKey.Reveal() + `"}]}`, "invalid_field", "/keys/1/credential", 400},
		{`{"keys":[` + good + `,{"credential":7}]}`, "invalid_field", "/keys/1/credential", 400},
		{`{"keys":[` + good + `,{"sha256":"abcd"}]}`, "invalid_field", "/keys/1/sha256", 400},
		{`{"keys":[` + good + `,{"sha256":"` + strings.Repeat("g", 64) + `"}]}`, "invalid_field", "/keys/1/sha256", 400},
		{`{"keys":[` + good + `,{"credential":"foreign-two","sha256":"` + strings.Repeat("a", 64) + `"}]}`, "invalid_field", "/keys/1/credential", 400},
		{`{"keys":[` + good + `,{"credential":"foreign-two","Name":"x"}]}`, "unknown_field", "/keys/1/Name", 400},
		{`{"keys":[` + good + `,{"credential":"foreign-two","api_key":"x"}]}`, "unknown_field", "/keys/1/api_key", 400},
		{`{"keys":[` + good + `,{"credential":"foreign-two","type":"other"}]}`, "invalid_field", "/keys/1/type", 400},
		{`{"keys":[` + good + `,{"credential":"foreign-two","networks":["x"]}]}`, "invalid_field", "/keys/1/networks", 400},
		{`{"keys":[` + good + `,{"credential":"foreign-two","expires_in_days":0}]}`, "invalid_field", "/keys/1/expires_in_days", 400},
		{`{"keys":[` + good + `,{"credential":"foreign-two","type":"trial","expires_in_days":15}]}`, "invalid_field", "/keys/1/expires_in_days", 400},
		{`{"keys":[` + good + `,{"credential":"foreign-two","name":"taken"}]}`, "name_taken", "/keys/1/name", 409},
		{`{"keys":[` + good + `,{"credential":"foreign-two","organization":"nowhere"}]}`, "organization_not_found", "/keys/1", 404},
		{`{"keys":[` + good + `,{"credential":"foreign-one"}]}`, "credential_taken", "/keys/1", 409},
	} {
		g.send("POST", "/keys/import", c.body).refused(c.status, c.code, c.place)
	}
	if g.everything() != before {
		t.Error("a refused import changed something")
	}
}

func TestBulkDelete(t *testing.T) {
	g := newRig(t)
	first := ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201).ID
	one, two := g.make(`{}`).ID, g.changed(`{}`, "expire")
	for range 3 {
		g.changed(`{"organization":"acme"}`, "expire")
	}
	ids := fmt.Sprintf(`["%s","key_nosuch","%s","%s"]`, one, first, two)

	before := g.everything()
	tried := ok[DeletedKeys](g.send("POST", "/keys/delete", `{"dry_run":true,"ids":`+ids+`}`), 200)
	if !tried.DryRun || fmt.Sprint(tried.Deleted) != fmt.Sprint([]keystore.KeyID{one, first, two}) || g.everything() != before {
		t.Errorf("%+v", tried)
	}
	ok[DeletedKeys](g.send("POST", "/keys/delete", `{"expired":true,"organization":"acme"}`), 200) // now first is the last one
	done := ok[DeletedKeys](g.send("POST", "/keys/delete", `{"ids":`+ids+`}`), 200)
	if done.DryRun || done.More || fmt.Sprint(done.Deleted) != fmt.Sprint([]keystore.KeyID{one, two}) || len(done.Failed) != 2 ||
		done.Failed[0].ID != "key_nosuch" || done.Failed[0].Code != "key_not_found" || done.Failed[1].ID != first || done.Failed[1].Code != "last_key" || done.Failed[1].Detail == "" {
		t.Errorf("%+v", done)
	}
	if none := ok[DeletedKeys](g.send("POST", "/keys/delete", `{"expired":true}`), 200); none.Deleted == nil || len(none.Deleted)+len(none.Failed) != 0 {
		t.Errorf("%+v", none)
	}
	for body, place := range map[string]string{
		`{}`: "/ids", `{"ids":[]}`: "/ids", `{"expired":false}`: "/ids", `{"ids":["key_a"],"expired":true}`: "/ids", `{"ids":"key_a"}`: "/ids",
		`{"ids":["key_a"],"organization":"acme"}`: "/organization", `{"expired":"yes"}`: "/expired",
		`{"ids":["` + strings.Repeat(`x","`, keystore.MaximumBulk) + `"]}`: "/ids",
	} {
		g.send("POST", "/keys/delete", body).refused(400, "invalid_field", place)
	}
}

func TestLastStandardKeyStays(t *testing.T) {
	g := newRig(t)
	first := ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	g.make(`{"organization":"acme","type":"trial"}`)
	path := "/keys/" + string(first.ID)
	g.send("DELETE", path, "").refused(409, "last_key", "")
	g.send("DELETE", "/organizations/acme", "").refused(409, "organization_in_use", "")
	second := g.make(`{"organization":"acme"}`)
	ok[DeletedKey](g.send("DELETE", path, ""), 200)
	g.send("DELETE", "/keys/"+string(second.ID), "").refused(409, "last_key", "")
	only := g.make(`{}`)
	ok[DeletedKey](g.send("DELETE", "/keys/"+string(only.ID), ""), 200) // the default organization may have none
}

func TestDeleteOrganization(t *testing.T) {
	g := newRig(t)
	first := ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201)
	own := g.permission(`{"name":"own","organization":"acme"}`)
	more := g.make(`{"organization":"acme"}`)
	g.send("DELETE", "/organizations/acme", "").refused(409, "organization_in_use", "")
	ok[DeletedKey](g.send("DELETE", "/keys/"+string(more.ID), ""), 200)
	g.send("DELETE", "/organizations/acme", `{"force":true}`).refused(400, "unknown_field", "/force")
	gone := ok[DeletedOrganization](g.send("DELETE", "/organizations/acme", ""), 200)
	if !gone.Deleted || gone.Slug != "acme" || gone.Revision <= first.Revision {
		t.Errorf("%+v", gone)
	}
	g.send("GET", "/organizations/acme", "").refused(404, "organization_not_found", "")
	g.send("DELETE", "/organizations/acme", "").refused(404, "organization_not_found", "")
	g.send("GET", "/keys/"+string(first.ID), "").refused(404, "key_not_found", "")
	g.send("GET", "/permissions/"+own.ID, "").refused(404, "permission_not_found", "")
	g.send("DELETE", "/organizations/default", "").refused(409, "default_organization", "")
	if again := ok[IssuedKey](g.send("POST", "/organizations", `{"slug":"acme"}`), 201); again.ID == first.ID {
		t.Errorf("%+v", again.Key)
	}
}
