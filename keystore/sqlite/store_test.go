//go:build unix

package sqlite

import (
	"path/filepath"
	"testing"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/storetest"
)

const keptInTests = 50

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Harness{LogKept: keptInTests, Open: func(t *testing.T) (keystore.Store, func() keystore.Store) {
		path := filepath.Join(t.TempDir(), "warder.db")
		return openAt(t, path), func() keystore.Store { return openAt(t, path) }
	}})
}

// openAt opens a store that is closed when the test ends, and keeps a short log.
func openAt(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, testGenesis)
	if err != nil {
		t.Fatal(err)
	}
	s.logKept = keptInTests
	t.Cleanup(func() { s.Close() })
	return s
}

func testGenesis() (keystore.SealedSecret, error) {
	return keystore.SealStoreSecret(keystore.NewMasterKey(), keystore.NewStoreSecret())
}
