//go:build unix

package postgres

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/warderhq/warder/keystore"
)

// A changeLog is what writers append to and a follower reads by position.
type changeLog interface {
	// append commits one change after dawdling in its transaction, and returns
	// its number.
	append(ctx context.Context, writer int, dawdle time.Duration) (int64, error)
	// after returns the numbers of the changes after a position.
	after(ctx context.Context, position int64) ([]int64, error)
}

// TestCommitOrder: a follower that reads while many nodes write meets every
// change that was acknowledged. The same follower of a log with numbers from a
// sequence does not, or this test could not tell.
func TestCommitOrder(t *testing.T) {
	const writers, each = 8, 25
	c := newDatabase(t)
	if missed := follow(t, newStoreLog(t, c, writers), writers, each); len(missed) != 0 {
		t.Errorf("the follower missed %v", missed)
	}
	missed := follow(t, newSequenceLog(t, c), writers, each)
	if len(missed) == 0 {
		t.Error("a follower of a sequence missed nothing: too little happened at the same time")
	}
	t.Logf("with a sequence, the follower missed %d of %d", len(missed), writers*each)
}

// follow returns the acknowledged changes that a follower did not meet.
func follow(t *testing.T, log changeLog, writers, each int) []int64 {
	t.Helper()
	var mu sync.Mutex
	var acknowledged []int64
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for range each {
				n, err := log.append(t.Context(), w, time.Duration(rand.Int64N(int64(3*time.Millisecond))))
				if err != nil {
					t.Errorf("appending: %v", err)
					return
				}
				mu.Lock()
				acknowledged = append(acknowledged, n)
				mu.Unlock()
			}
		})
	}
	written := make(chan struct{})
	go func() { writing.Wait(); close(written) }()
	met, position := map[int64]bool{}, int64(0)
	for last := false; ; {
		numbers, err := log.after(t.Context(), position)
		if err != nil {
			t.Fatalf("following: %v", err)
		}
		for _, n := range numbers {
			if n <= position || met[n] {
				t.Fatalf("%d follows %d", n, position)
			}
			met[n], position = true, n
		}
		if last && len(numbers) == 0 {
			break
		}
		select {
		case <-written:
			last = true // and once more, to the end
		default:
		}
	}
	return slices.DeleteFunc(acknowledged, func(n int64) bool { return met[n] })
}

// storeLog is the real one, with a store for each writer, as nodes have.
type storeLog struct {
	stores []*Store
	marks  map[int64]keystore.Position
}

func newStoreLog(t *testing.T, c Config, writers int) *storeLog {
	l := &storeLog{marks: map[int64]keystore.Position{}}
	for range writers {
		s := openAt(t, c)
		s.logKept = logKept
		l.stores = append(l.stores, s)
	}
	l.marks[0] = headOf(t, l.stores[0])
	return l
}

func (l *storeLog) append(ctx context.Context, writer int, dawdle time.Duration) (int64, error) {
	revision, err := l.stores[writer].Transact(ctx, func(tx keystore.Tx) error {
		r := testKey(fmt.Sprint("key_", rand.Uint64()))
		if err := tx.PutKey(&r); err != nil {
			return err
		}
		if _, err := tx.Document("demo", "d"); err != nil { // so that it is sent
			return err
		}
		time.Sleep(dawdle)
		return nil
	})
	return int64(revision), err
}

func (l *storeLog) after(ctx context.Context, position int64) (numbers []int64, err error) {
	batch, err := l.stores[0].Changes(ctx, l.marks[position], 7)
	for _, c := range batch.Changes {
		numbers = append(numbers, int64(c.Revision))
		l.marks[int64(c.Revision)] = c.Position
	}
	return numbers, err
}

// sequenceLog is what one would write without thinking.
type sequenceLog struct{ pool *pgxpool.Pool }

func newSequenceLog(t *testing.T, c Config) *sequenceLog {
	pool, err := pgxpool.New(t.Context(), c.URL.Reveal()+"&pool_max_conns=12")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if _, err := pool.Exec(t.Context(), "CREATE TABLE public.naive (revision bigserial PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	return &sequenceLog{pool}
}

func (l *sequenceLog) append(ctx context.Context, _ int, dawdle time.Duration) (n int64, err error) {
	tx, err := l.pool.Begin(ctx)
	if err != nil {
		return 0, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if err := tx.QueryRow(ctx, "INSERT INTO public.naive DEFAULT VALUES RETURNING revision").Scan(&n); err != nil {
		return 0, err
	}
	time.Sleep(dawdle)
	return n, tx.Commit(ctx)
}

func (l *sequenceLog) after(ctx context.Context, position int64) (numbers []int64, err error) {
	err = l.pool.QueryRow(ctx, "SELECT array_agg(revision ORDER BY revision) FROM public.naive WHERE revision > $1", position).Scan(&numbers)
	return numbers, err
}
