package keystore

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// faultStore is a Store in memory whose calls a test can hold up and fail.
type faultStore struct {
	AuditLog // neither is asked for
	UsageLog

	mu      sync.Mutex // guards all below
	hooks   hooks
	keys    map[KeyID]Record
	owners  map[LookupID]KeyID
	orgs    map[string]Organization
	docs    map[string]Document
	replies map[ReplyID]Reply
	log     []Change // without values
	audit   []AuditEntry
	number  Number
	lookups int
}

// hooks run outside of the store's lock, so they may block. An error is the
// call's.
type hooks struct {
	beforeLookup func(LookupID) error
	afterLookup  func(LookupID, Revision) error // the answer is read, not yet given
	changes      func(Position) error
	batch        func(Batch) Batch
	snapshot     func() error
}

func newFaultStore() *faultStore {
	s := &faultStore{
		keys: map[KeyID]Record{}, owners: map[LookupID]KeyID{}, docs: map[string]Document{}, replies: map[ReplyID]Reply{},
		orgs: map[string]Organization{DefaultOrganization: {Slug: DefaultOrganization, Number: 1}}, number: 1,
	}
	s.append(KindOrganization, DefaultOrganization, nil)
	return s
}

// hook changes what the store does from now on.
func (s *faultStore) hook(set func(*hooks)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set(&s.hooks)
}

func (s *faultStore) hooked() hooks {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hooks
}

func (s *faultStore) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookups
}

// put stores a record, new or changed, and returns the revision.
func (s *faultStore) put(t testing.TB, r *Record) Revision {
	t.Helper()
	revision, err := s.Transact(context.Background(), func(tx Tx) error { return tx.PutKey(r) })
	if err != nil {
		t.Fatalf("putting %s: %v", r.ID, err)
	}
	return revision
}

func (s *faultStore) remove(t testing.TB, id KeyID) Revision {
	t.Helper()
	revision, err := s.Transact(context.Background(), func(tx Tx) error { return tx.DeleteKey(id) })
	if err != nil {
		t.Fatalf("deleting %s: %v", id, err)
	}
	return revision
}

// restore makes the store another one: the log up to revision has new marks,
// the rest of it is gone, and so are the keys changed in it.
func (s *faultStore) restore(revision Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = slices.Clone(s.log[:revision])
	for i := range s.log {
		s.log[i].Mark++
	}
	for id, r := range s.keys {
		if r.Revision > revision {
			s.drop(id)
		}
	}
}

func (s *faultStore) Lookup(ctx context.Context, id LookupID) (Record, Revision, error) {
	h := s.hooked()
	if h.beforeLookup != nil {
		if err := h.beforeLookup(id); err != nil {
			return Record{}, 0, err
		}
	}
	s.mu.Lock()
	s.lookups++
	rec, at := s.keys[s.owner(id)], s.head().Revision
	s.mu.Unlock()
	if h.afterLookup != nil {
		if err := h.afterLookup(id, at); err != nil {
			return Record{}, 0, err
		}
	}
	return rec, at, ctx.Err()
}

func (s *faultStore) owner(id LookupID) KeyID {
	if isKeyID(id) {
		return KeyID(id)
	}
	return s.owners[id]
}

func (s *faultStore) List(_ context.Context, q Query) (Page, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Page{Records: s.selected(q)}, nil
}

func (s *faultStore) Count(_ context.Context, q Query) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q.After = 0
	return len(s.selected(q)), nil
}

// selected knows no pages: it returns all there are after q.After.
func (s *faultStore) selected(q Query) (out []Record) {
	for _, r := range slices.SortedFunc(maps.Values(s.keys), func(a, b Record) int { return cmp.Compare(a.Number, b.Number) }) {
		if r.Number > q.After && (q.Organization == "" || q.Organization == r.Organization) &&
			(q.Name == "" || q.Name == r.Name) && (q.Type == TypeUnknown || q.Type == r.Type) &&
			(q.State == StateUnknown || q.State == r.State(q.Now)) &&
			(q.Permission == "" || slices.Contains(r.Permissions.List(), q.Permission)) &&
			(!q.Imported || slices.ContainsFunc(r.Aliases(), IsImported)) {
			out = append(out, r)
		}
	}
	return out
}

