//go:build unix

package sqlite

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// versionOne is a store as it was before its schema had a second version.
func versionOne(t *testing.T, path string, keys int) {
	t.Helper()
	db, err := connect(path, creating, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	secret, err := testGenesis()
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(firstMigration)
	exec(fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	exec("INSERT INTO store_secret (only, version, sealed, checked) VALUES (1, ?, ?, ?)", secret.Version, secret.Sealed, secret.Check)
	exec(`INSERT INTO organizations (slug, default_expiry, maximum_expiry, allowed_scopes, metadata, created, revision)
		VALUES ('default', 0, 0, NULL, '', 7, 1), ('acme', 3, 30, '["a"]', '{"x":1}', 8, 2)`)
	for n := range keys {
		exec(`INSERT INTO keys (id, organization, name, type, current_generation, current_access_key, current_digest,
			previous_generation, previous_access_key, previous_digest, grace_end, created, expires, deactivated, blocked, scopes, metadata, revision)
			VALUES (?, 'acme', ?, 2, 5, ?, ?, 4, '', ?, 11, 12, 13, 1, 0, 's', '{"y":2}', ?)`,
			fmt.Sprint("key_", n), fmt.Sprint("name ", n), fmt.Sprint("A", n), slices.Repeat([]byte{1}, 32), slices.Repeat([]byte{2}, 32), n+3)
		exec("INSERT INTO aliases (alias, number) VALUES (?, ?), (?, ?)", fmt.Sprint("key_", n), n+1, fmt.Sprint("A", n), n+1)
	}
	exec("INSERT INTO log (revision, mark, kind, name, aliases) VALUES (?, 99, 'organization', 'acme', '')", keys+3)
	exec("INSERT INTO documents (kind, name, body, revision) VALUES ('demo', 'd', x'00ff', 2)")
	exec("PRAGMA user_version = 1")
}

// A store of the first version is brought up to date and keeps all it had.
func TestMigrationFromFirst(t *testing.T) {
	const keys = 20
	path := filepath.Join(t.TempDir(), "warder.db")
	versionOne(t, path, keys)
	s := openAt(t, path)
	page, err := s.List(t.Context(), keystore.Query{Limit: 2 * keys})
	if err != nil || len(page.Records) != keys {
		t.Fatalf("%d keys, %v", len(page.Records), err)
	}
	for n, r := range page.Records {
		want := keystore.Record{
			ID: keystore.KeyID(fmt.Sprint("key_", n)), Number: keystore.Number(n + 1), Organization: "acme", Name: fmt.Sprint("name ", n),
			Type:     keystore.TypeTrial,
			Current:  keystore.Pair{Generation: 5, AccessKey: keystore.AccessKey(fmt.Sprint("A", n)), Digest: keystore.Digest(slices.Repeat([]byte{1}, 32))},
			Previous: keystore.Pair{Generation: 4, Digest: keystore.Digest(slices.Repeat([]byte{2}, 32))},
			GraceEnd: 11, Created: 12, Expires: 13, Deactivated: true, Scopes: "s", Metadata: `{"y":2}`, Revision: keystore.Revision(n + 3),
		}
		if r != want {
			t.Errorf("got %+v\nwant %+v", r, want)
		}
		if got, at, err := s.Lookup(t.Context(), keystore.LookupID(fmt.Sprint("A", n))); err != nil || got != want || at != keys+3 {
			t.Errorf("by its access key: %+v as of %d, %v", got, at, err)
		}
	}
	snap, err := s.Snapshot(t.Context())
	if err != nil || snap.Head != (keystore.Position{Revision: keys + 3, Mark: 99}) || len(snap.Documents) != 1 || len(snap.Organizations) != 2 {
		t.Fatalf("%+v %v", snap, err)
	}
	acme := snap.Organizations[1]
	if acme.Slug != "acme" || acme.MaximumExpiry != 30 || acme.Grace != 0 || acme.Limit != (keystore.Limit{}) ||
		acme.AllowedPermissions != nil || !slices.Equal(acme.AllowedScopes, []string{"a"}) {
		t.Errorf("%+v", acme)
	}
	if r := putKey(t, s, "key_new"); r.Number != keys+1 || r.Revision != keys+4 {
		t.Errorf("the next key has number %d, revision %d", r.Number, r.Revision)
	}
	s.Close()
	openAt(t, path) // and again, at its new version
}
