package keystore_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

var (
	admin = keystore.LocalCaller()
	owner = keystore.Caller{Actor: "key_owner", Organization: "default", Scopes: keystore.ScopeKeys}
)

// TestOperations walks the table of what may be done to a key in which state,
// and what a credential of it is worth afterwards.
func TestOperations(t *testing.T) {
	n := newSQLiteNode(t, 1024)
	ctx := context.Background()
	now := time.Now()
	type operation func(id keystore.KeyID) error
	operations := map[string]operation{
		"rotate": func(id keystore.KeyID) error {
			return second(n.service.Rotate(ctx, admin, id, keystore.Rotation{}, nil, now))
		},
		"force": func(id keystore.KeyID) error {
			return second(n.service.Rotate(ctx, admin, id, keystore.Rotation{Force: true}, nil, now))
		},
		"regenerate": func(id keystore.KeyID) error { return second(n.service.Regenerate(ctx, admin, id, 0, 0, nil, now)) },
		"renew":      func(id keystore.KeyID) error { return second(n.service.Renew(ctx, admin, id, 30, 0, now)) },
		"renew 0":    func(id keystore.KeyID) error { return second(n.service.Renew(ctx, admin, id, 0, 0, now)) },
		"expire":     func(id keystore.KeyID) error { return second(n.service.Expire(ctx, admin, id, 0, now)) },
		"deactivate": func(id keystore.KeyID) error { return second(n.service.SetDeactivated(ctx, admin, id, true, 0)) },
		"activate":   func(id keystore.KeyID) error { return second(n.service.SetDeactivated(ctx, admin, id, false, 0)) },
		"block":      func(id keystore.KeyID) error { return second(n.service.SetBlocked(ctx, admin, id, true, 0)) },
		"unblock":    func(id keystore.KeyID) error { return second(n.service.SetBlocked(ctx, admin, id, false, 0)) },
		"update": func(id keystore.KeyID) error {
			return second(n.service.Update(ctx, admin, id, 0, func(e *keystore.Editable) error { e.Metadata = `{"a":1}`; return nil }))
		},
		"delete": func(id keystore.KeyID) error { return second(n.service.DeleteKey(ctx, admin, id, 0)) },
	}
	for _, row := range []struct {
		before []string // what brought the key into its state; it expires in a day
		do     string
		want   error // a *FieldError means any
		then   error // what the first secret meets afterwards
	}{
		{nil, "rotate", nil, nil},
		{nil, "force", nil, keystore.ErrSuperseded},
		{nil, "regenerate", nil, keystore.ErrSuperseded},
		{nil, "renew", nil, nil},
		{nil, "renew 0", anyField, nil},
		{nil, "expire", nil, keystore.ErrExpired},
		{nil, "deactivate", nil, keystore.ErrDeactivated},
		{nil, "activate", nil, nil},
		{nil, "block", nil, keystore.ErrBlocked},
		{nil, "unblock", nil, nil},
		{nil, "update", nil, nil},
		{nil, "delete", nil, keystore.ErrInvalid},

		{[]string{"deactivate"}, "rotate", nil, keystore.ErrDeactivated},
		{[]string{"deactivate"}, "regenerate", nil, keystore.ErrDeactivated},
		{[]string{"deactivate"}, "renew", nil, keystore.ErrDeactivated},
		{[]string{"deactivate"}, "expire", nil, keystore.ErrExpired},
		{[]string{"deactivate"}, "activate", nil, nil},
		{[]string{"deactivate"}, "block", nil, keystore.ErrBlocked},
		{[]string{"deactivate", "block"}, "unblock", nil, keystore.ErrDeactivated},
		{[]string{"deactivate", "block"}, "activate", nil, keystore.ErrBlocked},

		{[]string{"expire"}, "rotate", keystore.ErrExpired, keystore.ErrExpired},
		{[]string{"expire"}, "force", keystore.ErrExpired, keystore.ErrExpired},
		{[]string{"expire"}, "regenerate", nil, keystore.ErrSuperseded},
		{[]string{"expire"}, "renew", nil, nil},
		{[]string{"expire"}, "expire", nil, keystore.ErrExpired},
		{[]string{"expire"}, "deactivate", nil, keystore.ErrExpired},
		{[]string{"expire"}, "block", nil, keystore.ErrBlocked},
		{[]string{"expire"}, "update", nil, keystore.ErrExpired},
		{[]string{"expire"}, "delete", nil, keystore.ErrInvalid},

		{[]string{"block"}, "rotate", keystore.ErrBlocked, keystore.ErrBlocked},
		{[]string{"block"}, "force", keystore.ErrBlocked, keystore.ErrBlocked},
		{[]string{"block"}, "regenerate", keystore.ErrBlocked, keystore.ErrBlocked},
		{[]string{"block"}, "renew", keystore.ErrBlocked, keystore.ErrBlocked},
		{[]string{"block"}, "expire", keystore.ErrBlocked, keystore.ErrBlocked},
		{[]string{"block"}, "deactivate", nil, keystore.ErrBlocked},
		{[]string{"block"}, "unblock", nil, nil},
		{[]string{"block"}, "update", nil, keystore.ErrBlocked},
		{[]string{"block"}, "delete", nil, keystore.ErrInvalid},

		{[]string{"rotate"}, "rotate", nil, keystore.ErrInvalid},
		{[]string{"rotate"}, "force", nil, keystore.ErrInvalid},
		{[]string{"rotate"}, "regenerate", nil, keystore.ErrInvalid},
		{[]string{"regenerate"}, "regenerate", nil, keystore.ErrInvalid},
		{[]string{"delete"}, "block", keystore.ErrKeyNotFound, keystore.ErrInvalid},
		{[]string{"delete"}, "delete", keystore.ErrKeyNotFound, keystore.ErrInvalid},
	} {
		for _, warm := range []bool{true, false} {
			name := fmt.Sprintf("%v %s warm=%t", row.before, row.do, warm)
			issued := n.create(t, keystore.NewKey{Expires: keystore.InstantOf(now.Add(24 * time.Hour))})
			if warm {
				n.present(issued.APIKey, now)
			}
			for _, op := range row.before {
				if err := operations[op](issued.Record.ID); err != nil {
					t.Fatalf("%s: %s: %v", name, op, err)
				}
			}
			err := operations[row.do](issued.Record.ID)
			if !meets(err, row.want) {
				t.Errorf("%s: %v, want %v", name, err, row.want)
			}
			// The instant of the operation: nothing waits for a clock to move.
			if _, err := n.present(issued.APIKey, now); !errors.Is(err, row.then) {
				t.Errorf("%s: the first secret then meets %v, want %v", name, err, row.then)
			}
		}
	}
}

