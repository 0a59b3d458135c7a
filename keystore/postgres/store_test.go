//go:build unix

package postgres

import (
	"fmt"
	"testing"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
	"github.com/warderhq/warder/keystore/storetest"
)

const keptInTests = 50

// A schema for each store: a database takes a server many times as long.
func TestConformance(t *testing.T) {
	database, schemas := newDatabase(t), 0
	storetest.Run(t, storetest.Harness{LogKept: keptInTests, Shared: true, Open: func(t *testing.T) (keystore.Store, func() keystore.Store) {
		c := database
		schemas++
		c.Schema = fmt.Sprintf("store_%d", schemas)
		return openAt(t, c), func() keystore.Store { return openAt(t, c) }
	}})
}

// newDatabase leads to a database of its own, which has no schema yet.
func newDatabase(t testing.TB) Config {
	t.Helper()
	return Config{URL: keystore.Secret(postgrestest.Database(t))}
}

// openAt opens a store that is closed when the test ends, and keeps a short log.
func openAt(t testing.TB, c Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), c, testGenesis)
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
