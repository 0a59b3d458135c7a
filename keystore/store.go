package keystore

import (
	"context"
	"io"
	"time"
)

// Store is what a driver implements. storetest holds its contract as a test
// suite; a driver is right when it passes that suite unchanged.
//
// Every write goes through Transact and appears in the log in commit order,
// one row with its revision and mark for each object changed, in the same
// transaction. An acknowledged write survives a crash; an unacknowledged one
// is there whole or not at all. A failure of the store itself is reported as
// ErrUnavailable; damage as ErrCorrupt.
type Store interface {
	Records
	Feed
	Transactor
	Snapshotter
	AuditLog
	UsageLog
	Close() error
}

// Records reads keys.
type Records interface {
	// Lookup returns the record that id names and the revision of the store
	// in the same snapshot. Absent is the zero Record and no error.
	Lookup(ctx context.Context, id LookupID) (Record, Revision, error)
	// List returns keys in the order of their numbers.
	List(ctx context.Context, q Query) (Page, error)
	// Count returns how many keys q selects, its place and limit aside.
	Count(ctx context.Context, q Query) (int, error)
}

// Query selects keys. Zero fields do not restrict.
type Query struct {
	Organization string
	Name         string
	Type         Type
	State        State
	Now          time.Time // at which State is derived
	Permission   string    // the id of one that the key refers to
	Imported     bool      // only keys that an imported credential finds

	// The page: the first Limit (at least 1) keys after After, or, with
	// Before and no After, the last ones before it. Both are exclusive.
	After  Number
	Before Number
	Limit  int
}

// Page is a part of a list. More says that keys beyond the last one match; of
// a page before another, that keys before the first one do.
type Page struct {
	Records []Record
	More    bool
}

// Feed is the ordered log of changes of every kind.
type Feed interface {
	// Changes returns, from one snapshot, at most limit changes after the
	// given position, and the head. ErrPositionLost if the log does not hold
	// exactly this position any more.
	Changes(ctx context.Context, after Position, limit int) (Batch, error)
}

// Copier copies the whole store while it is used. A store that has tools of
// its own for this is none.
type Copier interface {
	// Copy begins a copy of the store as of now. Reading it returns its bytes;
	// io.EOF says that they are all there. It holds up nobody, but has to be
	// closed: what others write meanwhile piles up beside it. One copy at a
	// time; another one waits for it.
	Copy(ctx context.Context) (io.ReadCloser, error)
}

// Position is a place in the log. Every store has a head: creating it is its
// first change.
type Position struct {
	Revision Revision
	Mark     Mark
}

// Batch is a piece of the log with the current values of what changed, all
// true as of Head, which may lie beyond the last of Changes.
type Batch struct {
	Changes []Change
	Head    Position
}

// Kind says what a change or a document is.
type Kind string

// The kinds so far. A node ignores kinds that it does not know.
const (
	KindKey          Kind = "key"
	KindOrganization Kind = "organization"
	KindSigningRing  Kind = "signing_ring"
	KindPermission   Kind = "permission"
	KindSettings     Kind = "settings"
	KindRevokedToken Kind = "revoked_token"
	KindStore        Kind = "store" // all of it: it was restored from a backup
)

// Change is one row of the log.
type Change struct {
	Position
	Kind    Kind
	Name    string     // KeyID, organization slug, or document name
	Aliases []LookupID // of a key: those that appeared or disappeared

	// The object's value as of the batch's head; the one of its kind is set,
	// none if the object is gone.
	Key          *Record
	Organization *Organization
	Document     *Document
}

// Snapshotter reads all but the keys.
type Snapshotter interface {
	Snapshot(ctx context.Context) (Snapshot, error)
}

// Snapshot is everything but the keys, and the head, as of one moment.
type Snapshot struct {
	Head          Position
	Organizations []Organization
	Documents     []Document
}

// Document is a small named object whose body only its owner understands,
// such as the sealed signing ring.
type Document struct {
	Kind     Kind
	Name     string
	Body     []byte
	Revision Revision // of the last change; zero: does not exist
}

// Transactor writes.
type Transactor interface {
	// Transact runs fn with the store's only writer position and commits what
	// it put if it returns nil; otherwise nothing has happened and fn's error
	// is returned as it is. It returns the last revision written, or the head
	// if fn wrote nothing. fn may run more than once. A log that lacks what
	// Changes or Snapshot have shown of it is not written: ErrUnavailable
	// until they have shown what took its place.
	Transact(ctx context.Context, fn func(Tx) error) (Revision, error)
}