// anyField stands for whichever *FieldError.
var anyField = errors.New("a field error")

func meets(err, want error) bool {
	var field *keystore.FieldError
	return errors.Is(err, want) || want == anyField && errors.As(err, &field)
}

func second[T any](_ T, err error) error { return err }

func TestRenewImmortal(t *testing.T) {
	n := newSQLiteNode(t, 16)
	issued := n.create(t, keystore.NewKey{})
	if _, err := n.service.Renew(context.Background(), admin, issued.Record.ID, 3, 0, time.Now()); !errors.Is(err, keystore.ErrNeverExpires) {
		t.Errorf("renewing an immortal key: %v", err)
	}
}

func TestCreate(t *testing.T) {
	n := newSQLiteNode(t, 16)
	now := time.Now()
	issued := n.create(t, keystore.NewKey{Name: "demo", Scopes: []string{"b", "a"}, Metadata: `{"x":1}`})
	r := issued.Record
	if r.Current.Generation != 1 || r.Previous != (keystore.Pair{}) || r.Type != keystore.TypeStandard || r.Organization != "default" ||
		r.Scopes != "a b" || r.Number == 0 || r.Revision == 0 || r.Expires != 0 || issued.Replayed {
		t.Errorf("created %+v", r)
	}
	if p, err := n.present(issued.APIKey, now); err != nil || p.Record.ID != r.ID || p.Kind != keystore.CredentialKey {
		t.Errorf("presenting it: %+v, %v", p, err)
	}
	if stored, err := n.service.Key(context.Background(), admin, r.ID); err != nil || stored != r {
		t.Errorf("stored %+v, %v; answered %+v", stored, err, r)
	}
	next := n.create(t, keystore.NewKey{Type: keystore.TypeTrial})
	if next.Record.Number <= r.Number || next.Record.Expires != keystore.TrialLife.After(now) && next.Record.Expires == 0 {
		t.Errorf("a trial key: %+v", next.Record)
	}
	for name, c := range map[string]struct {
		in   keystore.NewKey
		want error
	}{
		"a taken name":    {keystore.NewKey{Name: "demo"}, keystore.ErrNameTaken},
		"no organization": {keystore.NewKey{Organization: "nobody"}, keystore.ErrOrganizationNotFound},
		"the past":        {keystore.NewKey{Expires: 1}, anyField},
		"a bad scope":     {keystore.NewKey{Scopes: []string{"a b"}}, anyField},
		"a bad name":      {keystore.NewKey{Name: "a\n"}, anyField},
		"bad metadata":    {keystore.NewKey{Metadata: "1"}, anyField},
	} {
		_, err := n.service.CreateKey(context.Background(), admin, c.in, nil, now)
		if !meets(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestNamesOfLivingKeysOnly(t *testing.T) {
	n := newSQLiteNode(t, 16)
	first := n.create(t, keystore.NewKey{Name: "demo"})
	if err := second(n.service.DeleteKey(context.Background(), admin, first.Record.ID, 0)); err != nil {
		t.Fatal(err)
	}
	if again := n.create(t, keystore.NewKey{Name: "demo"}); again.Record.Number <= first.Record.Number {
		t.Errorf("number %d is given again after %d", again.Record.Number, first.Record.Number)
	}
}

func TestOrganizations(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := context.Background(), time.Now()
	acme := keystore.Organization{Slug: "acme", DefaultExpiry: 3, MaximumExpiry: 7, AllowedScopes: []string{"hello:read"}}
	if _, err := n.service.CreateOrganization(ctx, owner, acme, keystore.NewKey{}, nil, now); !errors.Is(err, keystore.ErrForbidden) {
		t.Errorf("by an owner: %v", err)
	}
	issued, err := n.service.CreateOrganization(ctx, admin, acme, keystore.NewKey{Organization: "default", Scopes: []string{"hello:read"}}, nil, now)
	if err != nil || issued.Record.Organization != "acme" || issued.Record.Expires != keystore.Days(3).After(now) {
		t.Fatalf("creating: %+v, %v", issued.Record, err)
	}
	if _, err := n.service.CreateOrganization(ctx, admin, acme, keystore.NewKey{}, nil, now); !errors.Is(err, keystore.ErrOrganizationExists) {
		t.Errorf("again: %v", err)
	}
	its := keystore.Caller{Actor: "key_acme", Organization: "acme", Scopes: keystore.ScopeKeys}
	for name, err := range map[string]error{
		"a scope it may not give": second(n.service.CreateKey(ctx, admin, keystore.NewKey{Organization: "acme", Scopes: []string{"other"}}, nil, now)),
		"beyond its maximum":      second(n.service.CreateKey(ctx, its, keystore.NewKey{Organization: "acme", Expires: keystore.Days(8).After(now)}, nil, now)),
		"renewed beyond it":       second(n.service.Renew(ctx, its, issued.Record.ID, 8, 0, now)),
		"regenerated beyond it":   second(n.service.Regenerate(ctx, its, issued.Record.ID, keystore.Days(8).After(now), 0, nil, now)),
		"an invalid edit":         second(n.service.UpdateOrganization(ctx, admin, "acme", 0, func(o *keystore.Organization) error { o.MaximumExpiry = -1; return nil })),
		"updated scopes":          second(n.service.Update(ctx, admin, issued.Record.ID, 0, func(e *keystore.Editable) error { e.Scopes = []string{"other"}; return nil })),
	} {
		if !meets(err, anyField) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"made":        second(n.service.CreateKey(ctx, admin, keystore.NewKey{Organization: "acme", Expires: keystore.Days(8).After(now)}, nil, now)),
		"renewed":     second(n.service.Renew(ctx, admin, issued.Record.ID, 8, 0, now)),
		"regenerated": second(n.service.Regenerate(ctx, admin, issued.Record.ID, keystore.Days(8).After(now), 0, nil, now)),
	} {
		if err != nil {
			t.Errorf("%s by an administrator beyond the organization's maximum: %v", name, err)
		}
	}
	edit := func(o *keystore.Organization) error {
		o.Slug, o.Number, o.MaximumExpiry, o.AllowedScopes = "stolen", 99, 30, nil
		return nil
	}
	if _, err := n.service.UpdateOrganization(ctx, owner, "acme", 0, edit); !errors.Is(err, keystore.ErrForbidden) {
		t.Errorf("an edit by an owner: %v", err)
	}
	if _, err := n.service.UpdateOrganization(ctx, admin, "acme", 1, edit); !errors.Is(err, keystore.ErrStaleEdit) {
		t.Errorf("a stale edit: %v", err)
	}
	org, err := n.service.UpdateOrganization(ctx, admin, "acme", 0, edit)
	if err != nil || org.Slug != "acme" || org.Number == 99 || org.MaximumExpiry != 30 {
		t.Errorf("edited %+v, %v", org, err)
	}
	if _, err := n.service.UpdateOrganization(ctx, admin, "nobody", 0, edit); !errors.Is(err, keystore.ErrOrganizationNotFound) {
		t.Errorf("editing nobody: %v", err)
	}
}

// TestCallers: nobody grants, sees or changes what it does not hold.
func TestCallers(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := context.Background(), time.Now()
	if _, err := n.service.CreateOrganization(ctx, admin, keystore.Organization{Slug: "acme"}, keystore.NewKey{}, nil, now); err != nil {
		t.Fatal(err)
	}
	own := n.create(t, keystore.NewKey{Scopes: []string{"hello:read"}}).Record.ID
	mighty := n.create(t, keystore.NewKey{Scopes: []string{keystore.ScopeAdmin}}).Record.ID
	foreign := n.create(t, keystore.NewKey{Organization: "acme"}).Record.ID
	reader := keystore.Caller{Actor: "r", Organization: "default", Scopes: keystore.ScopeRead}
	nobody, homeless := keystore.Caller{}, keystore.Caller{Actor: "h", Scopes: keystore.ScopeKeys}

	create := func(c keystore.Caller, in keystore.NewKey) error {
		return second(n.service.CreateKey(ctx, c, in, nil, now))
	}
	change := map[string]func(keystore.Caller, keystore.KeyID) error{
		"rotate": func(c keystore.Caller, id keystore.KeyID) error {
			return second(n.service.Rotate(ctx, c, id, keystore.Rotation{}, nil, now))
		},
		"regenerate": func(c keystore.Caller, id keystore.KeyID) error {
			return second(n.service.Regenerate(ctx, c, id, 0, 0, nil, now))
		},
		"renew": func(c keystore.Caller, id keystore.KeyID) error {
			return second(n.service.Renew(ctx, c, id, 3, 0, now))
		},
		"expire": func(c keystore.Caller, id keystore.KeyID) error { return second(n.service.Expire(ctx, c, id, 0, now)) },
		"deactivate": func(c keystore.Caller, id keystore.KeyID) error {
			return second(n.service.SetDeactivated(ctx, c, id, true, 0))
		},
		"block": func(c keystore.Caller, id keystore.KeyID) error {
			return second(n.service.SetBlocked(ctx, c, id, true, 0))
		},
		"unblock": func(c keystore.Caller, id keystore.KeyID) error {
			return second(n.service.SetBlocked(ctx, c, id, false, 0))
		},
		"delete": func(c keystore.Caller, id keystore.KeyID) error { return second(n.service.DeleteKey(ctx, c, id, 0)) },
		"update": func(c keystore.Caller, id keystore.KeyID) error {
			return second(n.service.Update(ctx, c, id, 0, func(*keystore.Editable) error { return nil }))
		},
	}
	for name, do := range change {
		for _, c := range []struct {
			who  string
			by   keystore.Caller
			id   keystore.KeyID
			want error
		}{
			{"nobody", nobody, own, keystore.ErrKeyNotFound},
			{"a reader", reader, own, keystore.ErrForbidden},
			{"a reader elsewhere", reader, foreign, keystore.ErrKeyNotFound},
			{"an owner elsewhere", owner, foreign, keystore.ErrKeyNotFound},
			{"an owner, on a mightier key", owner, mighty, keystore.ErrForbidden},
			{"a caller without an organization", homeless, own, keystore.ErrKeyNotFound},
		} {
			if err := do(c.by, c.id); !errors.Is(err, c.want) {
				t.Errorf("%s by %s: %v, want %v", name, c.who, err, c.want)
			}
		}
	}
	for name, c := range map[string]struct{ err, want error }{
		"a reader creates":                    {create(reader, keystore.NewKey{}), keystore.ErrForbidden},
		"nobody creates":                      {create(nobody, keystore.NewKey{}), keystore.ErrOrganizationNotFound},
		"an owner creates elsewhere":          {create(owner, keystore.NewKey{Organization: "acme"}), keystore.ErrOrganizationNotFound},
		"an owner creates a trial key":        {create(owner, keystore.NewKey{Type: keystore.TypeTrial}), keystore.ErrForbidden},
		"an owner grants admin":               {create(owner, keystore.NewKey{Scopes: []string{keystore.ScopeAdmin}}), keystore.ErrForbidden},
		"an owner grants its own":             {create(owner, keystore.NewKey{Scopes: []string{keystore.ScopeKeys, keystore.ScopeRead}}), nil},
		"an owner blocks":                     {change["block"](owner, own), keystore.ErrForbidden},
		"an owner deactivates":                {change["deactivate"](owner, own), nil},
		"an owner gives admin by update":      {second(n.service.Update(ctx, owner, own, 0, grant(keystore.ScopeAdmin))), keystore.ErrForbidden},
		"a reader looks":                      {second(n.service.Key(ctx, reader, own)), nil},
		"a reader looks elsewhere":            {second(n.service.Key(ctx, reader, foreign)), keystore.ErrKeyNotFound},
		"nobody looks":                        {second(n.service.Key(ctx, nobody, own)), keystore.ErrKeyNotFound},
		"nobody lists":                        {second(n.service.ListKeys(ctx, nobody, keystore.Query{Limit: 9})), keystore.ErrForbidden},
		"a reader lists elsewhere":            {second(n.service.ListKeys(ctx, reader, keystore.Query{Organization: "acme", Limit: 9})), keystore.ErrOrganizationNotFound},
		"a caller without organization lists": {second(n.service.ListKeys(ctx, homeless, keystore.Query{Limit: 9})), keystore.ErrForbidden},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", name, c.err, c.want)
		}
	}
	page, err := n.service.ListKeys(ctx, reader, keystore.Query{Limit: 100})
	for _, r := range page.Records {
		if err != nil || r.Organization != "default" {
			t.Errorf("a reader is shown %s of %s (%v)", r.ID, r.Organization, err)
		}
	}
	if all, err := n.service.ListKeys(ctx, admin, keystore.Query{Limit: 100}); err != nil || len(all.Records) <= len(page.Records) {
		t.Errorf("an administrator is shown %d keys of %d (%v)", len(all.Records), len(page.Records), err)
	}
}

func grant(scope string) func(*keystore.Editable) error {
	return func(e *keystore.Editable) error { e.Scopes = append(e.Scopes, scope); return nil }
}

func TestKeyIsNotFoundByItsAccessKey(t *testing.T) {
	n := newSQLiteNode(t, 16)
	access := n.create(t, keystore.NewKey{}).Record.Current.AccessKey
	if _, err := n.service.Key(context.Background(), admin, keystore.KeyID(access)); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("by its access key: %v", err)
	}
	if err := second(n.service.SetBlocked(context.Background(), admin, keystore.KeyID(access), true, 0)); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("blocked by its access key: %v", err)
	}
}

