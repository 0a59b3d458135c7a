//go:build unix

package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// restore restores a backup over the database at path.
func restore(t testing.TB, path, backup string, o RestoreOptions) (Restored, error) {
	t.Helper()
	f, err := os.Open(backup)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o.Now = time.Now()
	return Restore(t.Context(), path, f, o)
}

func mustRestore(t testing.TB, path, backup string, o RestoreOptions) Restored {
	t.Helper()
	done, err := restore(t, path, backup, o)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(path + restoringSuffix + "*"); err != nil || left != nil {
		t.Errorf("left %q %v", left, err)
	}
	return done
}

// change applies a change to the key as the service would.
func change(t testing.TB, s *Store, id string, fn func(*keystore.Record)) {
	t.Helper()
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		r, err := tx.Key(keystore.KeyID(id))
		if err != nil {
			return err
		}
		fn(&r)
		return keystore.Audited(tx, keystore.Attribution{Actor: "local", Operation: "test"}, time.Now()).PutKey(&r)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func look(t testing.TB, s *Store, id string) keystore.Record {
	t.Helper()
	r, _, err := s.Lookup(t.Context(), keystore.LookupID(id))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// rotateTo is a rotation without a grace period.
func rotateTo(r *keystore.Record, digest byte) {
	r.Previous = r.Current
	r.Current = keystore.Pair{Generation: r.Current.Generation + 1, AccessKey: r.Current.AccessKey, Digest: keystore.Digest{digest}}
}

// later makes a store, a backup of it, and changes of every kind after that.
func later(t testing.TB) (path, backup string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "warder.db")
	s, _ := openWithKeyFile(t, path)
	for _, id := range []string{"key_same", "key_blocked", "key_off", "key_expired", "key_rotated", "key_deleted", "key_scopes", "key_unblocked"} {
		putKey(t, s, id)
	}
	change(t, s, "key_unblocked", func(r *keystore.Record) { r.Blocked = true })
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		return tx.PutDocument(&keystore.Document{Kind: keystore.KindSigningRing, Name: "ring", Body: []byte("old")})
	})
	if err != nil {
		t.Fatal(err)
	}
	backup = saveCopy(t, s)
	change(t, s, "key_blocked", func(r *keystore.Record) { r.Blocked = true })
	change(t, s, "key_off", func(r *keystore.Record) { r.Deactivated = true })
	change(t, s, "key_expired", func(r *keystore.Record) { r.Expires = keystore.InstantOf(time.Now().Add(-time.Second)) })
	change(t, s, "key_rotated", func(r *keystore.Record) { rotateTo(r, 9) })
	change(t, s, "key_scopes", func(r *keystore.Record) { r.Scopes = "hello:read" })
	change(t, s, "key_unblocked", func(r *keystore.Record) { r.Blocked = false })
	putKey(t, s, "key_new")
	_, err = s.Transact(t.Context(), func(tx keystore.Tx) error {
		return errors.Join(tx.DeleteKey("key_deleted"),
			tx.PutDocument(&keystore.Document{Kind: keystore.KindRevokedToken, Name: "token", Body: []byte("1")}),
			tx.PutDocument(&keystore.Document{Kind: keystore.KindSigningRing, Name: "ring", Body: []byte("new")}),
			tx.PutDocument(&keystore.Document{Kind: keystore.KindSettings, Name: "settings", Body: []byte("{}")}))
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return path, backup
}

// Nothing that the replaced database refused passes after; all else is as it
// was backed up, and no number is given again.
func TestRestoreKeepsWhatWasRevoked(t *testing.T) {
	path, backup := later(t)
	before := rows(t, path)
	done := mustRestore(t, path, backup, RestoreOptions{})
	want := keystore.Reconciled{
		Lineage: keystore.LineageLater,
		Kept:    []keystore.KeyID{"key_blocked", "key_off", "key_expired", "key_rotated", "key_unblocked"},
		Blocked: []keystore.KeyID{"key_deleted"}, Rights: []keystore.KeyID{"key_scopes"}, Lost: 1, Tokens: 1, Ring: true,
	}
	if done.Reconciled == nil || !reflect.DeepEqual(*done.Reconciled, want) || done.Unread != nil {
		t.Fatalf("%+v %v, want %+v", done.Reconciled, done.Unread, want)
	}
	if !reflect.DeepEqual(rows(t, done.Replaced), before) {
		t.Error("the replaced database is not what it was")
	}
	s, _ := openWithKeyFile(t, path)
	now := time.Now()
	for id, want := range map[string]error{
		"key_same": nil, "key_scopes": nil, "key_unblocked": nil, "key_blocked": keystore.ErrBlocked, "key_off": keystore.ErrDeactivated,
		"key_expired": keystore.ErrExpired, "key_rotated": keystore.ErrSuperseded, "key_deleted": keystore.ErrBlocked, "key_new": keystore.ErrInvalid,
	} {
		if r := look(t, s, id); !errors.Is(r.Admit(1, now), want) {
			t.Errorf("the secret of %s in the backup: %v, want %v", id, r.Admit(1, now), want)
		}
	}
	if r := look(t, s, "key_rotated"); r.Admit(2, now) != nil {
		t.Errorf("the secret that the key has now: %v", r.Admit(2, now))
	}
	if r := look(t, s, "key_scopes"); r.Scopes != "" {
		t.Errorf("scopes %q", r.Scopes)
	}
	checkNumbers(t, s, before)
}

// checkNumbers: revisions, keys and entries go on after the replaced database.
func checkNumbers(t *testing.T, s *Store, before map[string][]string) {
	t.Helper()
	snapshot, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if last := before["log"][len(before["log"])-1]; snapshot.Head.Revision <= revisionOf(t, last) {
		t.Errorf("revision %d after %s", snapshot.Head.Revision, last)
	}
	if r := putKey(t, s, "key_next"); int(r.Number) != 10 {
		t.Errorf("the next key has number %d", r.Number)
	}
	page, err := s.Audit(t.Context(), keystore.AuditQuery{Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var restored, kept int
	for _, e := range page.Entries {
		switch e.Operation {
		case "store.restore":
			restored++
		case "test":
			kept++
		}
	}
	if kept != 7 || restored != 1+6+2 {
		t.Errorf("the audit log keeps %d entries, and has %d of the restore", kept, restored)
	}
	names := []string{}
	for _, d := range snapshot.Documents {
		names = append(names, string(d.Kind)+" "+string(d.Body))
	}
	if slices.Sort(names); !slices.Equal(names, []string{"revoked_token 1", "signing_ring new"}) {
		t.Errorf("documents %q", names)
	}
}

// revisionOf reads a row of the log, as rows shows it.
func revisionOf(t *testing.T, row string) (r keystore.Revision) {
	t.Helper()
	if _, err := fmt.Sscanf(row, "[]interface {}{%d,", &r); err != nil {
		t.Fatalf("%s: %v", row, err)
	}
	return r
}

// Who asks for it gets the keys back, and is told which.
func TestRestoreRevives(t *testing.T) {
	path, backup := later(t)
	done := mustRestore(t, path, backup, RestoreOptions{Revive: true})
	want := []keystore.KeyID{"key_blocked", "key_off", "key_expired", "key_rotated", "key_deleted"}
	if done.Reconciled == nil || !slices.Equal(done.Reconciled.Revived, want) {
		t.Fatalf("%+v", done.Reconciled)
	}
	s, _ := openWithKeyFile(t, path)
	for _, id := range want {
		if r := look(t, s, string(id)); r.Admit(1, time.Now()) != nil {
			t.Errorf("%s: %v", id, r.Admit(1, time.Now()))
		}
	}
}

// A backup that is later than the database knows all that this one refused:
// nothing of it is undone.
func TestRestoreOfTheLaterOne(t *testing.T) {
	path, backup := later(t)
	latest := filepath.Join(t.TempDir(), "latest.db")
	if err := os.Rename(path, latest); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(readText(t, backup)), 0o600); err != nil {
		t.Fatal(err)
	}
	done := mustRestore(t, path, latest, RestoreOptions{})
	if want := (keystore.Reconciled{Lineage: keystore.LineageEarlier}); done.Reconciled == nil || !reflect.DeepEqual(*done.Reconciled, want) {
		t.Errorf("%+v", done.Reconciled)
	}
	checkRevoked(t, path)
}

// checkRevoked demands of a database that it refuses what was revoked later.
func checkRevoked(t *testing.T, path string) {
	t.Helper()
	s, _ := openWithKeyFile(t, path)
	defer s.Close()
	for id, want := range map[string]error{
		"key_same": nil, "key_blocked": keystore.ErrBlocked, "key_off": keystore.ErrDeactivated,
		"key_expired": keystore.ErrExpired, "key_rotated": keystore.ErrSuperseded,
	} {
		if r := look(t, s, id); !errors.Is(r.Admit(1, time.Now()), want) {
			t.Errorf("%s: %v, want %v", id, r.Admit(1, time.Now()), want)
		}
	}
	if r := look(t, s, "key_rotated"); r.Admit(2, time.Now()) != nil {
		t.Errorf("the secret of the rotation: %v", r.Admit(2, time.Now()))
	}
	snapshot, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	documents := map[keystore.Kind]string{}
	for _, d := range snapshot.Documents {
		documents[d.Kind] = string(d.Body)
	}
	if documents[keystore.KindRevokedToken] != "1" || documents[keystore.KindSigningRing] != "new" {
		t.Errorf("%v", documents)
	}
}

// Whoever revived keys by mistake takes that back by restoring what was
// replaced, though by then neither went on from the other.
func TestRestoreTakesReviveBack(t *testing.T) {
	path, backup := later(t)
	revived := mustRestore(t, path, backup, RestoreOptions{Revive: true})
	s, _ := openWithKeyFile(t, path)
	change(t, s, "key_same", func(r *keystore.Record) { r.Name = "changed since" })
	s.Close()
	done := mustRestore(t, path, revived.Replaced, RestoreOptions{})
	if done.Reconciled == nil || done.Reconciled.Lineage != keystore.LineageApart {
		t.Errorf("%+v", done.Reconciled)
	}
	checkRevoked(t, path)
}

// Of two histories each has revoked what the other one has not.
func TestRestoreOfAnotherHistory(t *testing.T) {
	path, backup := later(t)
	if err := os.WriteFile(KeyFile(backup), []byte(readText(t, KeyFile(path))), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ := openWithKeyFile(t, backup) // what was backed up goes on elsewhere
	change(t, s, "key_same", func(r *keystore.Record) { r.Blocked = true })
	change(t, s, "key_off", func(r *keystore.Record) { rotateTo(r, 7) })
	s.Close()
	done := mustRestore(t, path, backup, RestoreOptions{})
	if done.Reconciled == nil || done.Reconciled.Lineage != keystore.LineageApart {
		t.Fatalf("%+v", done.Reconciled)
	}
	s, _ = openWithKeyFile(t, path)
	for id, want := range map[string]error{
		"key_same": keystore.ErrBlocked, "key_blocked": keystore.ErrBlocked, "key_off": keystore.ErrDeactivated,
		"key_rotated": keystore.ErrSuperseded, "key_unblocked": keystore.ErrBlocked, "key_deleted": keystore.ErrBlocked,
	} {
		if r := look(t, s, id); !errors.Is(r.Admit(1, time.Now()), want) {
			t.Errorf("%s: %v, want %v", id, r.Admit(1, time.Now()), want)
		}
	}
	if r := look(t, s, "key_off"); r.Current.Digest[0] != 7 || !r.Deactivated {
		t.Errorf("%+v", r)
	}
}

// A log that was cut shows a backup's place no more: most backups are as old.
func TestRestoreOfAnOldBackup(t *testing.T) {
	path, backup := later(t)
	s, _ := openWithKeyFile(t, path)
	s.logKept = 2
	change(t, s, "key_same", func(r *keystore.Record) { r.Blocked = true })
	old, err := CheckBackup(t.Context(), backup)
	if err != nil {
		t.Fatal(err)
	}
	if held, err := s.logged(t.Context(), old.Head); err != nil || held {
		t.Fatalf("the log still holds revision %d: %v", old.Head.Revision, err)
	}
	lineage, err := lineageOf(t.Context(), s, openAt(t, backup))
	if err != nil || lineage != keystore.LineageLater {
		t.Errorf("%s %v", lineage, err)
	}
}

// What a permission or an organization allows is as it was backed up, and
// said to be.
func TestRestoreNamesRules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	s, _ := openWithKeyFile(t, path)
	put := func(body string, allowed []string) {
		t.Helper()
		_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
			o, err := tx.Organization(keystore.DefaultOrganization)
			o.AllowedPermissions = allowed
			return errors.Join(err, tx.PutOrganization(&o),
				tx.PutDocument(&keystore.Document{Kind: keystore.KindPermission, Name: "perm_same", Body: []byte("same")}),
				tx.PutDocument(&keystore.Document{Kind: keystore.KindPermission, Name: "perm_a", Body: []byte(body)}))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put("wide", nil)
	backup := saveCopy(t, s)
	put("narrow", []string{"perm_a"})
	s.Close()
	done := mustRestore(t, path, backup, RestoreOptions{})
	if want := []string{"perm_a", keystore.DefaultOrganization}; done.Reconciled == nil || !slices.Equal(done.Reconciled.Rules, want) {
		t.Errorf("%+v, want %q", done.Reconciled, want)
	}
}

// What does not open is refused before anything is touched.
func TestRestoreRefused(t *testing.T) {
	path, backup := later(t)
	other := filepath.Join(t.TempDir(), "other.db")
	o, _ := openWithKeyFile(t, other)
	foreign := saveCopy(t, o)
	broken := filepath.Join(t.TempDir(), "broken.db")
	if err := os.WriteFile(broken, []byte(readText(t, backup))[:8192], 0o600); err != nil {
		t.Fatal(err)
	}
	before := readText(t, path)
	refuse := func(what, backup string, want error) {
		t.Helper()
		if _, err := restore(t, path, backup, RestoreOptions{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
		if readText(t, path) != before {
			t.Errorf("%s: the database has changed", what)
		}
		left, err := filepath.Glob(path + ".re*")
		if err != nil || left != nil {
			t.Errorf("%s: left %q %v", what, left, err)
		}
	}
	refuse("another store", foreign, keystore.ErrWrongMasterKey)
	refuse("a part", broken, keystore.ErrCorrupt)
	refuse("a directory", t.TempDir(), syscall.EISDIR)
	s, _ := openWithKeyFile(t, path)
	if _, err := restore(t, path, backup, RestoreOptions{}); !errors.Is(err, keystore.ErrStoreInUse) {
		t.Errorf("a database in use: %v", err)
	}
	s.Close()
}

// A backup from before a change of the master key is sealed under the present
// one, if the former is given.
func TestRestoreAfterRotation(t *testing.T) {
	path, backup := later(t)
	former, err := readKey(KeyFile(path))
	if err != nil {
		t.Fatal(err)
	}
	s, secret := openWithKeyFile(t, path)
	if _, _, err := s.RotateKeyFile(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	present := readText(t, KeyFile(path))
	if _, err := restore(t, path, backup, RestoreOptions{}); !errors.Is(err, keystore.ErrWrongMasterKey) {
		t.Errorf("without the former key: %v", err)
	}
	done := mustRestore(t, path, backup, RestoreOptions{Others: []keystore.MasterKey{former}})
	if done.Reconciled == nil || done.NewKeyFile != "" || readText(t, KeyFile(path)) != present {
		t.Errorf("%+v", done)
	}
	if _, again := openWithKeyFile(t, path); !again.SameAs(secret) {
		t.Error("the store has another secret")
	}
}

// On an empty machine the backup and the key are enough.
func TestRestoreAnew(t *testing.T) {
	old, backup := later(t)
	key, err := readKey(KeyFile(old))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "data", "warder.db")
	if _, err := restore(t, path, backup, RestoreOptions{}); !errors.Is(err, keystore.ErrWrongMasterKey) {
		t.Errorf("without a key: %v", err)
	}
	done := mustRestore(t, path, backup, RestoreOptions{Others: []keystore.MasterKey{key}})
	if done.NewKeyFile != KeyFile(path) || done.Replaced != "" || done.Reconciled != nil {
		t.Errorf("%+v", done)
	}
	if !reflect.DeepEqual(rows(t, path), rows(t, backup)) {
		t.Error("what was restored is not what was backed up")
	}
	openWithKeyFile(t, path)
}

// A database that is damaged, with the write-ahead log that it left, goes aside
// whole: nothing of the log gets into what was restored.
func TestRestoreOverDamage(t *testing.T) {
	path, backup := later(t)
	s, _ := openWithKeyFile(t, path)
	putKey(t, s, "key_in_the_log")
	wal := readText(t, path+"-wal")
	s.Close()
	if err := os.WriteFile(path+"-wal", []byte(wal), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("damage", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	done := mustRestore(t, path, backup, RestoreOptions{})
	if !errors.Is(done.Unread, keystore.ErrCorrupt) || done.Reconciled != nil {
		t.Errorf("%+v", done)
	}
	if readText(t, done.Replaced+"-wal") != wal || !strings.HasPrefix(readText(t, done.Replaced), "damage") {
		t.Error("what was replaced is not what it was")
	}
	if !reflect.DeepEqual(rows(t, path), rows(t, backup)) {
		t.Error("what was restored is not what was backed up")
	}
}

// Interrupted before the one rename, the old database is in place with its
// log; after it, the new one. Either way a start and a second restore go well.
func TestRestoreInterrupted(t *testing.T) {
	for _, renamed := range []bool{false, true} {
		path, backup := later(t)
		s, _ := openWithKeyFile(t, path)
		putKey(t, s, "key_in_the_log")
		content, wal := readText(t, path), readText(t, path+"-wal")
		s.Close()
		for name, text := range map[string]string{path: content, path + "-wal": wal, path + restoringSuffix: readText(t, backup)} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := &restoration{RestoreOptions: RestoreOptions{Now: time.Now()}, path: path, draft: path + restoringSuffix}
		aside, err := r.setAside()
		if err != nil {
			t.Fatal(err)
		}
		if renamed {
			if err := os.Rename(r.draft, path); err != nil {
				t.Fatal(err)
			}
		}
		s, _ = openWithKeyFile(t, path)
		if there := look(t, s, "key_in_the_log").ID != ""; there == renamed {
			t.Errorf("renamed %t: the last change before is there: %t", renamed, there)
		}
		s.Close()
		if _, err := os.Lstat(aside); (err == nil) != renamed {
			t.Errorf("renamed %t: its other name: %v", renamed, err)
		}
		if _, err := os.Lstat(r.draft); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("renamed %t: the draft: %v", renamed, err)
		}
		mustRestore(t, path, backup, RestoreOptions{})
	}
}

// A full disk, or a directory that cannot be written, leaves all as it was.
func TestRestoreOnFullDisk(t *testing.T) {
	made, backup := later(t)
	path := filepath.Join(mountSmall(t), "warder.db")
	for _, suffix := range []string{"", ".key"} {
		if err := os.WriteFile(path+suffix, []byte(readText(t, made+suffix)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ballast := filepath.Join(filepath.Dir(path), "ballast")
	_ = os.WriteFile(ballast, bytes.Repeat([]byte("x"), 64<<20), 0o600) // as much as goes
	if _, err := restore(t, path, backup, RestoreOptions{}); err == nil {
		t.Fatal("restored on a full disk")
	} else {
		t.Log(err)
	}
	if readText(t, path) != readText(t, made) {
		t.Error("the database has changed")
	}
	if left, err := filepath.Glob(path + ".re*"); err != nil || left != nil {
		t.Errorf("left %q %v", left, err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustRestore(t, path, backup, RestoreOptions{})
}

// However much room there is, either all of it is done or nothing.
func TestRestoreOnNearlyFullDisk(t *testing.T) {
	made, backup := later(t)
	s, _ := openWithKeyFile(t, made)
	_, err := s.writes.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
		INSERT INTO audit (at, actor, address, operation, kind, object, organization, refused, revision, before, after)
		SELECT 1, 'local', '', 'test', 'key', 'key_same', 'default', '', 0, '', '{"x":"' || hex(zeroblob(1000)) || '"}' FROM n`)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	dir := mountSmall(t)
	size := int64(len(readText(t, backup)))
	var done, refused int
	for room := size; done < 2 && room < size+(3<<20); room += 8<<10 + (room-size)/4 { // closer where less is left for the first files beside it
		path := filepath.Join(dir, fmt.Sprint(room), "warder.db")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, suffix := range []string{"", ".key"} {
			if err := os.WriteFile(path+suffix, []byte(readText(t, made+suffix)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		leave(t, filepath.Join(filepath.Dir(path), "ballast"), room)
		if _, err := restore(t, path, backup, RestoreOptions{}); err != nil {
			refused++
		} else {
			done++
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), "ballast")); err != nil {
			t.Fatal(err)
		}
		checkRevoked(t, path)
		if err := os.RemoveAll(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("restored %d times, refused %d times", done, refused)
	if done == 0 || refused == 0 {
		t.Error("the disk was full always, or never")
	}
}

// leave writes a file that leaves so much room on its disk.
func leave(t *testing.T, name string, room int64) {
	t.Helper()
	_ = os.WriteFile(name, make([]byte, 64<<20), 0o600) // as much as goes
	info, err := os.Stat(name)
	if err != nil || os.Truncate(name, info.Size()-room) != nil {
		t.Fatalf("leaving %d bytes: %v", room, err)
	}
}
