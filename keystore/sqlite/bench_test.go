//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// benchStore is built once: WARDER_BENCH_KEYS keys, a million unless set.
var benchStore struct {
	once sync.Once
	dir  string
	keys int
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if benchStore.dir != "" {
		os.RemoveAll(benchStore.dir)
	}
	os.Exit(code)
}

func openBench(b *testing.B) (*Store, int) {
	b.Helper()
	benchStore.once.Do(func() { benchStore.err = buildBench() })
	if benchStore.err != nil {
		b.Fatal(benchStore.err)
	}
	s, err := Open(b.Context(), filepath.Join(benchStore.dir, "warder.db"), testGenesis)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	return s, benchStore.keys
}

// benchAccess returns the n-th access key: random to the eye, so that look-ups
// meet the index in no order, yet computable.
func benchAccess(n int) keystore.AccessKey {
	const digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	random := rand.New(rand.NewPCG(uint64(n), 1))
	out := make([]byte, 22)
	for i := range out {
		out[i] = digits[random.IntN(len(digits))]
	}
	return keystore.AccessKey(out)
}

func buildBench() (err error) {
	benchStore.keys = 1_000_000
	if text := os.Getenv("WARDER_BENCH_KEYS"); text != "" {
		if benchStore.keys, err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	if benchStore.dir, err = os.MkdirTemp("", "warder-bench"); err != nil {
		return err
	}
	ctx := context.Background()
	s, err := Open(ctx, filepath.Join(benchStore.dir, "warder.db"), testGenesis)
	if err != nil {
		return err
	}
	defer s.Close()
	began := time.Now()
	tx, err := s.writes.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := insertBench(s, tx, benchStore.keys); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	fmt.Printf("# %d keys in %v\n", benchStore.keys, time.Since(began).Round(time.Millisecond))
	return nil
}

func insertBench(s *Store, tx *sql.Tx, keys int) error {
	insert, alias := tx.Stmt(s.write.insertKey), tx.Stmt(s.write.insertAlias)
	type named struct {
		alias  string
		number int
	}
	var aliases []named
	for n := 1; n <= keys; n++ {
		r := testKey("key_" + string(benchAccess(-n)))
		r.Name, r.Current.AccessKey = fmt.Sprint("customer ", n), benchAccess(n)
		r.Scopes, r.Metadata, r.Revision = "hello:read hello:write", `{"plan":"gold"}`, 1
		if _, err := insert.Exec(keyValues(&r)...); err != nil {
			return err
		}
		aliases = append(aliases, named{string(r.ID), n}, named{string(r.Current.AccessKey), n})
	}
	slices.SortFunc(aliases, func(a, b named) int { // in order, or it takes minutes
		if a.alias < b.alias {
			return -1
		}
		return 1
	})
	for _, a := range aliases {
		if _, err := alias.Exec(a.alias, a.number); err != nil {
			return err
		}
	}
	return nil
}

// median times every single call, for the mean hides what a caller meets.
func median(b *testing.B, call func()) {
	b.ReportAllocs()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		call()
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

func BenchmarkStoreMiss(b *testing.B) {
	s, keys := openBench(b)
	ctx, cancel := context.WithCancel(b.Context()) // as a request's is
	defer cancel()
	median(b, func() {
		access := keystore.LookupID(benchAccess(1 + rand.IntN(keys)))
		if r, _, err := s.Lookup(ctx, access); err != nil || keystore.LookupID(r.Current.AccessKey) != access {
			b.Fatal(r, err)
		}
	})
}

// BenchmarkStoreAbsent is what a made-up access key would cost, if its MAC
// did not give it away first.
func BenchmarkStoreAbsent(b *testing.B) {
	s, _ := openBench(b)
	median(b, func() {
		if r, _, err := s.Lookup(b.Context(), "absent"); err != nil || r.ID != "" {
			b.Fatal(r, err)
		}
	})
}

// BenchmarkFloorRead is what SQLite takes for the same row by its rowid on one
// connection: no look-up through this driver can be faster.
func BenchmarkFloorRead(b *testing.B) {
	s, keys := openBench(b)
	conn, err := s.reads.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	read, err := conn.PrepareContext(b.Context(), "SELECT "+keySelection+" FROM keys WHERE number = ?")
	if err != nil {
		b.Fatal(err)
	}
	defer read.Close()
	median(b, func() {
		var r keystore.Record
		if err := read.QueryRow(1 + rand.IntN(keys)).Scan(keyTargets(&r)...); err != nil {
			b.Fatal(err)
		}
	})
}

// BenchmarkStoreWrite is one acknowledged change, disk included.
func BenchmarkStoreWrite(b *testing.B) {
	s, _ := openBench(b)
	r := testKey("key_bench_write")
	median(b, func() {
		_, err := s.Transact(b.Context(), func(tx keystore.Tx) error { r.Blocked = !r.Blocked; return tx.PutKey(&r) })
		if err != nil {
			b.Fatal(err)
		}
	})
	if _, err := s.Transact(b.Context(), func(tx keystore.Tx) error { return tx.DeleteKey(r.ID) }); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkQuickCheck is why a start checks all pages of small databases only.
func BenchmarkQuickCheck(b *testing.B) {
	s, _ := openBench(b)
	for b.Loop() {
		var ok string
		if err := s.reads.QueryRow("PRAGMA quick_check(1)").Scan(&ok); err != nil || ok != "ok" {
			b.Fatal(ok, err)
		}
	}
}

// BenchmarkOpen is a clean start, checks included.
func BenchmarkOpen(b *testing.B) {
	s, _ := openBench(b)
	path := s.Path()
	s.Close()
	for b.Loop() {
		s, err := Open(b.Context(), path, testGenesis)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