func TestIfMatchAndNoChange(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx := context.Background()
	r := n.create(t, keystore.NewKey{}).Record
	for name, err := range map[string]error{
		"switch": second(n.service.SetDeactivated(ctx, admin, r.ID, true, r.Revision+1)),
		"rotate": second(n.service.Rotate(ctx, admin, r.ID, keystore.Rotation{IfMatch: r.Revision + 1}, nil, time.Now())),
		"delete": second(n.service.DeleteKey(ctx, admin, r.ID, r.Revision+1)),
	} {
		if !errors.Is(err, keystore.ErrStaleEdit) {
			t.Errorf("a stale %s: %v", name, err)
		}
	}
	head := n.follower.Applied()
	if same, err := n.service.SetDeactivated(ctx, admin, r.ID, false, r.Revision); err != nil || same != r {
		t.Errorf("a switch that is already so: %+v, %v", same, err)
	}
	if n.follower.Applied() != head {
		t.Error("it has cost a revision")
	}
	if changed, err := n.service.SetDeactivated(ctx, admin, r.ID, true, r.Revision); err != nil || changed.Revision <= r.Revision {
		t.Errorf("a switch: %+v, %v", changed, err)
	}
}

func TestIdempotency(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := context.Background(), time.Now()
	once := func(key, route, body string) *keystore.Once {
		o := &keystore.Once{Key: keystore.Secret(key), Route: route}
		copy(o.Request[:], body)
		return o
	}
	create := func(c keystore.Caller, o *keystore.Once, now time.Time) (keystore.Issued, error) {
		return n.service.CreateKey(ctx, c, keystore.NewKey{}, o, now)
	}
	first, err := create(admin, once("k1", "POST /keys", "body"), now)
	if err != nil || first.Replayed {
		t.Fatalf("first: %+v, %v", first, err)
	}
	head := n.follower.Applied()
	for _, later := range []time.Duration{0, time.Minute, keystore.ReplaySecretLife - time.Millisecond} {
		again, err := create(admin, once("k1", "POST /keys", "body"), now.Add(later))
		if err != nil || !again.Replayed || again.APIKey != first.APIKey || again.SecretKey != first.SecretKey || again.Record != first.Record {
			t.Errorf("after %s: %+v, %v", later, again, err)
		}
	}
	if n.follower.Applied() != head {
		t.Error("a replay has changed the store")
	}
	if _, err := create(admin, once("k1", "POST /keys", "other"), now); !errors.Is(err, keystore.ErrReplayMismatch) {
		t.Errorf("another body: %v", err)
	}
	for name, c := range map[string]struct {
		by keystore.Caller
		o  *keystore.Once
	}{
		"another header": {admin, once("k2", "POST /keys", "body")},
		"another route":  {admin, once("k1", "POST /other", "body")},
		"another caller": {owner, once("k1", "POST /keys", "body")},
		"shifted parts":  {admin, once("1", "POST /keysk", "body")},
	} {
		if other, err := create(c.by, c.o, now); err != nil || other.Replayed || other.Record.ID == first.Record.ID {
			t.Errorf("%s: %+v, %v", name, other, err)
		}
	}
	for _, later := range []time.Duration{keystore.ReplaySecretLife, keystore.ReplayLife - time.Second} {
		var gone *keystore.ReplaySecretGoneError
		if _, err := create(admin, once("k1", "POST /keys", "body"), now.Add(later)); !errors.As(err, &gone) || gone.Key != first.Record.ID || !errors.Is(err, keystore.ErrReplaySecretGone) {
			t.Errorf("after %s: %v", later, err)
		}
	}
	if anew, err := create(admin, once("k1", "POST /keys", "body"), now.Add(keystore.ReplayLife)); err != nil || anew.Replayed || anew.Record.ID == first.Record.ID {
		t.Errorf("after a day: %+v, %v", anew, err)
	}
}

