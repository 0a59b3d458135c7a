package main_test

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ok demands success of a command.
func (e ended) ok(t *testing.T) ended {
	t.Helper()
	if e.code != 0 || e.stderr != "" {
		t.Fatalf("exit code %d: %s%s", e.code, e.stdout, e.stderr)
	}
	return e
}

// refused demands an exit code and one line on standard error with the words.
func (e ended) refused(t *testing.T, code int, words ...string) {
	t.Helper()
	if e.code != code || e.stdout != "" || strings.Count(strings.TrimSpace(e.stderr), "\n") != 0 {
		t.Errorf("exit code %d, want %d: %q %q", e.code, code, e.stdout, e.stderr)
	}
	contains(t, "the refusal", e.stderr, words...)
}

// absent demands that no file is left of a name.
func (s *site) absent(patterns ...string) {
	s.t.Helper()
	for _, pattern := range patterns {
		if left, err := filepath.Glob(s.path(pattern)); err != nil || left != nil {
			s.t.Errorf("%q are left (%v)", left, err)
		}
	}
}

// The whole way: a backup while keys are made, and the server that is started
// from it knows all that was acknowledged before, and nothing half.
func TestBackupDuringWrites(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	v := s.start()
	seed := newSeed(t, "WARDER_BACKUP_SEED")
	var all []*operator
	for n := range clients {
		all = append(all, newOperator(t, s, n, seed))
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		together(all, func(o *operator) { o.workUntil(stop) })
	}()
	await(func() bool { return len(s.keys()) > 40 })
	made := s.keys()
	said := s.warder("backup", "copy.db").ok(t)
	close(stop)
	<-done
	contains(t, "the backup", said.stdout, "copy.db", "checked", s.path(keyFile), "not in the same place")
	if info, err := os.Stat(s.path("copy.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	s.absent("copy.db.*", "copy.db-*", database+".*restoring*")

	// Elsewhere, with nothing but the backup and the key.
	v.interrupt()
	other := newSite(t, example(t))
	for from, to := range map[string]string{"copy.db": "copy.db", keyFile: "kept.key"} {
		other.write(to, s.read(from))
	}
	restored := other.warder("restore", "copy.db", "--key-file", "kept.key").ok(t)
	contains(t, "the restore", restored.stdout, "made key file", "NOT KNOWN")
	other.start()
	there := map[string]bool{}
	for _, k := range other.keys() {
		there[k.ID] = true
	}
	for _, k := range made {
		if !there[k.ID] {
			t.Errorf("%s was made before the backup and is not in it", k.ID)
		}
	}
	passing := 0
	for _, o := range all {
		for _, h := range o.held {
			if !there[h.key.ID] || h.blocked || h.unsure {
				continue
			}
			if now := other.mustManage(http.MethodGet, "/keys/"+h.key.ID, ""); now.Generation == h.key.Generation {
				other.expect(http.StatusOK, "Token "+h.key.APIKey, "a key from the backup")
				passing++
			}
		}
	}
	t.Logf("%d keys before the backup, %d in it, %d tried", len(made), len(there), passing)
	if passing < 10 {
		t.Error("too few keys were tried to prove anything")
	}
}

// workUntil goes on until it is told to stop.
func (o *operator) workUntil(stop <-chan struct{}) {
	for !o.t.Failed() {
		select {
		case <-stop:
			return
		default:
		}
		op := o.next()
		o.pending = &op
		if !o.attempt() {
			return
		}
	}
}

// Nothing that was revoked after the backup passes after the restore.
func TestRestoreRevivesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	v := s.start()
	kept, blocked, deleted, rotated := s.createKey(), s.createKey(), s.createKey(), s.createKey()
	s.warder("backup", "copy.db").ok(t)
	s.mustManage(http.MethodPost, "/keys/"+blocked.ID+"/block", "")
	s.mustManage(http.MethodPost, "/keys/delete", `{"ids":["`+deleted.ID+`"]}`)
	renewed := s.mustManage(http.MethodPost, "/keys/"+rotated.ID+"/rotate", `{"force":true}`)
	late := s.createKey()

	s.warder("restore", "copy.db").refused(t, 5, "process", "stop the server")
	v.interrupt()
	done := s.warder("restore", "copy.db").ok(t)
	contains(t, "the restore", done.stdout, blocked.ID, deleted.ID, rotated.ID, "gone (1)")
	v = s.start()
	s.expect(http.StatusOK, "Token "+kept.APIKey, "a key that nobody revoked")
	s.expect(http.StatusOK, "Token "+renewed.APIKey, "the secret that the rotation made")
	for why, k := range map[string]key{"blocked": blocked, "deleted": deleted, "rotated": rotated, "made later": late} {
		s.expect(http.StatusUnauthorized, "Token "+k.APIKey, "a key that was "+why+" after the backup")
	}
	v.interrupt()

	done = s.warder("restore", "copy.db", "--revive").ok(t)
	contains(t, "the restore", done.stdout, "PASS AGAIN", blocked.ID, deleted.ID, rotated.ID)
	s.start()
	for _, k := range []key{kept, blocked, deleted, rotated} {
		s.expect(http.StatusOK, "Token "+k.APIKey, "a key that was to be revived")
	}
}

// Who revived keys by mistake restores what was replaced; and a backup that is
// later than the database loses none of its revocations to it.
func TestRestoreBackAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	v := s.start()
	blocked, rotated := s.createKey(), s.createKey()
	s.warder("backup", "early.db").ok(t)
	s.mustManage(http.MethodPost, "/keys/"+blocked.ID+"/block", "")
	renewed := s.mustManage(http.MethodPost, "/keys/"+rotated.ID+"/rotate", `{"force":true}`)
	s.warder("backup", "late.db").ok(t)
	v.interrupt()
	s.warder("restore", "early.db", "--revive").ok(t)
	revoked := func(when string) {
		t.Helper()
		v := s.start()
		s.expect(http.StatusUnauthorized, "Token "+blocked.APIKey, "a blocked key "+when)
		s.expect(http.StatusUnauthorized, "Token "+rotated.APIKey, "a secret that was rotated out "+when)
		s.expect(http.StatusOK, "Token "+renewed.APIKey, "the secret after it "+when)
		v.interrupt()
	}
	replaced, err := filepath.Glob(s.path(database + ".replaced-*Z"))
	if err != nil || len(replaced) != 1 {
		t.Fatalf("%q %v", replaced, err)
	}
	contains(t, "the restore", s.warder("restore", replaced[0]).ok(t).stdout, "neither of the two went on from the other")
	revoked("after the revival was taken back")
	s.write(database, s.read("early.db"))
	contains(t, "the restore", s.warder("restore", "late.db").ok(t).stdout, "the later one of the two")
	revoked("after an old state was laid under a later backup")
}

