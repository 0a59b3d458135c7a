package tokenissuer

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"strings"
	"sync/atomic"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/warderhq/warder/keystore"
)

// proof is what a good signature has shown: these bytes are a token of ours
// and say this. It is true for ever and decides nothing: whether the key is
// still trusted, the issuer is the asking one and the time is right is looked
// at each time.
type proof struct {
	token      string // all of it
	issuer     string
	audience   audience
	id         digest
	key        keystore.KeyID
	scopes     keystore.Scopes
	generation keystore.Generation
	issued     int64
	expires    int64
}

// memo remembers proofs. It may forget at any time.
type memo struct {
	cache  *ristretto.Cache[uint64, *proof]
	seed   maphash.Seed
	recent [recentProofs]atomic.Pointer[proof] // found last; so a hot token costs the cache no lock and no note
}

// recentProofs bounds what recent keeps alive beside the cache, by number.
const (
	recentBits   = 11
	recentProofs = 1 << recentBits
)

// DefaultMemoBytes bounds the memory of proofs unless told otherwise: about
// thirty thousand access tokens.
const DefaultMemoBytes = 32 << 20

const (
	typicalProof  = 1 << 10 // bytes; only the size of the memo's frequency sketch depends on it
	countersEach  = 4       // for a proof; the ten that ristretto advises would weigh as much as all else that a small server holds
	proofOverhead = int64(unsafe.Sizeof(proof{})) + 128
	never         = 365 * 24 * 3600 // seconds between two searches for entries with a TTL: there are none
)

// newMemo returns a memo of at most so many bytes, or nil, which remembers
// nothing.
func newMemo(bytes int64) (*memo, error) {
	switch {
	case bytes < 0:
		return nil, nil
	case bytes == 0:
		bytes = DefaultMemoBytes
	}
	cache, err := ristretto.NewCache(&ristretto.Config[uint64, *proof]{
		NumCounters:            max(100, countersEach*bytes/typicalProof),
		MaxCost:                bytes,
		BufferItems:            64,
		KeyToHash:              func(sum uint64) (uint64, uint64) { return sum, 0 },
		TtlTickerDurationInSec: never,
	})
	if err != nil {
		return nil, fmt.Errorf("making the memo of access tokens: %w", err)
	}
	m := &memo{cache: cache, seed: maphash.MakeSeed()}
	// To close the cache under a reader panics, and no reader should pay for
	// a lock against that. The collector knows when the last one has gone.
	runtime.AddCleanup(m, (*ristretto.Cache[uint64, *proof]).Close, cache)
	return m, nil
}

// place says where to look for a token. The end of its signature, which every
// bit before it has shaped, spreads proved tokens as well as all of it would,
// in a fifth of the time; which token it is, the comparison of all of it says.
func (m *memo) place(token string) uint64 {
	return maphash.String(m.seed, token[max(0, len(token)-signatureTail):])
}

const signatureTail = 64 // characters: 384 bits

// find returns the proof of exactly this token, or nil.
func (m *memo) find(token string) *proof {
	if m == nil {
		return nil
	}
	place := m.place(token)
	recent := &m.recent[place>>(64-recentBits)]
	if p := recent.Load(); p != nil && p.token == token {
		return p
	}
	p, ok := m.cache.Get(place)
	runtime.KeepAlive(m)
	if !ok || p.token != token {
		return nil
	}
	recent.Store(p)
	return p
}

// keep remembers a proof. Its strings must be its own: see newProof.
func (m *memo) keep(p *proof) {
	if m == nil {
		return
	}
	cost := proofOverhead + int64(len(p.token)+len(p.audience)+len(p.key)+len(p.scopes))
	m.cache.Set(m.place(p.token), p, cost)
	runtime.KeepAlive(m)
}

// newProof copies what is to be remembered, so that no request's header and
// no whole payload stays alive with it.
func newProof(token string, c *claims) *proof {
	own := strings.Clone(token)
	names := c.subject + c.scope
	return &proof{
		token:      own,
		issuer:     c.issuer,
		audience:   c.audience,
		id:         digestOf(c.id),
		key:        keystore.KeyID(names[:len(c.subject)]),
		scopes:     keystore.Scopes(names[len(c.subject):]),
		generation: keystore.Generation(c.generation),
		issued:     c.issued,
		expires:    c.expires,
	}
}