// A key's narrower access token does not get, by repeating a call, the secret
// that it may not make.
func TestReplayGrantsNoMoreThanTheCallerHolds(t *testing.T) {
	n := newSQLiteNode(t, 16)
	caller := func(scopes keystore.Scopes) keystore.Caller {
		return keystore.Caller{Actor: "key_one", Organization: keystore.DefaultOrganization, Scopes: scopes}
	}
	create := func(c keystore.Caller) (keystore.Issued, error) {
		once := &keystore.Once{Key: "1", Route: "POST /keys"}
		return n.service.CreateKey(t.Context(), c, keystore.NewKey{Scopes: []string{keystore.ScopeAdmin}}, once, time.Now())
	}
	first, err := create(caller("hello:read warder:admin warder:keys"))
	if err != nil {
		t.Fatal(err)
	}
	for _, narrow := range []keystore.Scopes{keystore.ScopeKeys, keystore.ScopeRead, ""} {
		if got, err := create(caller(narrow)); !errors.Is(err, keystore.ErrForbidden) {
			t.Errorf("with %q: %+v, %v", narrow, got.Record, err)
		}
	}
	if again, err := create(caller(keystore.ScopeAdmin)); err != nil || !again.Replayed || again.SecretKey != first.SecretKey {
		t.Errorf("with all that it grants with: %+v, %v", again.Record, err)
	}
}