// A backup of a stopped server is the same command; what is in the way of one
// is named, and nothing is left of it.
func TestBackupRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.warder("backup", "copy.db").refused(t, 1, database)
	v := s.start()
	s.warder("backup", "copy.db").ok(t)
	s.warder("backup", "copy.db").refused(t, 5, "copy.db", "--force")
	s.warder("backup", "--force", "copy.db").ok(t)
	s.warder("backup", "--force", database).refused(t, 5, "database of a server")
	s.warder("backup", "nowhere/copy.db").refused(t, 1, "nowhere")
	s.warder("backup").refused(t, 2, "backup <file>")
	s.warder("backup", "--database", database, "other.db").refused(t, 5, "--address")
	sent := s.warder("backup", "-")
	if sent.code != 0 || !strings.HasPrefix(sent.stdout, "SQLite format 3") {
		t.Errorf("%d %s", sent.code, sent.stderr)
	}
	contains(t, "what is said of it", sent.stderr, "standard output", keyFile)
	v.interrupt()
	s.warder("backup", "closed.db").ok(t)
	s.warder("backup", "--database", database, "named.db").ok(t)
	if s.read("closed.db") != s.read("named.db") || s.read("closed.db") != s.read(database) {
		t.Error("backups of a closed database differ")
	}
	s.write("sent.db", sent.stdout)
	s.warder("restore", "sent.db").ok(t)
	s.absent("*.partial", "*.db-*")
}

// A full disk, or one that cannot be written, leaves no backup behind, and the
// one that is there as it was.
func TestBackupOnFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.start()
	for range 20 {
		s.createKey()
	}
	mountSmall(t, s.path("small"))
	s.warder("backup", "small/first.db").ok(t)
	first := s.read("small/first.db")
	fillDisk(t, s.path("small/ballast"))
	s.warder("backup", "small/second.db").refused(t, 1, "space")
	s.warder("backup", "--force", "small/first.db").refused(t, 1, "space")
	if s.read("small/first.db") != first {
		t.Error("the backup that was there has changed")
	}
	s.absent("small/second*", "small/*partial*")
}

