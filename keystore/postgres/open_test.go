//go:build unix

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

// Ten processes that start at once on an empty database come up, with one
// secret and one history.
func TestManyFirstStarts(t *testing.T) {
	const starts = 10
	c := newDatabase(t)
	var made atomic.Int64
	stores := make([]*Store, starts)
	var group sync.WaitGroup
	for n := range starts {
		group.Go(func() {
			var err error
			stores[n], err = Open(t.Context(), c, func() (keystore.SealedSecret, error) {
				made.Add(1)
				return testGenesis()
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	var secret keystore.SealedSecret
	var head keystore.Position
	for n, s := range stores {
		if s == nil {
			continue
		}
		defer s.Close()
		got, err := s.SealedSecret(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			secret, head = got, headOf(t, s)
		}
		if !bytes.Equal(got.Sealed, secret.Sealed) || headOf(t, s) != head {
			t.Errorf("start %d found another store", n)
		}
	}
	if made.Load() != 1 {
		t.Errorf("%d secrets were made", made.Load())
	}
}

// Two schemas of one database are two stores.
func TestSchemas(t *testing.T) {
	c := newDatabase(t)
	other := c
	other.Schema = "warder_two"
	a, b := openAt(t, c), openAt(t, other)
	putKey(t, a, "key_a")
	if r, _, err := b.Lookup(t.Context(), "key_a"); err != nil || r.ID != "" {
		t.Errorf("the other schema has it: %+v %v", r, err)
	}
	if headOf(t, a).Mark == headOf(t, b).Mark {
		t.Error("two stores have one history")
	}
}

// A role that owns its schema, and nothing else, is enough, and so is one that
// may only use the tables once they are there.
func TestOrdinaryRights(t *testing.T) {
	c := newDatabase(t)
	owner := session(t, c)
	role := strings.ToLower("r_" + ask[string](t, owner, "SELECT current_database()"))
	server := postgrestest.Start(t, postgrestest.Options{})
	admin := session(t, Config{URL: keystore.Secret(server.URL())})
	execute(t, admin, "CREATE ROLE "+role+" LOGIN PASSWORD 'p' NOSUPERUSER")
	execute(t, admin, "CREATE DATABASE "+role)
	execute(t, admin, "REVOKE ALL ON DATABASE "+role+" FROM PUBLIC")
	execute(t, admin, "GRANT CONNECT ON DATABASE "+role+" TO "+role)
	place := server.Address() + "/" + role + "?sslmode=disable"
	limited := Config{URL: keystore.Secret("postgres://" + role + ":p@" + place)}

	_, err := Open(t.Context(), limited, testGenesis)
	if err == nil || errors.Is(err, keystore.ErrUnavailable) || !strings.Contains(err.Error(), "making the schema warder") {
		t.Errorf("without a schema, nor the right to make one: %v", err)
	}
	admin, err = pgx.Connect(t.Context(), strings.Replace(server.URL(), "/postgres?", "/"+role+"?", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	execute(t, admin, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
	execute(t, admin, "CREATE SCHEMA warder AUTHORIZATION "+role)
	s := openAt(t, limited)
	putKey(t, s, "key_a")
	if err := s.Beat(t.Context(), keystore.Node{ID: "n"}); err != nil {
		t.Error(err)
	}
	if _, err := s.Roll(t.Context()); err != nil {
		t.Error(err)
	}
}

// What the role, the database or its owner set does not reach a Store.
func TestForeignSettings(t *testing.T) {
	c := newDatabase(t)
	owner := session(t, c)
	database := ask[string](t, owner, "SELECT current_database()")
	execute(t, owner, "CREATE SCHEMA decoy CREATE TABLE head (nothing text) CREATE TABLE keys (nothing text)")
	for _, setting := range []string{
		"search_path = decoy, public", "default_transaction_isolation = 'serializable'", "synchronous_commit = off",
		"statement_timeout = 1", "lock_timeout = 1", "client_encoding = 'LATIN1'", "bytea_output = 'escape'", "DateStyle = 'SQL, DMY'",
		"default_transaction_deferrable = on", "standard_conforming_strings = off", "timezone = 'Asia/Kathmandu'",
	} {
		execute(t, owner, "ALTER ROLE "+database+" IN DATABASE "+database+" SET "+setting)
	}
	s := openAt(t, c)
	r := testKey("key_ü")
	r.Metadata = `{"x":"\\ü'"}`
	if _, err := s.Transact(t.Context(), func(tx keystore.Tx) error { return tx.PutKey(&r) }); err != nil {
		t.Fatal(err)
	}
	if got, _, err := s.Lookup(t.Context(), "key_ü"); err != nil || got != r {
		t.Errorf("got %+v %v, want %+v", got, err, r)
	}
	if list, err := s.List(t.Context(), keystore.Query{Limit: 2}); err != nil || len(list.Records) != 1 || list.Records[0] != r {
		t.Errorf("got %+v %v", list, err)
	}
	err := s.pool.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error {
		for setting, want := range map[string]string{
			"search_path": "warder, pg_temp", "synchronous_commit": "on", "client_encoding": "UTF8", "statement_timeout": "15s", "lock_timeout": "5s",
			"idle_in_transaction_session_timeout": "5s", "application_name": "warder", "jit": "off",
		} {
			var got string
			if err := conn.QueryRow(t.Context(), "SELECT current_setting($1)", setting).Scan(&got); err != nil || got != want {
				t.Errorf("%s is %s %v, want %s", setting, got, err, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		edit string
		want error
	}{
		"no store secret":     {"DELETE FROM store_secret", keystore.ErrCorrupt},
		"no head":             {"DELETE FROM head", keystore.ErrCorrupt},
		"a table is missing":  {"DROP TABLE aliases", keystore.ErrCorrupt},
		"a column is missing": {"ALTER TABLE keys DROP COLUMN scopes", keystore.ErrCorrupt},
		"no version":          {"UPDATE head SET version = 0", keystore.ErrCorrupt},
		"newer":               {"UPDATE head SET version = 99, usable_from = 98", keystore.ErrNewerSchema},
	} {
		t.Run(name, func(t *testing.T) {
			config := newDatabase(t)
			openAt(t, config).Close()
			operator := session(t, config)
			execute(t, operator, c.edit)
			s, err := Open(t.Context(), config, func() (keystore.SealedSecret, error) {
				t.Error("a new store was begun")
				return testGenesis()
			})
			if err == nil {
				s.Close()
				t.Fatal("opened")
			}
			if !errors.Is(err, c.want) || errors.Is(err, keystore.ErrUnavailable) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			t.Log(err)
		})
	}
}

func TestUnsuitableServers(t *testing.T) {
	for _, c := range []struct {
		version  int
		encoding string
		good     bool
	}{
		{120022, "UTF8", false}, {129999, "UTF8", false}, {130000, "UTF8", true}, {180001, "UTF8", true}, {150000, "LATIN1", false}, {150000, "SQL_ASCII", false},
	} {
		if err := suitable(c.version, "x", c.encoding); (err == nil) != c.good || err != nil && !errors.Is(err, errUnsuitable) {
			t.Errorf("%d %s: %v", c.version, c.encoding, err)
		}
	}
	server := postgrestest.Start(t, postgrestest.Options{})
	server.Execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
	_, err := Open(t.Context(), Config{URL: keystore.Secret(strings.Replace(server.URL(), "/postgres?", "/ascii?", 1))}, testGenesis)
	if !errors.Is(err, errUnsuitable) {
		t.Errorf("a database without an encoding: %v", err)
	}
}

// A first start that fails, or is given up, leaves nothing.
func TestInterruptedFirstStart(t *testing.T) {
	c := newDatabase(t)
	operator := session(t, c)
	broken := errors.New("no entropy")
	_, err := Open(t.Context(), c, func() (keystore.SealedSecret, error) { return keystore.SealedSecret{}, broken })
	if !errors.Is(err, broken) || errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Open(ctx, c, func() (keystore.SealedSecret, error) { cancel(); return testGenesis() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if n := ask[int](t, operator, "SELECT count(*) FROM pg_namespace WHERE nspname = 'warder'"); n != 0 {
		t.Error("a schema was left")
	}
	openAt(t, c)
}

// Nobody there is an outage, which passes; a database that does not exist is
// none.
func TestNobodyThere(t *testing.T) {
	for _, url := range []string{"postgres://u@127.0.0.1:1/d", "postgres://u@127.0.0.1:1,127.0.0.1:2/d", "host=/no/such/directory dbname=d"} {
		_, err := Open(t.Context(), Config{URL: keystore.Secret(url)}, testGenesis)
		if !errors.Is(err, keystore.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", url, err)
		}
		t.Log(err)
	}
	c := newDatabase(t)
	c.URL = keystore.Secret(strings.Replace(c.URL.Reveal(), "?", "_no?", 1))
	if _, err := Open(t.Context(), c, testGenesis); err == nil || errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("no such database: %v", err)
	}
}

func TestSecretRow(t *testing.T) {
	c := newDatabase(t)
	s := openAt(t, c)
	first, err := s.SealedSecret(t.Context())
	if err != nil || first.Version != 1 || len(first.Sealed) == 0 || len(first.Check) == 0 {
		t.Fatalf("%+v %v", first, err)
	}
	next, _ := testGenesis()
	if err := s.ReplaceSealedSecret(t.Context(), next, first); !errors.Is(err, keystore.ErrStaleEdit) {
		t.Errorf("from a row that is not stored: %v", err)
	}
	if err := s.ReplaceSealedSecret(t.Context(), first, next); err != nil {
		t.Fatal(err)
	}
	if err := s.ReplaceSealedSecret(t.Context(), first, next); !errors.Is(err, keystore.ErrStaleEdit) {
		t.Errorf("a second time: %v", err)
	}
	got, err := openAt(t, c).SealedSecret(t.Context())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(next) {
		t.Errorf("after opening again: %+v %v", got, err)
	}
}

// A pooler that was told to ignore settings would have tables end up in
// another schema, and nothing end what hangs.
func TestLostSettings(t *testing.T) {
	c, err := newDatabase(t).completed()
	if err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{"search_path", "statement_timeout", "lock_timeout"} {
		parsed, err := parse(c.URL)
		if err != nil {
			t.Fatal(err)
		}
		prepare(parsed, c)
		delete(parsed.ConnConfig.RuntimeParams, setting)
		conn, err := pgx.ConnectConfig(t.Context(), parsed.ConnConfig)
		if err != nil {
			t.Fatal(err)
		}
		if err := suits(t.Context(), conn, c); !errors.Is(err, errUnsuitable) {
			t.Errorf("without %s: %v", setting, err)
		}
		closeListener(conn)
	}
}
