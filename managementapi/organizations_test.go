package managementapi

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/tokenissuer"
)

func TestOrganizationIsMadeWithItsFirstKey(t *testing.T) {
	g := newRig(t)
	r := g.send("POST", "/organizations", `{"slug":"acme","default_expiry_days":30,"maximum_expiry_days":90,"allowed_scopes":["a"],"metadata":{"plan":"x"},
		"key":{"name":"first","scopes":["a","warder:keys"],"metadata":{"y":1}}}`)
	key := ok[IssuedKey](r, 201)
	if key.Organization != "acme" || key.Name != "first" || key.Type != "standard" || key.Expires != "Expires in: 30 days" || key.SecretKey == "" {
		t.Errorf("%s", r.raw)
	}
	if r.header.Get("Location") != "/warder/v1/organizations/acme" {
		t.Errorf("%v", r.header)
	}
	got := g.send("GET", "/organizations/acme", "")
	if o := ok[Organization](got, 200); o.Slug != "acme" || *o.DefaultExpiryDays != 30 || *o.MaximumExpiryDays != 90 || len(o.AllowedScopes) != 1 ||
		string(o.Metadata) != `{"plan":"x"}` || got.header.Get("ETag") != etag(o.Revision) || o.CreatedAt.IsZero() {
		t.Errorf("%s", got.raw)
	}
	for _, c := range []struct {
		body, code, place string
		status            int
	}{
		{`{"slug":"acme"}`, "organization_exists", "/slug", 409},
		{`{}`, "invalid_field", "/slug", 400},
		{`{"slug":"Acme"}`, "invalid_field", "/slug", 400},
		{`{"slug":"x","metadata":[]}`, "invalid_field", "/metadata", 400},
		{`{"slug":"x","default_expiry_days":0}`, "invalid_field", "/default_expiry_days", 400},
		{`{"slug":"x","default_expiry_days":9,"maximum_expiry_days":3}`, "invalid_field", "/default_expiry_days", 400},
		{`{"slug":"x","key":{"metadata":[]}}`, "invalid_field", "/key/metadata", 400},
		{`{"slug":"x","key":{"name":"a\u0007"}}`, "invalid_field", "/key/name", 400},
		{`{"slug":"x","key":{"expires_in_days":0}}`, "invalid_field", "/key/expires_in_days", 400},
		{`{"slug":"x","key":{"expires_at":"2001-01-01T00:00:00Z"}}`, "invalid_field", "/key/expires_at", 400},
		{`{"slug":"x","allowed_scopes":["a"],"key":{"scopes":["b"]}}`, "invalid_field", "/key/scopes", 400},
		{`{"slug":"x","key":{"permissions":["perm_x"]}}`, "invalid_field", "/key/permissions", 400},
		{`{"slug":"x","key":{"limit":"fast"}}`, "invalid_field", "/key/limit", 400},
		{`{"slug":"x","limit":"fast"}`, "invalid_field", "/limit", 400},
		{`{"slug":"x","grace_seconds":0}`, "invalid_field", "/grace_seconds", 400},
		{`{"slug":"x","grace_seconds":31536001}`, "invalid_field", "/grace_seconds", 400},
		{`{"slug":"x","grace_seconds":9223372036854775807}`, "invalid_field", "/grace_seconds", 400},
		{`{"slug":"x","allowed_permissions":["perm_x"]}`, "invalid_field", "/allowed_permissions", 400},
		{`{"slug":"x","key":{"type":"trial"}}`, "unknown_field", "/key/type", 400},
		{`{"slug":"x","key":{"Name":"n"}}`, "unknown_field", "/key/Name", 400},
		{`{"slug":"x","key":{"name":"a","name":"b"}}`, "duplicate_field", "/key/name", 400},
		{`{"slug":"x","key":[]}`, "invalid_field", "/key", 400},
		{`{"slug":"x","number":7}`, "unknown_field", "/number", 400},
	} {
		g.send("POST", "/organizations", c.body).refused(c.status, c.code, c.place)
	}
	if page := ok[OrganizationPage](g.send("GET", "/organizations", ""), 200); len(page.Organizations) != 2 {
		t.Errorf("a refused creation made something: %+v", page)
	}
}

