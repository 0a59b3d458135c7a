// Package tokenissuer mints and verifies access tokens (RFC 9068), keeps the
// ring of keys that sign them, and serves the OAuth endpoints around them as
// net/http handlers. It knows keystore and nothing above it.
//
// A Keyring and its Rotation belong to a store and outlive configurations. An
// Issuer and its Endpoints belong to one configuration and are cheap.
package tokenissuer

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Keyring holds the signing keys of one store in memory, the memo of the
// proofs made with them, and the tokens that were revoked all the same. It
// follows the store through the feed. Readers take no lock. Safe for
// concurrent use.
type Keyring struct {
	secret      keystore.StoreSecret
	memo        *memo
	rotated     func(kid string)
	propagation time.Duration

	current atomic.Pointer[snapshot] // replaced, never changed; nil: no ring is known
	revoked revokedSet

	mu    sync.Mutex    // guards moved
	moved chan struct{} // closed when current is replaced
}

// KeyringConfig is what a Keyring needs.
type KeyringConfig struct {
	Secret keystore.StoreSecret
	// MemoBytes bounds the memory of proofs. Zero is DefaultMemoBytes;
	// negative keeps none.
	MemoBytes int64
	// Propagation is how long a change may take to reach every node that
	// serves the JWKS, clocks included: a key is published for so much longer
	// before it signs. Zero with one node.
	Propagation time.Duration
	// Rotated, if not nil, is told when another key signs than before on this
	// node. It is called by the follower and must not block.
	Rotated func(kid string)
}

// NewKeyring returns a Keyring that knows no key yet.
func NewKeyring(cfg KeyringConfig) (*Keyring, error) {
	m, err := newMemo(cfg.MemoBytes)
	if err != nil {
		return nil, err
	}
	return &Keyring{
		secret: cfg.Secret, memo: m, rotated: cfg.Rotated, propagation: cfg.Propagation, moved: make(chan struct{}),
	}, nil
}

// errNoRing: this node does not know whom to trust. Not a denial.
var errNoRing = fmt.Errorf("no signing ring is known: %w", keystore.ErrUnavailable)

// snapshot is the ring as of one revision, prepared for readers.
type snapshot struct {
	revision keystore.Revision
	ring     ring            // public facts; the private keys only of the active one
	trusted  []*verifyingKey // all, in the order of the ring: the active one first
	active   signer
	jwks     []byte
	etag     string
}

// signer is the active key, ready to sign.
type signer struct {
	signingKey
	header string
}

// RingInfo is the ring as operators may see it.
type RingInfo struct {
	Interval  keystore.Days     `json:"interval_days"`
	RotatedAt time.Time         `json:"rotated_at"` // since when the active key signs
	RotatesAt time.Time         `json:"rotates_at"` // if nobody rotates before
	Awaited   time.Time         `json:"-"`          // since when only the next key's publication is waited for; zero: the countdown runs
	Revision  keystore.Revision `json:"revision"`
	Keys      []KeyInfo         `json:"keys"` // active, next, then retired, the latest first
}

// KeyInfo is one signing key as operators may see it.
type KeyInfo struct {
	KID         string    `json:"kid"`
	Algorithm   string    `json:"alg"`
	Role        string    `json:"role"` // next, active, retired
	Created     time.Time `json:"created_at"`
	Published   time.Time `json:"published_at"`          // since when the JWKS has it
	Activated   time.Time `json:"activated_at,omitzero"` // since when it signs, or signed
	Retired     time.Time `json:"retired_at,omitzero"`   // since when it does not sign any more
	ActivatesAt time.Time `json:"activates_at,omitzero"` // of next
	RetiresAt   time.Time `json:"retires_at,omitzero"`   // of active
	DropsAt     time.Time `json:"drops_at,omitzero"`     // of retired: until when it verifies
}

