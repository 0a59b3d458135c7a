package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"testing"
	"time"
)

const interruptions = 20

// cut starts a command of the site and kills it after the delay, if it still
// runs. It reports whether the command came to its end.
func (s *site) cut(delay time.Duration, args ...string) bool {
	s.t.Helper()
	cmd := s.command(s.t.Context(), "./warder", args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	killed := time.AfterFunc(delay, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	killed.Stop()
	if exit, failed := err.(*exec.ExitError); failed && exit.Exited() {
		s.t.Fatalf("%q: %v: %s", args, err, &said)
	}
	return err == nil
}

// howLong is how long a command takes that nothing interrupts.
func (s *site) howLong(args ...string) time.Duration {
	s.t.Helper()
	begun := time.Now()
	if done := s.warder(args...); done.code != 0 {
		s.t.Fatalf("%q: %s", args, done.stderr)
	}
	return time.Since(begun)
}

// Whenever the server or the command is killed while the master key is
// changed, the next start opens the database, and the change can be repeated.
func TestKillMasterKeyRotation(t *testing.T) {
	t.Parallel()
	seed := newSeed(t, "WARDER_ROTATION_SEED")
	random := rand.New(rand.NewPCG(seed, 1))
	s := newSite(t, example(t))
	v := s.start()
	k := s.createKey()
	whole := s.howLong("master-key", "rotate")
	v.interrupt()
	ended, keys := 0, map[string]bool{}
	for n := range interruptions {
		delay := time.Duration(random.Int64N(int64(whole)))
		if n%2 == 0 { // of a server that does not run
			if s.cut(delay, "master-key", "rotate") {
				ended++
			}
		} else {
			v := s.start()
			killed := time.AfterFunc(delay, func() { _ = v.cmd.Process.Kill() })
			if done := s.warder("master-key", "rotate", "--address", fmt.Sprintf("127.0.0.1:%d", s.admin)); done.code == 0 {
				ended++
			}
			killed.Stop()
			v.kill()
			client.CloseIdleConnections()
		}
		v := s.start()
		s.expect(http.StatusOK, "Token "+k.APIKey, "after an interrupted rotation")
		keys[masterKeyFingerprint(t, s)] = true
		v.interrupt()
	}
	t.Logf("%d rotations, of which %d came to their end, and %d keys", interruptions, ended, len(keys))
	s.warder("master-key", "rotate").ok(t)
	s.absent(keyFile + ".new")
	s.start()
	s.expect(http.StatusOK, "Token "+k.APIKey, "after the last rotation")
}

// Whenever a restore is killed, either the one database is in place or the
// other, whole; and it can be repeated.
func TestKillRestore(t *testing.T) {
	t.Parallel()
	seed := newSeed(t, "WARDER_RESTORE_SEED")
	random := rand.New(rand.NewPCG(seed, 2))
	s := newSite(t, example(t))
	v := s.start()
	early := s.createKey()
	for range 50 {
		s.createKey()
	}
	s.warder("backup", "early.db").ok(t)
	late := s.createKey()
	s.warder("backup", "late.db").ok(t)
	v.kill() // with a write-ahead log that is not yet in the database
	client.CloseIdleConnections()
	whole := s.howLong("restore", "late.db")
	var before, after int
	for n := range interruptions {
		s.cut(time.Duration(random.Int64N(int64(whole))), "restore", "early.db")
		v := s.start()
		s.expect(http.StatusOK, "Token "+early.APIKey, "after an interrupted restore")
		got, err := s.knock("Token " + late.APIKey)
		switch {
		case err == nil && got.status == http.StatusOK:
			before++
		case err == nil && got.status == http.StatusUnauthorized:
			after++
		default:
			t.Fatalf("restore %d: %v %v", n, got, err)
		}
		if n := len(s.keys()); n != 51 && n != 52 {
			t.Errorf("%d keys", n)
		}
		s.absent(database+".restoring*", database+"*-wal.*")
		v.kill()
		client.CloseIdleConnections()
		s.warder("restore", "late.db").ok(t)
	}
	t.Logf("%d restores that were interrupted: %d times the old database, %d times the new one", interruptions, before, after)
	s.warder("restore", "early.db").ok(t)
	s.start()
	s.expect(http.StatusUnauthorized, "Token "+late.APIKey, "after the last restore")
}

// A backup that is killed leaves nothing that the next one stumbles over.
func TestKillBackup(t *testing.T) {
	t.Parallel()
	seed := newSeed(t, "WARDER_BACKUP_KILL_SEED")
	random := rand.New(rand.NewPCG(seed, 3))
	s := newSite(t, example(t))
	s.start()
	for range 50 {
		s.createKey()
	}
	whole := s.howLong("backup", "first.db")
	for range interruptions {
		s.cut(time.Duration(random.Int64N(int64(whole))), "backup", "--force", "copy.db")
	}
	s.warder("backup", "--force", "copy.db").ok(t)
	s.absent("copy.db.partial", "copy.db-*")
	s.createKey()
}