func TestOrganizationPatch(t *testing.T) {
	g := newRig(t)
	path := "/organizations/default"
	for _, step := range []struct{ body, want string }{
		{`{}`, "never none all {}"},
		{`{"default_expiry_days":30,"maximum_expiry_days":90}`, "30 90 all {}"},
		{`{"allowed_scopes":["b","a"],"metadata":{"x":1}}`, `30 90 [b a] {"x":1}`},
		{`{"default_expiry_days":null,"metadata":{"y":2}}`, `never 90 [b a] {"x":1,"y":2}`},
		{`{"allowed_scopes":[],"metadata":{"x":null}}`, `never 90 [] {"y":2}`},
		{`{"maximum_expiry_days":null,"allowed_scopes":null,"metadata":null}`, "never none all {}"},
	} {
		r := g.send("PATCH", path, step.body)
		ok[Organization](r, 200)
		if got := summary(ok[Organization](g.send("GET", path, ""), 200)); got != step.want {
			t.Errorf("after %s: %s, want %s", step.body, got, step.want)
		}
		if got := summary(ok[Organization](r, 200)); got != step.want {
			t.Errorf("%s answers %s, want %s", step.body, got, step.want)
		}
	}
	for body, place := range map[string]string{
		`{"default_expiry_days":0}`: "/default_expiry_days", `{"maximum_expiry_days":-1}`: "/maximum_expiry_days", `{"maximum_expiry_days":36526}`: "/maximum_expiry_days",
		`{"default_expiry_days":"30"}`: "/default_expiry_days", `{"allowed_scopes":["a b"]}`: "/allowed_scopes", `{"metadata":7}`: "/metadata",
	} {
		g.send("PATCH", path, body).refused(400, "invalid_field", place)
	}
	ok[Organization](g.send("PATCH", path, `{"grace_seconds":60,"limit":"100/s burst 200","allowed_permissions":[]}`), 200)
	o := ok[Organization](g.send("GET", path, ""), 200)
	if *o.GraceSeconds != 60 || *o.Limit != "100/s burst 200" || o.AllowedPermissions == nil || len(o.AllowedPermissions) != 0 {
		t.Errorf("%+v", o)
	}
	rotated := ok[IssuedKey](g.send("POST", "/keys/"+string(g.make(`{}`).ID)+"/rotate", ""), 200)
	if left := time.Until(*rotated.GraceEnd); left > time.Minute {
		t.Errorf("the organization's grace period is a minute, and %s are left", left)
	}
	ok[Organization](g.send("PATCH", path, `{"grace_seconds":null,"limit":null,"allowed_permissions":null}`), 200)
	if o := ok[Organization](g.send("GET", path, ""), 200); o.GraceSeconds != nil || o.Limit != nil || o.AllowedPermissions != nil {
		t.Errorf("%+v", o)
	}
	g.send("PATCH", path, `{"slug":"x"}`).refused(400, "unknown_field", "/slug")
	g.send("PATCH", "/organizations/nowhere", `{}`).refused(404, "organization_not_found", "")
	g.send("GET", "/organizations/nowhere", "").refused(404, "organization_not_found", "")
}

func summary(o Organization) string {
	text := []string{"never", "none", "all", string(o.Metadata)}
	if o.DefaultExpiryDays != nil {
		text[0] = fmt.Sprint(*o.DefaultExpiryDays)
	}
	if o.MaximumExpiryDays != nil {
		text[1] = fmt.Sprint(*o.MaximumExpiryDays)
	}
	if o.AllowedScopes != nil {
		text[2] = fmt.Sprint(o.AllowedScopes)
	}
	return strings.Join(text, " ")
}

func TestOrganizationPages(t *testing.T) {
	g := newRig(t)
	for i := range 4 {
		ok[IssuedKey](g.send("POST", "/organizations", fmt.Sprintf(`{"slug":"o%d"}`, i)), 201)
	}
	var slugs []string
	cursor := ""
	for {
		page := ok[OrganizationPage](g.send("GET", "/organizations?limit=2"+cursor, ""), 200)
		for _, o := range page.Organizations {
			slugs = append(slugs, o.Slug)
		}
		if page.Next == nil {
			break
		}
		cursor = "&after=" + *page.Next
	}
	if got := strings.Join(slugs, " "); got != "default o0 o1 o2 o3" {
		t.Errorf("%s", got)
	}
	g.send("GET", "/organizations?limit=0", "").refused(400, "invalid_parameter", "limit")
	g.send("GET", "/organizations?state=active", "").refused(400, "invalid_parameter", "state")
}

func TestSigningKeys(t *testing.T) {
	g := newRig(t)
	before := g.send("GET", "/signing-keys", "")
	ring := ok[tokenissuer.RingInfo](before, 200)
	if len(ring.Keys) != 2 || before.header.Get("ETag") != etag(ring.Revision) || strings.Contains(string(before.raw), "rivate") {
		t.Errorf("%s", before.raw)
	}
	planned := ok[SigningRotation](g.send("POST", "/signing-keys/rotate", ""), 200)
	if !planned.Upcoming || planned.SignsAt.IsZero() || planned.Revision <= ring.Revision { // next was just published
		t.Errorf("%+v", planned)
	}
	emergency := ok[SigningRotation](g.send("POST", "/signing-keys/rotate", `{"emergency":true}`), 200)
	after := ok[tokenissuer.RingInfo](g.send("GET", "/signing-keys", ""), 200)
	if emergency.Upcoming || after.Keys[0].KID != emergency.KID || after.Keys[0].KID == ring.Keys[0].KID {
		t.Errorf("%+v %+v", emergency, after)
	}
	g.send("POST", "/signing-keys/rotate", `{"emergency":"yes"}`).refused(400, "invalid_field", "/emergency")
	g.send("POST", "/signing-keys/rotate", `{"force":true}`).refused(400, "unknown_field", "/force")

	g.serve(Config{Service: g.service, Caller: g.who, Prefix: "/warder/v1", Log: g.log})
	g.send("GET", "/signing-keys", "").refused(404, "no_issuer", "")
	g.send("POST", "/signing-keys/rotate", "").refused(404, "no_issuer", "")
}
