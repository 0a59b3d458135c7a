package keystore_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

// BenchmarkKeyHit is a request's way from the header to the decision, with
// its key in the view.
func BenchmarkKeyHit(b *testing.B) {
	n := newSQLiteNode(b, 1024)
	hit(b, n, "Token "+n.create(b, keystore.NewKey{Name: "hot"}).APIKey.Reveal())
}

func hit(b *testing.B, n *sqliteNode, header string) {
	b.Helper()
	ctx := context.Background()
	now := time.Now() // once a request; many things in it need the time
	decide(b, n, ctx, header, now)
	loads := n.view.Loads()
	b.ReportAllocs()
	for b.Loop() {
		decide(b, n, ctx, header, now)
	}
	if n.view.Loads() != loads {
		b.Fatal("a hit asked the store")
	}
}

func decide(b *testing.B, n *sqliteNode, ctx context.Context, header string, now time.Time) {
	p, err := keystore.ParseAuthorization(keystore.DefaultPrefix, header)
	if err == nil {
		_, err = n.auth.Authenticate(ctx, p, now)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkFloorDigest is the part of BenchmarkKeyHit that no code of ours
// can save: one keyed digest with pooled state.
func BenchmarkFloorDigest(b *testing.B) {
	pool := sync.Pool{New: func() any { return hmac.New(sha256.New, make([]byte, 32)) }}
	in, out := make([]byte, 43), make([]byte, 0, 32)
	b.ReportAllocs()
	for b.Loop() {
		mac := pool.Get().(hash.Hash)
		mac.Reset()
		mac.Write(in)
		out = mac.Sum(out[:0])
		pool.Put(mac)
	}
}

// BenchmarkKeyHitParallel is every processor on one hot key: compare -cpu 1,2.
func BenchmarkKeyHitParallel(b *testing.B) {
	n := newSQLiteNode(b, 1024)
	header := "Token " + n.create(b, keystore.NewKey{Name: "hot"}).APIKey.Reveal()
	ctx := context.Background()
	now := time.Now()
	decide(b, n, ctx, header, now)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			decide(b, n, ctx, header, now)
		}
	})
}

// BenchmarkTokenHit is an access token that was seen before.
func BenchmarkTokenHit(b *testing.B) {
	n := newSQLiteNode(b, 1024)
	issued := n.create(b, keystore.NewKey{Name: "hot", Scopes: []string{"hello:read"}})
	issuer := newIssuer(b, n)
	n.auth.Tokens = issuer
	principal, err := n.present(issued.APIKey, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	minted, err := issuer.Mint(principal, principal.Scopes, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	hit(b, n, "Bearer "+minted.Token.Reveal())
}

func newIssuer(b *testing.B, n *sqliteNode) *tokenissuer.Issuer {
	b.Helper()
	ctx := context.Background()
	keyring, err := tokenissuer.NewKeyring(tokenissuer.KeyringConfig{Secret: n.secret})
	if err != nil {
		b.Fatal(err)
	}
	rotation := tokenissuer.NewRotation(tokenissuer.RotationConfig{Keyring: keyring, Store: n.store, Follower: n.follower})
	if err := rotation.Ensure(ctx, time.Now()); err != nil {
		b.Fatal(err)
	}
	snapshot, err := n.store.Snapshot(ctx)
	if err != nil {
		b.Fatal(err)
	}
	if err := keyring.Reset(snapshot); err != nil {
		b.Fatal(err)
	}
	issuer, err := tokenissuer.NewIssuer(tokenissuer.IssuerConfig{Keyring: keyring, URL: "http://localhost:8080"})
	if err != nil {
		b.Fatal(err)
	}
	return issuer
}

// BenchmarkKeyHitFlat: a hit does not get dearer with the keys in the store.
func BenchmarkKeyHitFlat(b *testing.B) {
	for _, keys := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			n := newSQLiteNode(b, 512)
			fillStore(b, n, keys)
			hit(b, n, "Token "+n.create(b, keystore.NewKey{Name: "hot"}).APIKey.Reveal())
		})
	}
}

// fillStore puts cold keys beside the view, many to a transaction.
func fillStore(b *testing.B, n *sqliteNode, keys int) {
	b.Helper()
	const perTransaction = 10_000
	for made := 0; made < keys; made += perTransaction {
		_, err := n.store.Transact(context.Background(), func(tx keystore.Tx) error {
			for range min(perTransaction, keys-made) {
				if err := tx.PutKey(coldKey(n.credentials)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func coldKey(c *keystore.Credentials) *keystore.Record {
	return &keystore.Record{
		ID: keystore.NewKeyID(), Organization: keystore.DefaultOrganization, Type: keystore.TypeStandard,
		Current: keystore.Pair{Generation: 1, AccessKey: c.NewAccessKey(), Digest: keystore.Digest{1}},
		Created: keystore.InstantOf(time.Now()), Scopes: "hello:read", Metadata: `{"team":"blue"}`,
	}
}

// records is a store of one record for each id, made when asked for.
type records struct{ credentials *keystore.Credentials }

func (r records) Lookup(_ context.Context, id keystore.LookupID) (keystore.Record, keystore.Revision, error) {
	rec := coldKey(r.credentials)
	rec.ID = keystore.KeyID(id)
	return *rec, 1, nil
}

func (r records) List(context.Context, keystore.Query) (keystore.Page, error) {
	return keystore.Page{}, nil
}

func (r records) Count(context.Context, keystore.Query) (int, error) { return 0, nil }

// BenchmarkViewGC reports what the collector takes while requests leave 1 KB
// of garbage each, beside an empty view and a full one: nanoseconds of
// processor for a request, and the share of a processor if requests came at
// 10,000 a second.
func BenchmarkViewGC(b *testing.B) {
	for _, keys := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("records=%d", keys), func(b *testing.B) {
			view, ids := fullView(b, keys)
			before, requests := gcSeconds(), 0
			for b.Loop() {
				if _, known := view.Cached(ids[requests%len(ids)], time.Now()); !known {
					b.Fatal("the view lost a record")
				}
				garbage = make([]byte, 1024)
				requests++
			}
			spent := (gcSeconds() - before) / float64(requests)
			b.ReportMetric(1e9*spent, "gc-ns/op")
			b.ReportMetric(100*spent*10_000, "gc-%-at-10k/s")
		})
	}
}

var garbage []byte

func fullView(b *testing.B, keys int) (*keystore.View, []keystore.LookupID) {
	b.Helper()
	credentials := keystore.NewCredentials(keystore.NewStoreSecret())
	view := keystore.NewView(records{credentials}, new(keystore.Lease), 2*keys)
	ids := make([]keystore.LookupID, keys)
	for i := range ids {
		ids[i] = keystore.LookupID(keystore.NewKeyID())
		if _, err := view.Load(context.Background(), ids[i]); err != nil {
			b.Fatal(err)
		}
	}
	return view, ids
}

// gcSeconds is the processor time that the collector took from others: what
// it did on idle processors is left out.
func gcSeconds() float64 {
	samples := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}, {Name: "/cpu/classes/gc/mark/idle:cpu-seconds"}}
	runtime.GC() // the estimates are brought up to date by a cycle
	metrics.Read(samples)
	return samples[0].Value.Float64() - samples[1].Value.Float64()
}
