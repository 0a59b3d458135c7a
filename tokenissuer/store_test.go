package tokenissuer

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// memoryStore holds documents and their log, as a driver would.
type memoryStore struct {
	mu        sync.Mutex // guards all below
	log       []keystore.Change
	documents map[string]keystore.Document
	failing   error
	before    func() // called by Transact, outside of mu

	followers []*keystore.Follower
}

func newMemoryStore() *memoryStore {
	return &memoryStore{
		log:       []keystore.Change{{Position: keystore.Position{Revision: 1, Mark: 1}}},
		documents: map[string]keystore.Document{},
	}
}

type memoryTx struct {
	keystore.Tx // nil: nothing but documents is asked for
	store       *memoryStore
	put         []keystore.Document
	audited     []keystore.AuditEntry
	deleted     []keystore.Document
}

// operator is on whose behalf the tests rotate.
var operator = keystore.Attribution{Actor: "local", Operation: "signing_keys.rotate"}

func (tx *memoryTx) AppendAudit(e *keystore.AuditEntry) error {
	tx.audited = append(tx.audited, *e)
	return nil
}

func (tx *memoryTx) Document(kind keystore.Kind, name string) (keystore.Document, error) {
	d := tx.store.documents[string(kind)+"/"+name]
	d.Body = slices.Clone(d.Body)
	return d, nil
}

func (tx *memoryTx) PutDocument(d *keystore.Document) error {
	tx.put = append(tx.put, *d)
	return nil
}

func (tx *memoryTx) DeleteDocument(kind keystore.Kind, name string) error {
	if d, ok := tx.store.documents[string(kind)+"/"+name]; ok {
		tx.deleted = append(tx.deleted, d)
	}
	return nil
}

func (s *memoryStore) Transact(_ context.Context, fn func(keystore.Tx) error) (keystore.Revision, error) {
	if s.before != nil {
		s.before()
	}
	revision, err := s.transact(fn)
	for _, f := range s.followers {
		f.Wake()
	}
	return revision, err
}

func (s *memoryStore) transact(fn func(keystore.Tx) error) (keystore.Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return 0, s.failing
	}
	for range 2 { // the contract: fn may run more than once
		tx := &memoryTx{store: s}
		if err := fn(tx); err != nil {
			return 0, err
		}
		if s.before == nil || len(tx.put) == 0 {
			s.commit(tx)
			break
		}
		s.before = nil
	}
	return s.log[len(s.log)-1].Revision, nil
}

func (s *memoryStore) commit(tx *memoryTx) {
	for _, d := range tx.put {
		d.Revision = s.append(d)
		s.documents[string(d.Kind)+"/"+d.Name] = d
		s.log[len(s.log)-1].Document = &d // as long as nothing newer is known
	}
	for _, d := range tx.deleted {
		s.append(d)
		delete(s.documents, string(d.Kind)+"/"+d.Name)
	}
}

func (s *memoryStore) append(d keystore.Document) keystore.Revision {
	next := s.log[len(s.log)-1].Revision + 1
	at := keystore.Position{Revision: next, Mark: keystore.Mark(next)}
	s.log = append(s.log, keystore.Change{Position: at, Kind: d.Kind, Name: d.Name})
	return next
}

func (s *memoryStore) Changes(_ context.Context, after keystore.Position, _ int) (keystore.Batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := keystore.Batch{Head: s.log[len(s.log)-1].Position}
	for _, c := range s.log {
		if c.Revision > after.Revision {
			c.Document = nil
			if d, ok := s.documents[string(c.Kind)+"/"+c.Name]; ok {
				c.Document = &d
			}
			batch.Changes = append(batch.Changes, c)
		}
	}
	return batch, nil
}

func (s *memoryStore) Snapshot(context.Context) (keystore.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snapshot := keystore.Snapshot{Head: s.log[len(s.log)-1].Position}
	for _, d := range s.documents {
		snapshot.Documents = append(snapshot.Documents, d)
	}
	return snapshot, nil
}

func (s *memoryStore) ringRevision() keystore.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.documents[string(keystore.KindSigningRing)+"/"+ringDocument].Revision
}

// node is one running sidecar over a store.
type node struct {
	store    *memoryStore
	keyring  *Keyring
	follower *keystore.Follower
	rotation *Rotation
	switched []string // kids, as the hook was told
}

type nodeOptions struct {
	algorithm Algorithm
	memo      int64
	now       time.Time
}

// newNode starts a node without its rotation loop. The follower ends with ctx.
func newNode(t testing.TB, ctx context.Context, store *memoryStore, secret keystore.StoreSecret, o nodeOptions) *node {
	t.Helper()
	n := &node{store: store}
	var err error
	n.keyring, err = NewKeyring(KeyringConfig{
		Secret: secret, MemoBytes: o.memo, Rotated: func(kid string) { n.switched = append(n.switched, kid) },
	})
	if err != nil {
		t.Fatal(err)
	}
	n.follower = keystore.NewFollower(keystore.FollowerConfig{
		Store: store, Lease: new(keystore.Lease), Failed: func(err error) { t.Log("follower:", err) }, Appliers: []keystore.Applier{n.keyring},
	})
	store.followers = append(store.followers, n.follower)
	n.rotation = NewRotation(RotationConfig{
		Keyring: n.keyring, Store: store, Follower: n.follower, Failed: func(err error) { t.Error("rotation:", err) },
	})
	if o.algorithm != AlgorithmUnknown {
		n.rotation.SetAlgorithm(o.algorithm)
	}
	if err := n.rotation.Ensure(ctx, o.now); err != nil {
		t.Fatal(err)
	}
	if err := n.follower.Start(ctx); err != nil {
		t.Fatal(err)
	}
	go n.follower.Run(ctx)
	return n
}

const testIssuer = "http://localhost:8080"

func newTestNode(t testing.TB, o nodeOptions) *node {
	t.Helper()
	if o.now.IsZero() {
		o.now = time.Now()
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return newNode(t, ctx, newMemoryStore(), keystore.NewStoreSecret(), o)
}

func (n *node) issuer(t testing.TB, cfg IssuerConfig) *Issuer {
	t.Helper()
	cfg.Keyring = n.keyring
	if cfg.URL == "" {
		cfg.URL = testIssuer
	}
	i, err := NewIssuer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// revocations returns a new one over the node's store, without its loop.
func (n *node) revocations(t testing.TB, limit int) *Revocations {
	t.Helper()
	return NewRevocations(RevocationsConfig{
		Keyring: n.keyring, Store: n.store, Follower: n.follower, Limit: limit,
		Failed: func(err error) { t.Error("revocations:", err) },
	})
}

func (n *node) info(t testing.TB) RingInfo {
	t.Helper()
	info, err := n.keyring.Info()
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// testPrincipal is a caller who proved the current secret of a key.
func testPrincipal(scopes keystore.Scopes) keystore.Principal {
	rec := &keystore.Record{
		ID: "key_5xtzqv7bpa2kynqk4vxh3zj6aq", Number: 7, Organization: "default", Name: "demo", Type: keystore.TypeStandard,
		Current: keystore.Pair{Generation: 3, AccessKey: "3fQx8vLm2TzRk9YpWc1Hd7"},
		Scopes:  scopes,
	}
	return keystore.Principal{Record: rec, Generation: 3, Kind: keystore.CredentialKey, Scopes: scopes}
}

func mint(t testing.TB, i *Issuer, p keystore.Principal, now time.Time) string {
	t.Helper()
	m, err := i.Mint(p, p.Scopes, now)
	if err != nil {
		t.Fatal(err)
	}
	return m.Token.Reveal()
}

func wantError(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
