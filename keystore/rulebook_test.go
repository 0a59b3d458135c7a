package keystore_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// may reports whether the key may use method on path now.
func (n *sqliteNode) may(t *testing.T, id keystore.KeyID, method, path string) bool {
	t.Helper()
	rec, err := n.view.Record(t.Context(), keystore.LookupID(id), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	z := keystore.Authorizer{Directory: n.directory, Rulebook: n.rulebook}
	err = z.Permit(&keystore.Principal{Record: rec}, keystore.Access{Method: method, Path: path, From: netip.MustParseAddr("192.0.2.1")})
	if err != nil && !errors.Is(err, keystore.ErrPermission) {
		t.Fatal(err)
	}
	return err == nil
}

func (n *sqliteNode) permission(t *testing.T, name string, rules ...keystore.Rule) keystore.Permission {
	t.Helper()
	p, err := n.service.CreatePermission(t.Context(), admin, keystore.Permission{Name: name, Rules: rules}, time.Now())
	if err != nil {
		t.Fatalf("creating permission %s: %v", name, err)
	}
	return p
}

func (n *sqliteNode) organize(t *testing.T, org keystore.Organization) keystore.Issued {
	t.Helper()
	issued, err := n.service.CreateOrganization(t.Context(), admin, org, keystore.NewKey{}, nil, time.Now())
	if err != nil {
		t.Fatalf("creating organization %s: %v", org.Slug, err)
	}
	return issued
}

func TestPermissionsRestrict(t *testing.T) {
	n := newSQLiteNode(t, 16)
	read := n.permission(t, "read", keystore.Rule{Methods: []string{"GET"}, Paths: []string{"/v1/*", "/healthz"}})
	write := n.permission(t, "write", keystore.Rule{Paths: []string{"/v1/*/items"}})
	nothing := n.permission(t, "nothing")
	free := n.create(t, keystore.NewKey{}).Record.ID
	reader := n.create(t, keystore.NewKey{Permissions: []string{read.ID}}).Record.ID
	both := n.create(t, keystore.NewKey{Permissions: []string{write.ID, read.ID}}).Record.ID
	none := n.create(t, keystore.NewKey{Permissions: []string{nothing.ID}}).Record.ID
	for _, c := range []struct {
		id           keystore.KeyID
		method, path string
		want         bool
	}{
		{free, "DELETE", "/anything", true},
		{reader, "GET", "/v1/a", true}, {reader, "HEAD", "/v1/a", true}, {reader, "POST", "/v1/a", false}, {reader, "GET", "/v2", false}, {reader, "GET", "/v1", false},
		{reader, "get", "/v1/a", false}, {reader, "GET", "/healthz", true}, {reader, "", "/v1/a", false},
		{both, "POST", "/v1/7/items", true}, {both, "POST", "/v1/7", false}, {both, "GET", "/v1/7", true},
		{none, "GET", "/", false},
	} {
		if got := n.may(t, c.id, c.method, c.path); got != c.want {
			t.Errorf("%s %s: %v", c.method, c.path, got)
		}
	}
	if _, err := n.service.UpdatePermission(t.Context(), admin, read.ID, 0, func(p *keystore.Permission) error {
		p.Rules, p.ID, p.Organization = nil, "perm_other", "default"
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n.may(t, reader, "GET", "/v1/a") || n.may(t, both, "GET", "/v1/7") || !n.may(t, both, "POST", "/v1/7/items") {
		t.Error("a change of a permission does not count at once")
	}
}

func TestOrganizationRestrictsPermissions(t *testing.T) {
	n := newSQLiteNode(t, 16)
	allowed := n.permission(t, "allowed", keystore.Rule{Paths: []string{"/allowed"}})
	other := n.permission(t, "other", keystore.Rule{Paths: []string{"/*"}})
	first := n.organize(t, keystore.Organization{Slug: "acme"}).Record
	its := keystore.Caller{Actor: string(first.ID), Organization: "acme", Scopes: keystore.ScopeKeys}
	before, err := n.service.CreateKey(t.Context(), its, keystore.NewKey{Permissions: []string{other.ID}}, nil, time.Now())
	if err != nil || !n.may(t, first.ID, "GET", "/x") || !n.may(t, before.Record.ID, "GET", "/x") {
		t.Fatalf("unrestricted: %v", err)
	}
	own, err := n.service.CreatePermission(t.Context(), its, keystore.Permission{Name: "own", Rules: []keystore.Rule{{Paths: []string{"/*"}}}}, time.Now())
	if err != nil || own.Organization != "acme" {
		t.Fatalf("a permission of its own: %+v, %v", own, err)
	}
	restrict := func(ids ...string) error {
		_, err := n.service.UpdateOrganization(t.Context(), admin, "acme", 0, func(o *keystore.Organization) error {
			o.AllowedPermissions = ids
			return nil
		})
		return err
	}
	for _, bad := range []string{own.ID, "perm_nobody", "allowed", ""} {
		if err := restrict(bad); !meets(err, anyField) {
			t.Errorf("restricting to %q: %v", bad, err)
		}
	}
	if err := restrict(allowed.ID); err != nil {
		t.Fatal(err)
	}
	for name, id := range map[string]keystore.KeyID{"without any": first.ID} {
		if n.may(t, id, "GET", "/x") || !n.may(t, id, "GET", "/allowed") {
			t.Errorf("a key %s: what the organization allows is what it may do", name)
		}
	}
	if n.may(t, before.Record.ID, "GET", "/x") || n.may(t, before.Record.ID, "GET", "/allowed") {
		t.Error("a permission that was granted before still counts")
	}
	for _, id := range []string{other.ID, own.ID} {
		if _, err := n.service.CreateKey(t.Context(), its, keystore.NewKey{Permissions: []string{id}}, nil, time.Now()); !meets(err, anyField) {
			t.Errorf("granting %s: %v", id, err)
		}
	}
	if err := restrict([]string{}...); err != nil {
		t.Fatal(err)
	}
	if _, err := n.service.UpdateOrganization(t.Context(), admin, "acme", 0, func(o *keystore.Organization) error {
		o.AllowedPermissions = []string{}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if n.may(t, first.ID, "GET", "/allowed") {
		t.Error("no allowed permissions allow something")
	}
}

func TestPermissionsOfOthers(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := t.Context(), time.Now()
	shared := n.permission(t, "shared")
	n.organize(t, keystore.Organization{Slug: "acme"})
	n.organize(t, keystore.Organization{Slug: "globex"})
	acme := keystore.Caller{Actor: "key_a", Organization: "acme", Scopes: keystore.ScopeKeys}
	globex := keystore.Caller{Actor: "key_g", Organization: "globex", Scopes: keystore.ScopeKeys}
	reader := keystore.Caller{Actor: "key_r", Organization: "acme", Scopes: keystore.ScopeRead}
	own, err := n.service.CreatePermission(ctx, acme, keystore.Permission{Name: "own"}, now)
	if err != nil {
		t.Fatal(err)
	}
	edit := func(p *keystore.Permission) error { p.Name = "edited"; return nil }
	for name, c := range map[string]struct{ err, want error }{
		"another's, to see":       {second(n.service.Permission(globex, own.ID)), keystore.ErrPermissionNotFound},
		"another's, to change":    {second(n.service.UpdatePermission(ctx, globex, own.ID, 0, edit)), keystore.ErrPermissionNotFound},
		"another's, to delete":    {second(n.service.DeletePermission(ctx, globex, own.ID, 0)), keystore.ErrPermissionNotFound},
		"another's, to grant":     {second(n.service.CreateKey(ctx, globex, keystore.NewKey{Permissions: []string{own.ID}}, nil, now)), anyField},
		"another's, to make":      {second(n.service.CreatePermission(ctx, globex, keystore.Permission{Name: "x", Organization: "acme"}, now)), keystore.ErrPermissionNotFound},
		"everybody's, to change":  {second(n.service.UpdatePermission(ctx, acme, shared.ID, 0, edit)), keystore.ErrForbidden},
		"everybody's, to delete":  {second(n.service.DeletePermission(ctx, acme, shared.ID, 0)), keystore.ErrForbidden},
		"a reader's, to change":   {second(n.service.UpdatePermission(ctx, reader, own.ID, 0, edit)), keystore.ErrForbidden},
		"a reader's, to make":     {second(n.service.CreatePermission(ctx, reader, keystore.Permission{Name: "x"}, now)), keystore.ErrForbidden},
		"nobody's, to see":        {second(n.service.Permission(keystore.Caller{}, shared.ID)), keystore.ErrPermissionNotFound},
		"an unknown one":          {second(n.service.DeletePermission(ctx, admin, "perm_unknown", 0)), keystore.ErrPermissionNotFound},
		"a stale edit":            {second(n.service.UpdatePermission(ctx, admin, own.ID, own.Revision+1, edit)), keystore.ErrStaleEdit},
		"a taken name":            {second(n.service.CreatePermission(ctx, acme, keystore.Permission{Name: "own"}, now)), keystore.ErrNameTaken},
		"of no organization":      {second(n.service.CreatePermission(ctx, admin, keystore.Permission{Name: "x", Organization: "nobody"}, now)), keystore.ErrOrganizationNotFound},
		"a rule without a path":   {second(n.service.CreatePermission(ctx, admin, keystore.Permission{Name: "x", Rules: []keystore.Rule{{}}}, now)), anyField},
		"a path with dots":        {second(n.service.CreatePermission(ctx, admin, keystore.Permission{Name: "x", Rules: []keystore.Rule{{Paths: []string{"/a/../b"}}}}, now)), anyField},
		"a method in lower case":  {second(n.service.CreatePermission(ctx, admin, keystore.Permission{Name: "x", Rules: []keystore.Rule{{Methods: []string{"get"}, Paths: []string{"/"}}}}, now)), anyField},
		"the same name elsewhere": {second(n.service.CreatePermission(ctx, globex, keystore.Permission{Name: "own"}, now)), nil},
	} {
		if c.want == nil && c.err != nil || c.want != nil && !meets(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	list, err := n.service.Permissions(acme, "")
	if names := namesOf(list); err != nil || !slices.Equal(names, []string{"own", "shared"}) {
		t.Errorf("acme's list: %v, %v", names, err)
	}
	if _, err := n.service.Permissions(acme, "globex"); !errors.Is(err, keystore.ErrOrganizationNotFound) {
		t.Errorf("another's list: %v", err)
	}
	if list, _ := n.service.Permissions(admin, ""); len(list) != 3 {
		t.Errorf("all: %v", namesOf(list))
	}
}

func namesOf(list []keystore.Permission) (names []string) {
	for _, p := range list {
		names = append(names, p.Name)
	}
	return names
}

func TestPermissionInUse(t *testing.T) {
	n := newSQLiteNode(t, 16)
	p := n.permission(t, "p")
	key := n.create(t, keystore.NewKey{Permissions: []string{p.ID}}).Record
	n.organize(t, keystore.Organization{Slug: "acme", AllowedPermissions: []string{p.ID}})
	_, err := n.service.DeletePermission(t.Context(), admin, p.ID, 0)
	used, ok := errors.AsType[*keystore.PermissionInUseError](err)
	if !ok || !slices.Equal(used.Keys, []keystore.KeyID{key.ID}) || !slices.Equal(used.Organizations, []string{"acme"}) {
		t.Fatalf("deleting it: %v", err)
	}
	if _, err := n.service.DeleteOrganization(t.Context(), admin, "acme", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := n.service.Update(t.Context(), admin, key.ID, 0, func(e *keystore.Editable) error { e.Permissions = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := n.service.DeletePermission(t.Context(), admin, p.ID, 0); err != nil {
		t.Errorf("deleting it when nothing refers to it: %v", err)
	}
	if _, err := n.service.Permission(admin, p.ID); !errors.Is(err, keystore.ErrPermissionNotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestNobodyIsPermitted(t *testing.T) {
	var book keystore.Rulebook
	if book.Allows("", nil, "GET", "/") || book.Allows("perm_a", &keystore.Organization{Slug: "a"}, "GET", "/") ||
		book.Allows("", &keystore.Organization{Slug: "a", AllowedPermissions: []string{"perm_a"}}, "GET", "/") {
		t.Error("an empty rulebook allows what is restricted, or anything to an organization that is not known")
	}
	if err := (&keystore.Authorizer{Directory: new(keystore.Directory), Rulebook: &book}).Permit(
		&keystore.Principal{Record: &keystore.Record{Organization: "gone"}}, keystore.Access{}); !errors.Is(err, keystore.ErrPermission) {
		t.Errorf("a key of no organization: %v", err)
	}
}

// A permission written by a newer node may hold rules that this one cannot
// read. They allow nothing.
func TestUnreadablePermission(t *testing.T) {
	n := newSQLiteNode(t, 16)
	for _, body := range []string{"{", `{"name":"x","rules":[{"paths":["~regular expression"]}]}`, `{"name":"x","rules":[{"paths":[]}]}`, "null"} {
		_, err := n.store.Transact(context.Background(), func(tx keystore.Tx) error {
			return tx.PutDocument(&keystore.Document{Kind: keystore.KindPermission, Name: "perm_new", Body: []byte(body)})
		})
		if err != nil {
			t.Fatal(err)
		}
		n.permission(t, body[:1]+"waits until it is applied"+time.Now().String())
		if n.rulebook.Allows("perm_new", &keystore.Organization{Slug: "default"}, "GET", "/") {
			t.Errorf("%s allows something", body)
		}
	}
}