func TestBackupWithoutPermission(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.start()
	if err := os.Mkdir(s.path("closed"), 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	s.warder("backup", "closed/copy.db").refused(t, 1, fs.ErrPermission.Error())
}

// masterKeyFingerprint is what the server says of its key.
func masterKeyFingerprint(t *testing.T, s *site) string {
	t.Helper()
	var status struct {
		Fingerprint string `json:"fingerprint"`
	}
	if err := json.Unmarshal([]byte(s.warder("master-key", "status", "--json").ok(t).stdout), &status); err != nil {
		t.Fatal(err)
	}
	return status.Fingerprint
}

// The key file is changed under a running server and a stopped one; the keys
// go on passing, and older backups need the former key.
func TestMasterKeyFileRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	v := s.start()
	k := s.createKey()
	s.warder("backup", "before.db").ok(t)
	s.write("former.key", s.read(keyFile))
	first := masterKeyFingerprint(t, s)

	contains(t, "the rotation", s.warder("master-key", "rotate").ok(t).stdout, first, s.path(keyFile), "back up again")
	second := masterKeyFingerprint(t, s)
	s.expect(http.StatusOK, "Token "+k.APIKey, "after a rotation")
	v.interrupt()
	s.warder("master-key", "rotate").ok(t)
	third := masterKeyFingerprint(t, s)
	if first == second || second == third || s.read(keyFile) == s.read("former.key") {
		t.Errorf("%s, %s, %s", first, second, third)
	}
	s.absent(keyFile + ".new")
	s.start().interrupt()
	s.warder("restore", "before.db").refused(t, 5, first, "--key-file")
	s.warder("restore", "before.db", "--key-file", "former.key").ok(t)
	v = s.start()
	s.expect(http.StatusOK, "Token "+k.APIKey, "from a backup under a former key")
	contains(t, "nothing to finish", s.warder("master-key", "rotate", "--finish").ok(t).stdout, "nothing to finish")
	contains(t, "the audit log", s.warder("audit", "--json").stdout, "master_key.rotate", "store.backup", "store.restore")
}

// After a change of the key file that was interrupted, every command names the
// file that opens the database, and only a start or the next change ends it.
func TestHalfRotatedKeyFile(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.start().interrupt()
	former := s.read(keyFile)
	s.warder("master-key", "rotate").ok(t)
	s.write(keyFile+".new", s.read(keyFile))
	s.write(keyFile, former)
	contains(t, "the backup", s.warder("backup", "copy.db").ok(t).stdout, keyFile+".new:")
	sent := s.warder("backup", "-")
	contains(t, "what is said of a backup that is sent", sent.stderr, keyFile+".new:", masterKeyFingerprint(t, s))
	contains(t, "the status", s.warder("master-key", "status").ok(t).stdout, keyFile+".new")
	wantFindings(t, s.doctor(), 0, "??", "was interrupted", keyFile+".new")
	if s.read(keyFile) != former {
		t.Error("to ask has changed the key file")
	}
	other := newSite(t, example(t))
	other.write("copy.db", s.read("copy.db"))
	other.write("kept.key", s.read(keyFile+".new"))
	other.warder("restore", "copy.db", "--key-file", "kept.key").ok(t)
	s.start()
	s.absent(keyFile + ".new")
}

// What root does for a server that is another user's, this one can go on with.
func TestUpkeepByRoot(t *testing.T) {
	t.Parallel()
	s := newSite(t, example(t))
	s.asNobody()
	server := s.user
	v := s.start()
	k := s.createKey()
	v.interrupt()
	s.user = nil
	s.warder("master-key", "rotate").ok(t)
	s.warder("backup", "again.db").ok(t)
	s.warder("restore", "again.db").ok(t)
	s.user = server
	s.start()
	s.expect(http.StatusOK, "Token "+k.APIKey, "after what root did")
}

// A configured master key is changed by the configuration.
func TestConfiguredMasterKeyRotation(t *testing.T) {
	t.Parallel()
	s := newSite(t, withOptions(t, "\t\tmaster_key {file.master.key}"))
	s.write("master.key", s.warder("master-key", "new").ok(t).stdout)
	v := s.start()
	k := s.createKey()
	s.warder("master-key", "rotate").refused(t, 5, "previous_master_key")
	s.warder("backup", "before.db").ok(t)
	v.interrupt()
	s.warder("master-key", "rotate").refused(t, 5, "previous_master_key")
	s.write("previous.key", s.read("master.key"))
	s.write("master.key", s.warder("master-key", "new").ok(t).stdout)
	s.configure(withOptions(t, "\t\tmaster_key {file.master.key}\n\t\tprevious_master_key {file.previous.key}"))
	v = s.start()
	s.expect(http.StatusOK, "Token "+k.APIKey, "under the new key")
	contains(t, "one process has nothing to finish", s.warder("master-key", "rotate", "--finish").ok(t).stdout, "nothing to finish")
	v.interrupt()
	s.warder("restore", "before.db").ok(t) // previous_master_key opens it
	s.configure(withOptions(t, "\t\tmaster_key {file.master.key}"))
	s.start()
	s.expect(http.StatusOK, "Token "+k.APIKey, "from the backup, under the new key")
}
