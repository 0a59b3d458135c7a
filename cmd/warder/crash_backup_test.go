package main_test

import (
	"math/rand/v2"
	"net/http"
	"os"
	"testing"
	"time"
)

const interruptions = 20

// cut starts a command of the site and kills victim, or the command itself if
// that is nil, so long after a file has appeared, if it still runs. It returns
// how long the command went on after that.
func (s *site) cut(appears string, delay time.Duration, victim *os.Process, args ...string) time.Duration {
	s.t.Helper()
	cmd := s.command(s.t.Context(), "./warder", args...)
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	if victim == nil {
		victim = cmd.Process
	}
	ended := make(chan struct{})
	seen := make(chan time.Time, 1)
	go func() {
		at := s.watch(appears, ended)
		seen <- at
		if !at.IsZero() {
			time.Sleep(delay)
			_ = victim.Kill()
		}
	}()
	_ = cmd.Wait() // killed, or refused because the server was
	close(ended)
	if at := <-seen; !at.IsZero() {
		return time.Since(at)
	}
	return 0
}

// watch waits for a file to appear, or for the end.
func (s *site) watch(name string, ended <-chan struct{}) time.Time {
	for {
		select {
		case <-ended:
			return time.Time{}
		default:
		}
		if _, err := os.Lstat(s.path(name)); err == nil {
			return time.Now()
		}
		time.Sleep(50 * time.Microsecond)
	}
}

// window is how long a command goes on after a file has appeared.
func (s *site) window(appears string, args ...string) time.Duration {
	s.t.Helper()
	return max(s.cut(appears, patience, nil, args...), 2*time.Millisecond)
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
	v.interrupt()
	pending, rotate := keyFile+".new", []string{"master-key", "rotate"}
	window := s.window(pending, rotate...)
	keys := map[string]bool{}
	for n := range interruptions {
		delay := time.Duration(random.Int64N(int64(window)))
		if n%2 == 0 { // of a server that does not run
			s.cut(pending, delay, nil, rotate...)
		} else {
			v := s.start()
			s.cut(pending, delay, v.cmd.Process, rotate...)
			v.kill()
			client.CloseIdleConnections()
		}
		v := s.start()
		s.expect(http.StatusOK, "Token "+k.APIKey, "after an interrupted rotation")
		keys[masterKeyFingerprint(t, s)] = true
		v.interrupt()
	}
	t.Logf("%d rotations, each killed within %s after its key was proposed: %d keys", interruptions, window, len(keys))
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
	const draft = database + ".restoring"
	window := s.window(draft, "restore", "late.db")
	var before, after int
	for n := range interruptions {
		s.cut(draft, time.Duration(random.Int64N(int64(window))), nil, "restore", "early.db")
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
		s.warder("restore", "late.db", "--revive").ok(t) // else the late key would come back blocked
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
	const partial = "copy.db.partial"
	window := s.window(partial, "backup", "copy.db")
	for range interruptions {
		s.cut(partial, time.Duration(random.Int64N(int64(window))), nil, "backup", "--force", "copy.db")
	}
	s.warder("backup", "--force", "copy.db").ok(t)
	s.absent("copy.db.partial", "copy.db-*")
	s.createKey()
}
