//go:build unix

package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

// openBench opens a store of WARDER_BENCH_KEYS keys, 100,000 unless set, on a
// server that syncs every commit.
func openBench(b *testing.B) (*Store, int) {
	b.Helper()
	keys := 100_000
	if text := os.Getenv("WARDER_BENCH_KEYS"); text != "" {
		var err error
		if keys, err = strconv.Atoi(text); err != nil {
			b.Fatal(err)
		}
	}
	server := postgrestest.Start(b, postgrestest.Options{Settings: []string{"shared_buffers=512MB"}})
	c := Config{URL: keystore.Secret(server.Database())}
	s, err := Open(b.Context(), c, testGenesis)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	operator := session(b, c)
	execute(b, operator, `INSERT INTO keys SELECT i, 'key_' || i, 'default', 'customer ' || i, 1, 1, md5(i::text), sha256(i::text::bytea), 0, '', '', 0, 1, 0,
		false, false, 'hello:read hello:write', '', '', '', '{"plan":"gold"}', 1 FROM generate_series(1, $1::bigint) AS i`, keys)
	execute(b, operator, "INSERT INTO aliases SELECT id, number FROM keys UNION ALL SELECT current_access_key, number FROM keys")
	execute(b, operator, "UPDATE head SET keys = $1", keys)
	execute(b, operator, "VACUUM ANALYZE")
	b.ResetTimer()
	return s, keys
}

// median times every single call, for the mean hides what a caller meets.
func median(b *testing.B, call func()) {
	b.ReportAllocs()
	for range 20 { // each connection prepares its statements once
		call()
	}
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

// BenchmarkStore sets what a call takes beside its floor: a statement that does
// nothing, on the same pool, and for changes one small commit.
func BenchmarkStore(b *testing.B) {
	s, keys := openBench(b)
	ctx := b.Context()
	must := func(err error) {
		if err != nil {
			b.Helper()
			b.Fatal(err)
		}
	}
	b.Run("FloorSelect1", func(b *testing.B) {
		median(b, func() {
			must(s.ask(ctx, s.lookups, "nothing", func(ctx context.Context, conn *pgx.Conn) error {
				return conn.QueryRow(ctx, "SELECT 1").Scan(new(int))
			}))
		})
	})
	b.Run("Lookup", func(b *testing.B) {
		median(b, func() {
			id := keystore.LookupID(fmt.Sprint("key_", 1+rand.IntN(keys)))
			r, _, err := s.Lookup(ctx, id)
			must(err)
			if r.ID != keystore.KeyID(id) {
				b.Fatal(r)
			}
		})
	})
	b.Run("LookupAbsent", func(b *testing.B) {
		median(b, func() { must(second(s.Lookup(ctx, "absent"))) })
	})
	head := headOf(b, s)
	b.Run("ChangesNone", func(b *testing.B) {
		median(b, func() {
			_, err := s.Changes(ctx, head, 1000)
			must(err)
		})
	})
	b.Run("Beat", func(b *testing.B) {
		median(b, func() { must(s.Beat(ctx, keystore.Node{ID: "bench", Applied: head, Bound: time.Minute})) })
	})
	b.Run("FloorCommit", func(b *testing.B) {
		_, err := s.pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS floor (n bigint); INSERT INTO floor VALUES (0)")
		must(err)
		median(b, func() {
			_, err := s.pool.Exec(ctx, "UPDATE floor SET n = n + 1")
			must(err)
		})
	})
	b.Run("Transact", func(b *testing.B) {
		median(b, func() {
			_, err := s.Transact(ctx, func(tx keystore.Tx) error {
				r, err := tx.Key("key_1")
				if err != nil {
					return err
				}
				r.Blocked = !r.Blocked
				if err := tx.PutKey(&r); err != nil {
					return err
				}
				return tx.AppendAudit(&keystore.AuditEntry{Actor: "local", Object: "key_1"})
			})
			must(err)
		})
	})
	first := headOf(b, s)
	change := func(n int) {
		_, err := s.Transact(ctx, func(tx keystore.Tx) error {
			for i := range n {
				r, err := tx.Key(keystore.KeyID(fmt.Sprint("key_", 1+i)))
				if err != nil {
					return err
				}
				r.Deactivated = !r.Deactivated
				if err := tx.PutKey(&r); err != nil {
					return err
				}
			}
			return nil
		})
		must(err)
	}
	for _, n := range []int{1, 1000} {
		change(n)
		b.Run("Changes"+strconv.Itoa(n), func(b *testing.B) {
			median(b, func() {
				batch, err := s.Changes(ctx, first, 1000)
				must(err)
				if len(batch.Changes) != n {
					b.Fatal(len(batch.Changes))
				}
			})
		})
		first = headOf(b, s)
	}
	b.Run("Roll50", func(b *testing.B) {
		for n := range 50 {
			must(s.Beat(ctx, keystore.Node{ID: keystore.NodeID(fmt.Sprint("node", n)), Applied: first, Bound: time.Minute}))
		}
		median(b, func() {
			_, err := s.Roll(ctx)
			must(err)
		})
	})
	b.Run("AddUsage5000", func(b *testing.B) {
		var batch keystore.UsageBatch
		for n := range 5000 {
			id := keystore.KeyID(fmt.Sprint("key_", n))
			batch.Counts = append(batch.Counts, keystore.UsageCount{Key: id, Organization: "default", Day: 20261122, Outcome: 1, Requests: 3})
			batch.Last = append(batch.Last, keystore.LastUse{Key: id, Generation: 1, At: keystore.Instant(n)})
		}
		for b.Loop() {
			must(s.AddUsage(ctx, batch))
		}
	})
}