func TestIdempotentRotation(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := context.Background(), time.Now()
	key := n.create(t, keystore.NewKey{})
	for name, do := range map[string]func(*keystore.Once) (keystore.Issued, error){
		"rotate": func(o *keystore.Once) (keystore.Issued, error) {
			return n.service.Rotate(ctx, admin, key.Record.ID, keystore.Rotation{Force: true}, o, now)
		},
		"regenerate": func(o *keystore.Once) (keystore.Issued, error) {
			return n.service.Regenerate(ctx, admin, key.Record.ID, 0, 0, o, now)
		},
	} {
		o := &keystore.Once{Key: "k", Route: name}
		first, err := do(o)
		again, err2 := do(o)
		if err != nil || err2 != nil || first.APIKey != again.APIKey || !again.Replayed {
			t.Errorf("%s: %v, %v", name, err, err2)
		}
		if _, err := n.present(again.APIKey, now); err != nil {
			t.Errorf("%s: the repeated answer's key: %v", name, err)
		}
	}
}

// TestFailedCallIsNotKept: a refusal is decided anew each time.
func TestFailedCallIsNotKept(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := context.Background(), time.Now()
	taken := n.create(t, keystore.NewKey{Name: "demo"})
	o := &keystore.Once{Key: "k", Route: "r"}
	if _, err := n.service.CreateKey(ctx, admin, keystore.NewKey{Name: "demo"}, o, now); !errors.Is(err, keystore.ErrNameTaken) {
		t.Fatal(err)
	}
	if err := second(n.service.DeleteKey(ctx, admin, taken.Record.ID, 0)); err != nil {
		t.Fatal(err)
	}
	if issued, err := n.service.CreateKey(ctx, admin, keystore.NewKey{Name: "demo"}, o, now); err != nil || issued.Replayed {
		t.Errorf("after the name is free: %+v, %v", issued, err)
	}
}

