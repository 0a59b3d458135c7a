//go:build unix

package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/warderhq/warder/keystore"
)

// Who only looks makes nothing, takes nothing from an owner, and sees what is
// in it once there is none.
func TestExamine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "warder.db")
	e, err := Examine(t.Context(), path)
	if names, _ := os.ReadDir(dir); err != nil || e.Exists || len(names) != 0 {
		t.Errorf("%+v %v, and there are %v", e, err, names)
	}
	master := keystore.NewMasterKey()
	s, err := Open(t.Context(), path, keystore.SealedGenesis(master))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Examine(t.Context(), path); !errors.Is(err, keystore.ErrStoreInUse) {
		t.Errorf("while it is open: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadDir(dir)
	e, err = Examine(t.Context(), path)
	if err != nil || !e.Exists || e.Version != len(migrations) || e.Known != e.Version || e.Head.Revision != 1 || e.Head.Mark == 0 {
		t.Errorf("%+v %v", e, err)
	}
	if _, err := keystore.OpenStoreSecret(master, e.Sealed); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadDir(dir); len(after) != len(before) {
		t.Errorf("there were %v, and are %v", before, after)
	}
	s, err = Open(t.Context(), path, nil)
	if err != nil {
		t.Fatalf("the lock is held: %v", err)
	}
	s.Close()
	if err := os.WriteFile(path+"-wal", []byte("left behind"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e, err := Examine(t.Context(), path); err != nil || !e.Unclean || e.Version != 0 {
		t.Errorf("%+v %v", e, err)
	}
}
