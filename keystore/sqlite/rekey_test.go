//go:build unix

package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/warderhq/warder/keystore"
)

func openWithKeyFile(t testing.TB, path string) (*Store, keystore.StoreSecret) {
	t.Helper()
	s, secret, _, err := OpenWithKeyFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, secret
}

func readText(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Interrupted after any of its steps, a rotation leaves a file that opens the
// database: the next start finds it, and the next rotation ends well.
func TestKeyRotationInterrupted(t *testing.T) {
	for interrupted := range 5 {
		path := filepath.Join(t.TempDir(), "warder.db")
		s, secret := openWithKeyFile(t, path)
		first := readText(t, KeyFile(path))
		r := s.newKeyRotation()
		if len(r.steps()) != 4 {
			t.Fatalf("%d steps", len(r.steps()))
		}
		for _, step := range r.steps()[:interrupted] {
			if err := step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		checkKeyFileFor(t, path)

		s, again := openWithKeyFile(t, path)
		if !again.SameAs(secret) {
			t.Errorf("after %d steps the store has another secret", interrupted)
		}
		if now := readText(t, KeyFile(path)); (now == first) != (interrupted < 3) {
			t.Errorf("after %d steps and a start the key file has changed: %t", interrupted, now != first)
		}
		former, present, err := s.RotateKeyFile(t.Context())
		if err != nil || former == present {
			t.Fatalf("after %d steps: %s %s %v", interrupted, former, present, err)
		}
		checkRotated(t, s, secret, present)
	}
}

// checkKeyFileFor: the file that is named opens the database.
func checkKeyFileFor(t *testing.T, path string) {
	t.Helper()
	sealed, err := SealedClosed(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	name, err := KeyFileFor(path, sealed)
	if err != nil {
		t.Fatal(err)
	}
	master, err := readKey(name)
	if err != nil || master.Fingerprint() != sealed.Fingerprints()[0] {
		t.Errorf("%s holds %s %v, sealed under %s", name, master.Fingerprint(), err, sealed.Fingerprints()[0])
	}
}

func checkRotated(t *testing.T, s *Store, secret keystore.StoreSecret, present string) {
	t.Helper()
	path := s.Path()
	sealed, err := s.SealedSecret(t.Context())
	if err != nil || len(sealed.Fingerprints()) != 1 || sealed.Fingerprints()[0] != present {
		t.Errorf("sealed under %v %v, want %s", sealed.Fingerprints(), err, present)
	}
	if _, err := os.Lstat(KeyFile(path) + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pending key is still there: %v", err)
	}
	if info, err := os.Stat(KeyFile(path)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v %v", info, err)
	}
	s.Close()
	if s, again := openWithKeyFile(t, path); !again.SameAs(secret) {
		t.Error("the store has another secret")
	} else {
		s.Close()
	}
}

// A rotation goes on where one was interrupted while the server ran on, too.
func TestKeyRotationRepeated(t *testing.T) {
	s, secret := openWithKeyFile(t, filepath.Join(t.TempDir(), "warder.db"))
	r := s.newKeyRotation()
	for _, step := range r.steps()[:3] { // sealed, but the file has not its name
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	former, present, err := s.RotateKeyFile(t.Context())
	if err != nil || former != r.next.Fingerprint() {
		t.Fatalf("from %s %v, want from %s", former, err, r.next.Fingerprint())
	}
	checkRotated(t, s, secret, present)
}

// What cannot be written changes nothing.
func TestKeyRotationRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	s, secret := openWithKeyFile(t, path)
	first := readText(t, KeyFile(path))

	if err := os.MkdirAll(filepath.Join(KeyFile(path)+".new", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.RotateKeyFile(t.Context()); err == nil {
		t.Error("rotated without room for the new key")
	}
	if err := os.RemoveAll(KeyFile(path) + ".new"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.writes.Exec("CREATE TRIGGER refuse BEFORE UPDATE ON store_secret BEGIN SELECT raise(ABORT, 'no'); END"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.RotateKeyFile(t.Context()); err == nil {
		t.Error("rotated without writing the row")
	}
	if _, err := os.Lstat(KeyFile(path) + ".new"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a key that nothing is sealed under is left: %v", err)
	}
	if _, err := s.writes.Exec("DROP TRIGGER refuse"); err != nil {
		t.Fatal(err)
	}
	if readText(t, KeyFile(path)) != first {
		t.Error("the key file has changed")
	}
	s.Close()
	if _, again := openWithKeyFile(t, path); !again.SameAs(secret) {
		t.Error("the store has another secret")
	}
}

// A pending key that opens nothing is no way around a wrong key file.
func TestWrongKeyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "warder.db")
	s, _ := openWithKeyFile(t, path)
	s.Close()
	for _, name := range []string{KeyFile(path), KeyFile(path) + ".new"} {
		if err := os.WriteFile(name, []byte(keystore.NewMasterKey().Text().Reveal()), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, _, err := OpenWithKeyFile(t.Context(), path); !errors.Is(err, keystore.ErrWrongMasterKey) {
			t.Errorf("with a wrong %s: %v", name, err)
		}
	}
}