// TestIdempotentCallsAtOnce: one does it; the others are told that it runs, or
// get its answer.
func TestIdempotentCallsAtOnce(t *testing.T) {
	n := newSQLiteNode(t, 16)
	var mu sync.Mutex
	made := map[keystore.KeyID]int{}
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			o := &keystore.Once{Key: "k", Route: "r"}
			issued, err := n.service.CreateKey(context.Background(), admin, keystore.NewKey{}, o, time.Now())
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made[issued.Record.ID]++
			} else if !errors.Is(err, keystore.ErrReplayRunning) {
				t.Errorf("beside a running call: %v", err)
			}
		})
	}
	group.Wait()
	if len(made) != 1 {
		t.Errorf("%d keys were made", len(made))
	}
}

// TestKeptAnswerDoesNotOpen with the store and its secret alone, nor with the
// header alone.
func TestKeptAnswerDoesNotOpen(t *testing.T) {
	n := newSQLiteNode(t, 16)
	o := &keystore.Once{Key: "the header's value", Route: "r"}
	issued, err := n.service.CreateKey(context.Background(), admin, keystore.NewKey{}, o, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	secret := issued.SecretKey.Reveal()
	stranger := keystore.NewReplays(keystore.NewStoreSecret()) // has the header, not the secret
	other := *n.service
	other.Replays = stranger
	if got, err := other.CreateKey(context.Background(), admin, keystore.NewKey{}, o, time.Now()); !errors.Is(err, keystore.ErrCorrupt) {
		t.Errorf("with the header alone: %+v, %v", got.Record, err)
	}
	for _, guess := range []string{"warder idempotency v1", "warder idempotency v1\x00"} {
		if plain, err := n.secret.Open(guess, "", nil); err == nil {
			t.Errorf("with the store's secret alone: %s", plain)
		}
	}
	encoded, _ := json.Marshal(issued)
	if bytes.Contains(encoded, []byte(secret)) {
		t.Error("an answer prints its secret")
	}
}

// TestAnswersAreInForce: the first request begun after an operation's answer
// meets it, whatever requests run meanwhile.
func TestAnswersAreInForce(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx := context.Background()
	var keys sync.Map
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					keys.Range(func(key, _ any) bool { n.present(key.(keystore.Secret), time.Now()); return true })
					time.Sleep(50 * time.Microsecond) // the writers have to get a turn
				}
			}
		})
	}
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 10 {
				lifeOfAKey(t, ctx, n, &keys)
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}

