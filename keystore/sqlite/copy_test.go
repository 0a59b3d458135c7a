//go:build unix

package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// saveCopy writes a copy of s to a file and returns its name.
func saveCopy(t testing.TB, s *Store) string {
	t.Helper()
	c, err := s.Copy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return saveTo(t, c)
}

func saveTo(t testing.TB, c io.ReadCloser) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "backup.db")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, c); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// rows is everything in the file, row by row.
func rows(t testing.TB, path string) map[string][]string {
	t.Helper()
	db, err := connect(path, reading, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	out := map[string][]string{}
	for _, table := range []string{
		"store_secret", "log", "organizations", "keys", "aliases", "documents", "replies", "key_permissions",
		"audit", "usage_days", "usage_months", "last_used", "sqlite_sequence",
	} {
		out[table] = tableRows(t, db, table)
	}
	return out
}

func tableRows(t testing.TB, db querier, table string) (out []string) {
	t.Helper()
	found, err := db.QueryContext(t.Context(), "SELECT * FROM "+table+" ORDER BY 1, 2")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	columns, err := found.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for found.Next() {
		values := make([]any, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := found.Scan(targets...); err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%#v", values))
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// A copy taken while others write is the store as of one moment: of every
// transaction all or nothing, and none before it is missing.
func TestCopyDuringWrites(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	ctx, stop := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var begun keystore.Revision
	for w := range 4 {
		writers.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				a, b := testKey(fmt.Sprintf("key_%d_%d_a", w, n)), testKey(fmt.Sprintf("key_%d_%d_b", w, n))
				a.Metadata = `{"x":"` + strings.Repeat("x", 1500) + `"}`
				if _, err := s.Transact(context.Background(), func(tx keystore.Tx) error { return errors.Join(tx.PutKey(&a), tx.PutKey(&b)) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 8 {
		at, err := s.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		begun = at.Head.Revision
		name := saveCopy(t, s)
		found, err := CheckBackup(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if found.Head.Revision < begun {
			t.Errorf("a copy begun after revision %d ends at %d", begun, found.Head.Revision)
		}
		checkPairs(t, name, found)
	}
	stop()
	writers.Wait()
	name := saveCopy(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(rows(t, name), rows(t, s.path)) {
		t.Error("the last copy is not what the store holds")
	}
}

// checkPairs: the keys of one transaction are both there, and there are as many
// as revisions.
func checkPairs(t *testing.T, name string, found Backup) {
	t.Helper()
	if left, err := filepath.Glob(name + "-*"); err != nil || left != nil {
		t.Errorf("checking left %q %v", left, err)
	}
	keys := rows(t, name)["keys"]
	if want := int(found.Head.Revision) - 1; len(keys) != want {
		t.Errorf("%d keys at revision %d", len(keys), found.Head.Revision)
	}
	text := strings.Join(keys, "\n")
	if a, b := strings.Count(text, `_a", "default`), strings.Count(text, `_b", "default`); a != b || a+b != len(keys) {
		t.Errorf("%d first and %d second halves", a, b)
	}
}

// A copy that nobody reads keeps neither a writer, nor the feed, nor the end of
// the store waiting, and says why there is no more.
func TestCopyThatStalls(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	for n := range 50 {
		putKey(t, s, fmt.Sprintf("key_%d", n))
	}
	c, err := s.Copy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	putKey(t, s, "key_later")
	snapshot, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Changes(t.Context(), snapshot.Head, 1); err != nil {
		t.Fatal(err)
	}
	second, give := context.WithCancel(t.Context())
	give()
	if _, err := s.Copy(second); !errors.Is(err, context.Canceled) {
		t.Errorf("a second copy at the same time: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(c); !errors.Is(err, errClosed) {
		t.Errorf("after the end of the store: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	openAt(t, s.path)
}

func TestCopyClosed(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	putKey(t, s, "key_a")
	if _, _, err := CopyClosed(t.Context(), s.path); !errors.Is(err, keystore.ErrStoreInUse) {
		t.Errorf("a database in use: %v", err)
	}
	want, err := s.SealedSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	c, sealed, err := CopyClosed(t.Context(), s.path)
	if err != nil || !reflect.DeepEqual(sealed, want) {
		t.Fatalf("sealed as %v, want %v: %v", sealed, want, err)
	}
	if _, err := Open(t.Context(), s.path, testGenesis); !errors.Is(err, keystore.ErrStoreInUse) {
		t.Errorf("a database that is copied: %v", err)
	}
	if name := saveTo(t, c); !reflect.DeepEqual(rows(t, name), rows(t, s.path)) {
		t.Error("the copy is not what the store holds")
	}
	if _, _, err := CopyClosed(t.Context(), s.path+".not"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no database: %v", err)
	}
}

// To be asked what it is sealed under changes no database, an older one neither.
func TestSealedClosed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	versionOne(t, path, 3)
	before := readText(t, path)
	if sealed, err := SealedClosed(t.Context(), path); err != nil || len(sealed.Fingerprints()) != 1 {
		t.Errorf("%v %v", sealed, err)
	}
	if readText(t, path) != before {
		t.Error("the database has changed")
	}
}

func TestCheckBackup(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	for n := range 200 {
		putKey(t, s, fmt.Sprintf("key_%d", n))
	}
	name := saveCopy(t, s)
	good, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(change func([]byte) []byte) []byte { return change(append([]byte(nil), good...)) }
	for what, c := range map[string]struct {
		content []byte
		want    error
	}{
		"whole":             {good, nil},
		"empty":             {nil, keystore.ErrCorrupt},
		"cut in the header": {good[:60], keystore.ErrCorrupt},
		"cut":               {good[:len(good)-4096], keystore.ErrCorrupt},
		"cut in a page":     {good[:len(good)-100], keystore.ErrCorrupt},
		"a broken page": {damage(func(b []byte) []byte {
			for i := 8 * 4096; i < 9*4096; i++ {
				b[i] = 0xff
			}
			return b
		}), keystore.ErrCorrupt},
		"another program's": {damage(func(b []byte) []byte { b[headerApplicationID]++; return b }), keystore.ErrCorrupt},
		"newer":             {damage(func(b []byte) []byte { b[63]++; return b }), keystore.ErrNewerSchema},
		"without a schema":  {damage(func(b []byte) []byte { b[63] = 0; return b }), keystore.ErrCorrupt},
	} {
		if err := os.WriteFile(name, c.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := CheckBackup(t.Context(), name); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

// Of a file that somebody else has laid into the way, he could read what gets
// into it.
func TestBackupFileOfSomebodyElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("to make a file of somebody else takes root")
	}
	name := filepath.Join(t.TempDir(), "backup.db")
	if err := errors.Join(os.WriteFile(name+partialSuffix, nil, 0o666), os.Chown(name+partialSuffix, 12345, 12345)); err != nil {
		t.Fatal(err)
	}
	b, err := CreateBackup(name, false)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if !isOwn(b.file) || !isNamed(b.file, name+partialSuffix) {
		t.Error("the backup is written into it")
	}
}
