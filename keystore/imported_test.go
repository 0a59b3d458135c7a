package keystore_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// presentAs authenticates the value of an Authorization header.
func (n *sqliteNode) presentAs(header string, now time.Time) (keystore.Principal, error) {
	p, err := keystore.ParseAuthorization(keystore.DefaultPrefix, header)
	if err != nil {
		return keystore.Principal{}, err
	}
	return n.auth.Authenticate(context.Background(), p, now)
}

func (n *sqliteNode) bring(t *testing.T, in ...keystore.Import) []keystore.Imported {
	t.Helper()
	done, err := n.service.ImportKeys(t.Context(), admin, in, time.Now())
	if err != nil {
		t.Fatalf("importing: %v", err)
	}
	return done
}

func TestImportedCredentialKeepsWorking(t *testing.T) {
	n := newSQLiteNode(t, 16)
	const old, hashed = "sk_live_4242424242", "another-system's key"
	for _, header := range []string{"Token " + old, "Bearer " + old} {
		if _, err := n.presentAs(header, time.Now()); err != keystore.ErrInvalid {
			t.Fatalf("before: %v", err)
		}
	}
	if loads := n.view.Loads(); loads != 0 {
		t.Errorf("%d look-ups while the store holds no imported credential", loads)
	}
	done := n.bring(t,
		keystore.Import{NewKey: keystore.NewKey{Name: "old", Scopes: []string{"a"}}, Credential: old},
		keystore.Import{SHA256: sha256.Sum256([]byte("hashed-elsewhere"))},
	)
	for _, header := range []string{"Token " + old, "Bearer " + old, "bearer hashed-elsewhere"} {
		p, err := n.presentAs(header, time.Now())
		if err != nil || p.Record == nil || p.Kind != keystore.CredentialImported {
			t.Fatalf("%s: %+v, %v", header, p, err)
		}
	}
	if p, _ := n.presentAs("Token "+old, time.Now()); p.Record.ID != done[0].ID || p.Scopes != "a" || p.Meter == nil {
		t.Errorf("it is %+v", p)
	}
	for _, header := range []string{"Token " + old + "x", "Token " + hashed[:7], "Token " + strings.ToUpper(old)} {
		if _, err := n.presentAs(header, time.Now()); err != keystore.ErrInvalid {
			t.Errorf("%s: %v", header, err)
		}
	}
	if _, err := n.presentAs("Token a,b", time.Now()); err != keystore.ErrMalformed {
		t.Errorf("two at once: %v", err)
	}
}

// What was looked for in vain is found from the import's answer on.
func TestImportClearsAbsence(t *testing.T) {
	n := newSQLiteNode(t, 16)
	n.bring(t, keystore.Import{Credential: "the-first-one"})
	for range 3 {
		if _, err := n.presentAs("Token the-second-one", time.Now()); err != keystore.ErrInvalid {
			t.Fatal(err)
		}
	}
	if loads := n.view.Loads(); loads != 1 {
		t.Errorf("%d look-ups of one absent credential", loads)
	}
	n.bring(t, keystore.Import{Credential: "the-second-one"})
	if _, err := n.presentAs("Token the-second-one", time.Now()); err != nil {
		t.Error(err)
	}
}

func TestRotationMakesImportedNative(t *testing.T) {
	for name, force := range map[string]bool{"with a grace period": false, "forced": true} {
		t.Run(name, func(t *testing.T) {
			n := newSQLiteNode(t, 16)
			id := n.bring(t, keystore.Import{Credential: "sk_live_4242424242"})[0].ID
			now := time.Now()
			if _, err := n.presentAs("Token sk_live_4242424242", now); err != nil {
				t.Fatal(err)
			}
			issued, err := n.service.Rotate(t.Context(), admin, id, keystore.Rotation{Force: force}, nil, now)
			if err != nil || issued.Record.Current.Imported() || !issued.Record.Previous.Imported() || issued.Record.Current.Generation != 2 {
				t.Fatalf("%+v, %v", issued.Record, err)
			}
			if _, err := n.present(issued.APIKey, now); err != nil {
				t.Errorf("the native one: %v", err)
			}
			want := error(nil)
			if force {
				want = keystore.ErrSuperseded
			}
			if p, err := n.presentAs("Token sk_live_4242424242", now); err != want || p.Record.ID != id {
				t.Errorf("the imported one: %v, want %v", err, want)
			}
			if _, err := n.presentAs("Token sk_live_4242424242", now.Add(keystore.DefaultGrace)); err != keystore.ErrSuperseded {
				t.Errorf("after the grace period: %v", err)
			}
		})
	}
}