func (s *faultStore) Changes(_ context.Context, after Position, limit int) (Batch, error) {
	h := s.hooked()
	if h.changes != nil {
		if err := h.changes(after); err != nil {
			return Batch{}, err
		}
	}
	batch, err := s.batch(after, limit)
	if h.batch != nil && err == nil {
		batch = h.batch(batch)
	}
	return batch, err
}

func (s *faultStore) batch(after Position, limit int) (Batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := int(after.Revision)
	if at < 1 || at > len(s.log) || s.log[at-1].Position != after {
		return Batch{}, ErrPositionLost
	}
	b := Batch{Head: s.head(), Changes: slices.Clone(s.log[at:min(at+limit, len(s.log))])}
	for i := range b.Changes {
		s.fillIn(&b.Changes[i])
	}
	return b, nil
}

func (s *faultStore) fillIn(c *Change) {
	switch c.Kind {
	case KindKey:
		if r, ok := s.keys[KeyID(c.Name)]; ok {
			c.Key = &r
		}
	case KindOrganization:
		if o, ok := s.orgs[c.Name]; ok {
			c.Organization = &o
		}
	default:
		if d, ok := s.docs[c.Name]; ok {
			c.Document = &d
		}
	}
}

func (s *faultStore) Snapshot(context.Context) (Snapshot, error) {
	if h := s.hooked(); h.snapshot != nil {
		if err := h.snapshot(); err != nil {
			return Snapshot{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Snapshot{
		Head:          s.head(),
		Organizations: slices.Collect(maps.Values(s.orgs)),
		Documents:     slices.Collect(maps.Values(s.docs)),
	}, nil
}

func (s *faultStore) Close() error { return nil }

// Transact undoes step by step what a failed fn has done.
func (s *faultStore) Transact(_ context.Context, fn func(Tx) error) (Revision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	tx := &faultTx{faultStore: s}
	if err := fn(tx); err != nil {
		for _, undo := range slices.Backward(tx.undo) {
			undo()
		}
		return 0, err
	}
	return s.head().Revision, nil
}

func (s *faultStore) head() Position { return s.log[len(s.log)-1].Position }

func (s *faultStore) append(kind Kind, name string, aliases []LookupID) Revision {
	at := Position{Revision: Revision(len(s.log) + 1), Mark: Mark(rand.Uint64())}
	s.log = append(s.log, Change{Position: at, Kind: kind, Name: name, Aliases: aliases})
	return at.Revision
}

// set makes r the stored record and gives every alias its owner.
func (s *faultStore) set(r Record) {
	s.drop(r.ID)
	s.keys[r.ID] = r
	for _, alias := range r.Aliases() {
		s.owners[alias] = r.ID
	}
}

func (s *faultStore) drop(id KeyID) {
	old := s.keys[id]
	for _, alias := range old.Aliases() {
		delete(s.owners, alias)
	}
	delete(s.keys, id)
}

type faultTx struct {
	*faultStore
	undo []func()
}

// logged appends to the log and remembers how to take it back.
func (t *faultTx) logged(kind Kind, name string, aliases []LookupID, undo func()) Revision {
	before := t.log
	t.undo = append(t.undo, func() { t.log = before; undo() })
	return t.append(kind, name, aliases)
}

func (t *faultTx) Key(id KeyID) (Record, error) {
	r, ok := t.keys[id]
	if !ok {
		return Record{}, ErrKeyNotFound
	}
	return r, nil
}

func (t *faultTx) PutKey(r *Record) error {
	before := t.keys[r.ID]
	same := *r
	same.Revision = before.Revision
	if same == before {
		*r = before
		return nil
	}
	for _, other := range t.keys {
		if r.Name != "" && other.Name == r.Name && other.Organization == r.Organization && other.ID != r.ID {
			return ErrNameTaken
		}
	}
	if r.Number == 0 {
		t.number++
		r.Number = t.number
	}
	r.Revision = t.logged(KindKey, string(r.ID), ChangedAliases(&before, r), func() {
		t.drop(r.ID)
		if before.ID != "" {
			t.set(before)
		}
	})
	t.set(*r)
	return nil
}

func (t *faultTx) DeleteKey(id KeyID) error {
	r, err := t.Key(id)
	if err != nil {
		return err
	}
	t.logged(KindKey, string(id), ChangedAliases(&r, &Record{}), func() { t.set(r) })
	t.drop(id)
	return nil
}

func (t *faultTx) Keys(q Query) (Page, error) { return Page{Records: t.selected(q)}, nil }

func (t *faultTx) KeysFoundBy(ids []LookupID) (found []Record, err error) {
	for _, id := range ids {
		if r, known := t.keys[t.owner(id)]; known && !slices.Contains(found, r) {
			found = append(found, r)
		}
	}
	return found, nil
}

func (t *faultTx) Organization(slug string) (Organization, error) {
	o, ok := t.orgs[slug]
	if !ok {
		return Organization{}, ErrOrganizationNotFound
	}
	return o, nil
}

func (t *faultTx) PutOrganization(o *Organization) error {
	before, existed := t.orgs[o.Slug]
	if existed && o.Number == 0 {
		return ErrOrganizationExists
	}
	if o.Number == 0 {
		t.number++
		o.Number = t.number
	}
	o.Revision = t.logged(KindOrganization, o.Slug, nil, func() {
		delete(t.orgs, o.Slug)
		if existed {
			t.orgs[o.Slug] = before
		}
	})
	t.orgs[o.Slug] = *o
	return nil
}

func (t *faultTx) DeleteOrganization(slug string) error {
	o, err := t.Organization(slug)
	if err != nil {
		return err
	}
	if len(t.selected(Query{Organization: slug})) != 0 {
		return ErrOrganizationInUse
	}
	t.logged(KindOrganization, slug, nil, func() { t.orgs[slug] = o })
	delete(t.orgs, slug)
	return nil
}

func (t *faultTx) Document(kind Kind, name string) (Document, error) {
	return t.docs[name], nil
}

func (t *faultTx) PutDocument(d *Document) error {
	before := t.docs[d.Name]
	d.Revision = t.logged(d.Kind, d.Name, nil, func() {
		delete(t.docs, d.Name)
		if before.Revision != 0 {
			t.docs[d.Name] = before
		}
	})
	t.docs[d.Name] = *d
	return nil
}

func (t *faultTx) Documents(kind Kind) (out []Document, err error) {
	for _, name := range slices.Sorted(maps.Keys(t.docs)) {
		if t.docs[name].Kind == kind {
			out = append(out, t.docs[name])
		}
	}
	return out, nil
}

func (t *faultTx) DeleteDocument(kind Kind, name string) error {
	before, existed := t.docs[name]
	if !existed {
		return nil
	}
	t.logged(kind, name, nil, func() { t.docs[name] = before })
	delete(t.docs, name)
	return nil
}

func (t *faultTx) AppendAudit(e *AuditEntry) error {
	before := t.audit
	t.undo = append(t.undo, func() { t.audit = before })
	e.Number = Number(len(before) + 1)
	t.audit = append(before, *e)
	return nil
}

func (t *faultTx) Reply(id ReplyID) (Reply, bool, error) {
	r, ok := t.replies[id]
	return r, ok, nil
}

func (t *faultTx) PutReply(r Reply) error {
	before, existed := t.replies[r.ID]
	t.undo = append(t.undo, func() {
		delete(t.replies, r.ID)
		if existed {
			t.replies[r.ID] = before
		}
	})
	t.replies[r.ID] = r
	return nil
}

// node is what one sidecar has of the core, over a faultStore.
type node struct {
	store       *faultStore
	lease       *Lease
	view        *View
	directory   Directory
	rulebook    Rulebook
	settings    Settings
	presence    *Presence // nil: of the only writer
	registry    *faultRegistry
	follower    *Follower
	credentials *Credentials
	service     *Service
	auth        *Authenticator
	tokens      provenTokens
	failures    chan error // of rounds; the first few
}

// newNode returns a started node whose follower only moves when a test calls
// catchUp or run. interval is that of due rounds; zero: the only writer.
func newNode(t testing.TB, size int, interval time.Duration) *node {
	t.Helper()
	registry := newFaultRegistry()
	var presence *Presence
	if interval > 0 {
		presence = NewPresence(registry, Node{ID: NewNodeID()})
		if _, err := presence.Promise(context.Background(), Freshness{MaxStaleness: roundsPerLease * interval}); err != nil {
			t.Fatalf("promising: %v", err)
		}
	}
	n := buildNode(registry.store, size, presence)
	n.registry = registry
	n.start(t)
	return n
}

// buildNode returns a node that was not started.
func buildNode(store *faultStore, size int, presence *Presence) *node {
	n := &node{store: store, presence: presence, lease: new(Lease), tokens: provenTokens{}, failures: make(chan error, 16)}
	secret := NewStoreSecret()
	n.credentials = NewCredentials(secret)
	n.view = NewView(n.store, n.lease, size)
	n.follower = NewFollower(FollowerConfig{
		Store: n.store, Lease: n.lease, Presence: presence, Failed: n.failed,
		Appliers: []Applier{n.view, &n.directory, &n.rulebook, &n.settings},
	})
	n.service = &Service{
		Store: n.store, Follower: n.follower, Credentials: n.credentials, Replays: NewReplays(secret),
		Meters: n.view.Meters(), Directory: &n.directory, Rulebook: &n.rulebook,
		Policy: Policy{Prefix: DefaultPrefix, Grace: DefaultGrace},
	}
	n.auth = &Authenticator{View: n.view, Credentials: n.credentials, Tokens: n.tokens, Freshness: Freshness{MaxStaleness: time.Second}}
	return n
}

func (n *node) start(t testing.TB) {
	t.Helper()
	if err := n.follower.Start(context.Background()); err != nil {
		t.Fatalf("starting the follower: %v", err)
	}
}

func (n *node) failed(err error) {
	select {
	case n.failures <- err:
	default:
	}
}

// catchUp applies all there is.
func (n *node) catchUp(t testing.TB) {
	t.Helper()
	if err := n.follower.round(context.Background(), reasonDue); err != nil {
		t.Fatalf("following: %v", err)
	}
}

// run lets the follower follow by itself until the test, or stop, ends it.
func (n *node) run(t testing.TB) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.follower.Run(ctx)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// newKey returns a record that was never stored, and its secret.
func (n *node) newKey(name string) (Record, Secret) {
	secret := n.credentials.NewSecretKey()
	return Record{
		ID: NewKeyID(), Organization: DefaultOrganization, Name: name, Type: TypeStandard, Created: 1,
		Current: Pair{Generation: 1, AccessKey: n.credentials.NewAccessKey(), Digest: n.credentials.Digest(secret.Reveal())},
	}, secret
}

// storedKey returns a record that the store holds and the node has applied.
func (n *node) storedKey(t testing.TB, name string) (Record, Secret) {
	t.Helper()
	rec, secret := n.newKey(name)
	n.store.put(t, &rec)
	n.catchUp(t)
	return rec, secret
}

// see returns what the view says of id now.
func (n *node) see(t testing.TB, id LookupID) *Record {
	t.Helper()
	rec, err := n.view.Record(context.Background(), id, time.Now())
	if err != nil {
		t.Fatalf("reading %s: %v", id, err)
	}
	return rec
}

// warm returns what the view says of id, which it must know.
func (n *node) warm(t testing.TB, id LookupID) *Record {
	t.Helper()
	rec, known := n.view.Cached(id, time.Now())
	if !known {
		t.Fatalf("the view does not know %s", id)
	}
	return rec
}

// authenticate presents rec's API key.
func (n *node) authenticate(rec *Record, secret Secret, now time.Time) (Principal, error) {
	p, err := ParseAuthorization(DefaultPrefix, "Token "+FormatAPIKey(DefaultPrefix, rec.Current.AccessKey, secret).Reveal())
	if err != nil {
		return Principal{}, err
	}
	return n.auth.Authenticate(context.Background(), p, now)
}

// provenTokens holds the tokens that it proves.
type provenTokens map[string]TokenClaims

func (v provenTokens) Verify(token string, _ time.Time) (TokenClaims, error) {
	claims, ok := v[token]
	if !ok {
		return TokenClaims{}, ErrInvalid
	}
	return claims, nil
}

var errFault = errors.New("fault")