// Info describes the ring, without private material. ErrUnavailable while
// none is known.
func (k *Keyring) Info() (RingInfo, error) {
	s := k.current.Load()
	if s == nil {
		return RingInfo{}, errNoRing
	}
	due := s.ring.dueAt(k.propagation).Time()
	info := RingInfo{
		Interval: s.ring.interval, RotatedAt: s.ring.keys[0].activated.Time(), RotatesAt: due, Revision: s.revision,
	}
	if s.ring.rotateAt.Time().Before(due) {
		info.Awaited = s.ring.rotateAt.Time()
	}
	for _, key := range s.ring.keys {
		one := KeyInfo{
			KID: key.kid, Algorithm: key.alg.String(), Role: key.role.String(),
			Created: key.created.Time(), Published: key.published.Time(),
			Activated: key.activated.Time(), Retired: key.retired.Time(),
		}
		switch key.role {
		case RoleNext:
			one.ActivatesAt = due
		case RoleActive:
			one.RetiresAt = due
		case RoleRetired:
			one.DropsAt = key.dropAt().Time()
		}
		info.Keys = append(info.Keys, one)
	}
	return info, nil
}

// Reset implements keystore.Applier. A ring that does not open is an error,
// and nothing is trusted then.
func (k *Keyring) Reset(s keystore.Snapshot) error {
	if err := k.revoked.reset(s.Documents); err != nil {
		k.replace(nil) // fail closed, here too
		return err
	}
	for i := range s.Documents {
		if d := &s.Documents[i]; d.Kind == keystore.KindSigningRing && d.Name == ringDocument {
			return k.take(d)
		}
	}
	return k.take(nil)
}

// Apply implements keystore.Applier. Errors as Reset.
func (k *Keyring) Apply(c keystore.Change, _ keystore.Revision) error {
	switch {
	case c.Kind == keystore.KindRevokedToken:
		return k.revoked.apply(c.Name, c.Document)
	case c.Kind == keystore.KindSigningRing && c.Name == ringDocument:
		return k.take(c.Document)
	default:
		return nil
	}
}

// take trusts the document's keys and no others from now on.
func (k *Keyring) take(d *keystore.Document) error {
	if d == nil {
		k.replace(nil)
		return nil
	}
	next, err := newSnapshot(k.secret, d)
	if err != nil {
		k.replace(nil) // fail closed: what was trusted before may be what is distrusted now
		return err
	}
	before := k.replace(next)
	if k.rotated != nil && before != nil && before.active.kid != next.active.kid {
		k.rotated(next.active.kid)
	}
	return nil
}

func newSnapshot(secret keystore.StoreSecret, d *keystore.Document) (*snapshot, error) {
	r, err := openRing(secret, d.Body)
	if err != nil {
		return nil, err
	}
	s := &snapshot{revision: d.Revision, ring: r, trusted: make([]*verifyingKey, 0, len(r.keys))}
	for i := range r.keys {
		key, err := r.keys[i].verifying()
		if err != nil {
			return nil, err
		}
		if r.keys[i].role == RoleActive {
			s.active = signer{r.keys[i].signingKey, key.header}
		}
		r.keys[i].private = nil // whoever does not sign has no business with it
		s.trusted = append(s.trusted, key)
	}
	s.jwks, s.etag, err = encodeJWKS(s.trusted)
	return s, err
}

// by returns the trusted key whose tokens begin with this segment, or nil.
// Nearly always it is the first: to compare is cheaper than to hash.
func (s *snapshot) by(header string) *verifyingKey {
	for _, key := range s.trusted {
		if key.header == header {
			return key
		}
	}
	return nil
}

func (k *Keyring) replace(next *snapshot) (before *snapshot) {
	before = k.current.Swap(next)
	k.mu.Lock()
	defer k.mu.Unlock()
	close(k.moved)
	k.moved = make(chan struct{})
	return before
}

// changes returns a channel that is closed when the ring is replaced.
func (k *Keyring) changes() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.moved
}

// Interface guards.
var _ keystore.Applier = (*Keyring)(nil)