// The note that imported credentials are there goes with the last of them.
func TestImportsAreLookedForWhileThereAreAny(t *testing.T) {
	n := newSQLiteNode(t, 16)
	done := n.bring(t, keystore.Import{Credential: "credential-one"}, keystore.Import{Credential: "credential-two"})
	end := map[string]func() error{
		"deleted": func() error { return second(n.service.DeleteKey(t.Context(), admin, done[0].ID, 0)) },
		"regenerated twice": func() error {
			for range 2 {
				if _, err := n.service.Regenerate(t.Context(), admin, done[1].ID, 0, 0, nil, time.Now()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	for _, name := range []string{"deleted", "regenerated twice"} {
		if !n.settings.HoldsImported() {
			t.Fatalf("before one is %s, none is there", name)
		}
		if err := end[name](); err != nil {
			t.Fatal(err)
		}
	}
	if n.settings.HoldsImported() {
		t.Error("the last one is gone, and still they are looked for")
	}
}

func TestImportTwice(t *testing.T) {
	n := newSQLiteNode(t, 16)
	first := n.bring(t, keystore.Import{Credential: "credential-one", NewKey: keystore.NewKey{Name: "one"}})
	again := n.bring(t, keystore.Import{Credential: "credential-one", NewKey: keystore.NewKey{Name: "one"}}, keystore.Import{Credential: "credential-two"})
	if again[0].ID != first[0].ID || !again[0].Existed || again[1].Existed || again[1].ID == first[0].ID {
		t.Errorf("%+v, then %+v", first, again)
	}
	if same := n.bring(t, keystore.Import{SHA256: sha256.Sum256([]byte("credential-two"))}); same[0].ID != again[1].ID {
		t.Errorf("by its digest: %+v", same)
	}
	twice := n.bring(t, keystore.Import{Credential: "credential-three"}, keystore.Import{Credential: "credential-three"})
	if twice[0].ID != twice[1].ID || twice[0].Existed || !twice[1].Existed {
		t.Errorf("twice in one call: %+v", twice)
	}
}

func TestImportRefuses(t *testing.T) {
	n := newSQLiteNode(t, 16)
	n.organize(t, keystore.Organization{Slug: "acme", MaximumExpiry: 7, AllowedScopes: []string{"a"}})
	n.bring(t, keystore.Import{Credential: "credential-one", NewKey: keystore.NewKey{Name: "taken"}})
	acme := keystore.Caller{Actor: "key_a", Organization: "acme", Scopes: keystore.ScopeKeys}
	native := n.create(t, keystore.NewKey{}).APIKey
	good := keystore.Import{Credential: "credential-good"}
	for name, c := range map[string]struct {
		caller keystore.Caller
		in     keystore.Import
		want   error
	}{
		"nothing":                   {admin, keystore.Import{}, anyField},
		"both":                      {admin, keystore.Import{Credential: "credential", SHA256: [32]byte{1}}, anyField},
		"too short":                 {admin, keystore.Import{Credential: "1234567"}, anyField},
		"too long":                  {admin, keystore.Import{Credential: keystore.Secret(strings.Repeat("x", 4097))}, anyField},
		"with a comma":              {admin, keystore.Import{Credential: "one,and,another"}, anyField},
		"with a space":              {admin, keystore.Import{Credential: "one another"}, anyField},
		"native":                    {admin, keystore.Import{Credential: native}, anyField},
		"like a token":              {admin, keystore.Import{Credential: "header.payload.signature"}, anyField},
		"a taken name":              {admin, keystore.Import{Credential: "credential-x", NewKey: keystore.NewKey{Name: "taken"}}, keystore.ErrNameTaken},
		"another's credential":      {acme, keystore.Import{Credential: "credential-one"}, keystore.ErrCredentialTaken},
		"into another organization": {acme, keystore.Import{Credential: "credential-x", NewKey: keystore.NewKey{Organization: "default"}}, keystore.ErrOrganizationNotFound},
		"an administrator's scope":  {acme, keystore.Import{Credential: "credential-x", NewKey: keystore.NewKey{Scopes: []string{keystore.ScopeAdmin}}}, keystore.ErrForbidden},
		"a trial":                   {acme, keystore.Import{Credential: "credential-x", NewKey: keystore.NewKey{Type: keystore.TypeTrial}}, keystore.ErrForbidden},
		"a limit":                   {acme, keystore.Import{Credential: "credential-x", NewKey: keystore.NewKey{Limit: keystore.Limit{Requests: 1, Burst: 1, Period: time.Second}}}, keystore.ErrForbidden},
		"beyond the maximum":        {acme, keystore.Import{Credential: "credential-x", NewKey: keystore.NewKey{Expires: keystore.Days(8).After(time.Now())}}, anyField},
		"a scope not allowed":       {acme, keystore.Import{Credential: "credential-x", NewKey: keystore.NewKey{Scopes: []string{"b"}}}, anyField},
		"a reader":                  {keystore.Caller{Actor: "key_r", Organization: "acme", Scopes: keystore.ScopeRead}, good, keystore.ErrForbidden},
		"a reader, again":           {keystore.Caller{Actor: "key_r", Organization: "default", Scopes: keystore.ScopeRead}, keystore.Import{Credential: "credential-one"}, keystore.ErrForbidden},
		"nobody":                    {keystore.Caller{}, good, keystore.ErrOrganizationNotFound},
	} {
		_, err := n.service.ImportKeys(t.Context(), c.caller, []keystore.Import{good, c.in}, time.Now())
		if !meets(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if strings.Contains(fmt.Sprint(err), "credential-") {
			t.Errorf("%s: the error names the credential: %v", name, err)
		}
		if _, err := n.presentAs("Token credential-good", time.Now()); err != keystore.ErrInvalid {
			t.Errorf("%s: one of a refused batch passes: %v", name, err)
		}
	}
	_, err := n.service.ImportKeys(t.Context(), admin, []keystore.Import{good, {Credential: "credential-x", NewKey: keystore.NewKey{Name: "taken"}}}, time.Now())
	if item, ok := errors.AsType[*keystore.ItemError](err); !ok || item.Pointer != "/keys/1" {
		t.Errorf("which of them: %v", err)
	}
	_, err = n.service.ImportKeys(t.Context(), admin, []keystore.Import{good, {Credential: "x"}}, time.Now())
	if field, ok := errors.AsType[*keystore.FieldError](err); !ok || field.Pointer != "/keys/1/credential" {
		t.Errorf("which field of which: %v", err)
	}
	for _, count := range []int{0, keystore.MaximumImport + 1} {
		if _, err := n.service.ImportKeys(t.Context(), admin, make([]keystore.Import, count), time.Now()); !meets(err, anyField) {
			t.Errorf("%d at once: %v", count, err)
		}
	}
}

// Nothing tells a made-up credential of another system from a good one before
// the store has been asked. So few are asked for at once, and what is known
// of our own keys does not suffer.
func TestFloodOfStrangers(t *testing.T) {
	n := newSQLiteNode(t, 64)
	n.bring(t, keystore.Import{Credential: "credential-one"})
	gone := n.create(t, keystore.NewKey{})
	if err := second(n.service.DeleteKey(t.Context(), admin, gone.Record.ID, 0)); err != nil {
		t.Fatal(err)
	}
	loads := n.view.Loads()
	var callers sync.WaitGroup
	for c := range 64 {
		callers.Go(func() {
			for i := range 400 {
				if _, err := n.presentAs(fmt.Sprintf("Token made-up-%d-%d", c, i), time.Now()); err != keystore.ErrInvalid {
					t.Errorf("a made-up one: %v", err)
					return
				}
			}
		})
	}
	callers.Wait()
	asked := n.view.Loads()
	if asked-loads != 64*400 {
		t.Errorf("%d look-ups for %d credentials", asked-loads, 64*400)
	}
	if _, err := n.present(gone.APIKey, time.Now()); err != keystore.ErrInvalid || n.view.Loads() != asked {
		t.Errorf("a deleted key: %v, and it is looked for again", err)
	}
}

func TestImportedRecordShowsNoDigest(t *testing.T) {
	n := newSQLiteNode(t, 16)
	id := n.bring(t, keystore.Import{Credential: "credential-one"})[0].ID
	page, err := n.service.Audit(t.Context(), admin, keystore.AuditQuery{Object: string(id), Limit: 10})
	if err != nil || len(page.Entries) != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	rec, err := n.service.Key(t.Context(), admin, id)
	if err != nil {
		t.Fatal(err)
	}
	if e := page.Entries[0]; strings.Contains(e.After, string(rec.Current.AccessKey)) || !strings.Contains(e.After, `"imported":true`) {
		t.Errorf("the audit log shows %s", e.After)
	}
	if slices.Contains([]string{"", "imported_"}, string(rec.Current.AccessKey)) {
		t.Error("no name")
	}
}

// A hundred thousand credentials move in, and a thousand of them at random are
// used as they were. (Under the race detector a tenth of them.)
func TestFloodOfImports(t *testing.T) {
	count := 100_000
	if raceDetector {
		count = 10_000
	}
	n := newSQLiteNode(t, 1024)
	name := func(i int) keystore.Secret { return keystore.Secret(fmt.Sprintf("sk_live_%08d", i)) }
	began := time.Now()
	for from := 0; from < count; from += keystore.MaximumImport {
		batch := make([]keystore.Import, keystore.MaximumImport)
		for i := range batch {
			batch[i] = keystore.Import{SHA256: sha256.Sum256([]byte(name(from + i).Reveal())), NewKey: keystore.NewKey{Name: name(from + i).Reveal()}}
		}
		n.bring(t, batch...)
	}
	t.Logf("%d keys in %s", count, time.Since(began))
	for range 1000 {
		credential := name(rand.IntN(count)).Reveal()
		p, err := n.presentAs("Bearer "+credential, time.Now())
		if err != nil || p.Record.Name != credential {
			t.Fatalf("%s: %v", credential, err)
		}
	}
	if got, err := n.service.CountKeys(t.Context(), admin, keystore.Query{Imported: true}); err != nil || got != count {
		t.Errorf("%d are there: %v", got, err)
	}
}