// Tx is an open write transaction; it reads its own writes.
type Tx interface {
	KeyTx
	ListTx
	OrganizationTx
	DocumentTx
	ReplyTx
	AuditTx
}

// KeyTx reads and writes keys.
type KeyTx interface {
	// Key returns the record; ErrKeyNotFound.
	Key(id KeyID) (Record, error)
	// PutKey inserts a record without a Number, giving it one, or replaces
	// the stored one, and sets its Revision. A record equal to the stored one
	// is not written. ErrNameTaken.
	PutKey(r *Record) error
	// DeleteKey removes the record; ErrKeyNotFound. Its number and access
	// keys are never given again.
	DeleteKey(id KeyID) error
}

// ListTx finds keys as the transaction sees them.
type ListTx interface {
	// Keys is Records.List.
	Keys(q Query) (Page, error)
	// KeysFoundBy returns the records that the ids name, each once, in no
	// certain order. An id that names none is left out.
	KeysFoundBy(ids []LookupID) ([]Record, error)
}

// OrganizationTx reads and writes organizations.
type OrganizationTx interface {
	// Organization returns the organization; ErrOrganizationNotFound.
	Organization(slug string) (Organization, error)
	// PutOrganization inserts one without a Number or replaces the stored
	// one, and sets its Revision. One equal to the stored one is not written.
	// ErrOrganizationExists on insertion.
	PutOrganization(o *Organization) error
	// DeleteOrganization removes one that owns no key any more;
	// ErrOrganizationNotFound, ErrOrganizationInUse.
	DeleteOrganization(slug string) error
}

// DocumentTx reads and writes documents.
type DocumentTx interface {
	// Document returns the document, or a Document of Revision zero.
	Document(kind Kind, name string) (Document, error)
	// Documents returns all of a kind, in the order of their names.
	Documents(kind Kind) ([]Document, error)
	// PutDocument inserts or replaces it and sets its Revision.
	PutDocument(d *Document) error
	// DeleteDocument removes it; one that is not there is left so.
	DeleteDocument(kind Kind, name string) error
}

// ReplyTx keeps the answers to idempotent calls. They are no part of the log.
type ReplyTx interface {
	// Reply returns the reply kept under id; false if there is none.
	Reply(id ReplyID) (Reply, bool, error)
	// PutReply keeps a reply, and lets go what is overdue at r.Created: the
	// sealed answers older than ReplaySecretLife, and whole replies older than
	// ReplayLife.
	PutReply(r Reply) error
}

// AuditTx writes the audit log, which is no part of the log of changes and
// which nothing ever changes or removes.
type AuditTx interface {
	// AppendAudit adds an entry and sets its Number.
	AppendAudit(e *AuditEntry) error
}

// AuditLog reads the audit log.
type AuditLog interface {
	// Audit returns entries, the latest first.
	Audit(ctx context.Context, q AuditQuery) (AuditPage, error)
}

// UsageLog keeps how often keys were used. It is no part of the log of
// changes, and no answer to a request waits for it.
type UsageLog interface {
	// AddUsage adds counts and moves last uses forward, whole or not at all.
	AddUsage(ctx context.Context, batch UsageBatch) error
	// Usage returns sums; see UsageQuery.
	Usage(ctx context.Context, q UsageQuery) ([]UsageRow, error)
	// LastUsed returns when each generation of the keys was last used.
	LastUsed(ctx context.Context, keys []KeyID) ([]LastUse, error)
}

// ReplyID is a digest over caller, route and Idempotency-Key.
type ReplyID [32]byte

// Reply is a kept answer.
type Reply struct {
	ID      ReplyID
	Request [32]byte // digest of the body that was answered
	Key     KeyID    // the key that the call made or changed
	Sealed  []byte   // the answer, openable only with the Idempotency-Key itself
	Created Instant
}

// How long an idempotent call is answered again with its secret, and how long
// it is remembered at all.
const (
	ReplaySecretLife = 10 * time.Minute
	ReplayLife       = 24 * time.Hour
)

// Genesis returns the store secret of a new store, sealed. A driver calls it
// inside the transaction of its first migration, and never again.
type Genesis func() (SealedSecret, error)

// SecretRow is the access to the store's own sealed secret, outside of log
// and transactions: needed before anything else can be used.
type SecretRow interface {
	SealedSecret(ctx context.Context) (SealedSecret, error)
	// ReplaceSealedSecret swaps old for next; ErrStaleEdit if old is not what
	// the store holds.
	ReplaceSealedSecret(ctx context.Context, old, next SealedSecret) error
}