func lifeOfAKey(t *testing.T, ctx context.Context, n *sqliteNode, keys *sync.Map) {
	issued := n.create(t, keystore.NewKey{})
	id, apiKey := issued.Record.ID, issued.APIKey
	keys.Store(apiKey, nil)
	defer keys.Delete(apiKey)
	first := func(apiKey keystore.Secret, after string, err, want error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", after, err)
		} else if _, err := n.present(apiKey, time.Now()); !errors.Is(err, want) {
			t.Errorf("the first request after %s: %v, want %v", after, err, want)
		}
	}
	first(apiKey, "creation", nil, nil)
	_, err := n.service.SetBlocked(ctx, admin, id, true, 0)
	first(apiKey, "block", err, keystore.ErrBlocked)
	_, err = n.service.SetBlocked(ctx, admin, id, false, 0)
	first(apiKey, "unblock", err, nil)
	next, err := n.service.Rotate(ctx, admin, id, keystore.Rotation{Force: true}, nil, time.Now())
	first(apiKey, "a forced rotation", err, keystore.ErrSuperseded)
	first(next.APIKey, "a forced rotation", err, nil)
	again, err := n.service.Regenerate(ctx, admin, id, 0, 0, nil, time.Now())
	first(next.APIKey, "a regeneration", err, keystore.ErrSuperseded)
	first(again.APIKey, "a regeneration", err, nil)
	_, err = n.service.DeleteKey(ctx, admin, id, 0)
	first(again.APIKey, "the deletion", err, keystore.ErrInvalid)
}
