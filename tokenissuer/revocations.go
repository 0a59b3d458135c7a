package tokenissuer

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/warderhq/warder/keystore"
)

// MaximumRevoked bounds the access tokens that are revoked and not yet over.
const MaximumRevoked = 100_000

// ErrTooManyRevoked: as many tokens are revoked as are remembered, and this
// one is not.
var ErrTooManyRevoked = fmt.Errorf("too many access tokens are revoked: %w", keystore.ErrUnavailable)

// Revocations keeps revoked access tokens in the store until they are over,
// each as one document. Every node runs one, and every Keyring follows.
type Revocations struct {
	cfg RevocationsConfig

	mu      sync.Mutex // guards pending
	pending int        // revocations under way, which the keyring does not know yet
}

// RevocationsConfig is what Revocations need.
type RevocationsConfig struct {
	Keyring  *Keyring
	Store    keystore.Transactor
	Follower WakingAwaiter
	// Limit is how many revoked tokens are kept. Zero is MaximumRevoked. It
	// is exact while one node revokes; each other one may exceed it by what
	// it has under way.
	Limit int
	// Failed, if not nil, is told why letting go what is over failed. It is
	// tried again.
	Failed func(error)
}

// WakingAwaiter is an Awaiter that can be told to look at the log. A
// *keystore.Follower is one.
type WakingAwaiter interface {
	Awaiter
	Wake()
}

// NewRevocations returns Revocations.
func NewRevocations(cfg RevocationsConfig) *Revocations {
	if cfg.Limit == 0 {
		cfg.Limit = MaximumRevoked
	}
	return &Revocations{cfg: cfg}
}

// applyTimeout bounds how long an answer waits for this node to apply what it
// has already committed.
const applyTimeout = 5 * time.Second

// revokedToken is the body of a document, whose name is the jti.
type revokedToken struct {
	Key     keystore.KeyID `json:"key_id"`
	Expires int64          `json:"expires_at"` // seconds since 1970
}

// revoke makes the token of c, which the caller has proved, one that no node
// accepts: this one from the return on. ErrTooManyRevoked.
func (r *Revocations) revoke(ctx context.Context, c *claims, by keystore.Attribution, now time.Time) error {
	if err := r.reserve(ctx, now); err != nil {
		return err
	}
	defer r.release()
	body, err := json.Marshal(revokedToken{keystore.KeyID(c.subject), c.expires})
	if err != nil {
		return fmt.Errorf("encoding a revocation: %w", err)
	}
	revision, err := r.cfg.Store.Transact(ctx, func(tx keystore.Tx) error {
		known, err := tx.Document(keystore.KindRevokedToken, c.id)
		if err != nil || known.Revision != 0 {
			return err
		}
		d := keystore.Document{Kind: keystore.KindRevokedToken, Name: c.id, Body: body}
		if err := tx.PutDocument(&d); err != nil {
			return err
		}
		e := by.Entry(d.Kind, d.Name, now)
		e.Organization, e.Revision, e.After = c.organization, d.Revision, string(body)
		return tx.AppendAudit(&e)
	})
	if err != nil {
		r.cfg.Follower.Wake() // it may have been committed all the same: the answer got lost
		return fmt.Errorf("revoking an access token: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	if err := r.cfg.Follower.Await(ctx, revision); err != nil {
		return fmt.Errorf("revoked, but not yet in force: %w: %w", keystore.ErrUnavailable, err)
	}
	return nil
}

// reserve takes a place for one more, which release gives back. Before it
// refuses, it makes room.
func (r *Revocations) reserve(ctx context.Context, now time.Time) error {
	if r.take() {
		return nil
	}
	if _, err := r.prune(ctx, now); err != nil {
		return err
	}
	if r.take() {
		return nil
	}
	return ErrTooManyRevoked
}

func (r *Revocations) take() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cfg.Keyring.revoked.len()+r.pending >= r.cfg.Limit {
		return false
	}
	r.pending++
	return true
}

func (r *Revocations) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending--
}

// How the loop prunes: seldom, and never so much at once that other writers
// wait for long.
const (
	pruneRest  = time.Minute
	pruneBatch = 200
)

// Run lets go the tokens that are over, until ctx ends.
func (r *Revocations) Run(ctx context.Context) {
	ticker := time.NewTicker(pruneRest)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if err := r.pruneAll(ctx, time.Now()); err != nil && ctx.Err() == nil && r.cfg.Failed != nil {
			r.cfg.Failed(fmt.Errorf("letting go revoked access tokens: %w", err))
		}
	}
}

func (r *Revocations) pruneAll(ctx context.Context, now time.Time) error {
	for {
		if more, err := r.prune(ctx, now); err != nil || !more {
			return err
		}
	}
}

// prune deletes at most one batch of tokens that are over everywhere, and says
// whether there may be more. It returns when this node has applied it.
func (r *Revocations) prune(ctx context.Context, now time.Time) (more bool, err error) {
	over := r.cfg.Keyring.revoked.over(now, pruneBatch)
	if len(over) == 0 {
		return false, nil
	}
	revision, err := r.cfg.Store.Transact(ctx, func(tx keystore.Tx) error {
		for _, id := range over {
			if err := tx.DeleteDocument(keystore.KindRevokedToken, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		r.cfg.Follower.Wake()
		return false, err
	}
	if err := r.cfg.Follower.Await(ctx, revision); err != nil {
		return false, err
	}
	return len(over) == pruneBatch, nil
}

// digest stands for a text of any length, in a form without pointers.
type digest [16]byte

func digestOf(text string) digest {
	sum := sha256.Sum256([]byte(text))
	return digest(sum[:16])
}

// revokedSet is the revoked tokens in memory. Readers take no lock, and while
// nothing is revoked they read one number. Only the follower writes.
type revokedSet struct {
	count  atomic.Int64
	shards [256]atomic.Pointer[revokedShard] // by the first byte; replaced, never changed
}

type revokedShard map[digest]revokedEntry

type revokedEntry struct {
	jti     string
	expires int64
}

// has reports whether the token was revoked.
func (s *revokedSet) has(d digest) bool {
	if s.count.Load() == 0 {
		return false
	}
	_, revoked := s.shard(d[0])[d]
	return revoked
}

func (s *revokedSet) shard(first byte) revokedShard {
	if shard := s.shards[first].Load(); shard != nil {
		return *shard
	}
	return nil
}

func (s *revokedSet) len() int { return int(s.count.Load()) }

// over returns at most limit tokens that no node accepts any more, revoked or
// not: a clock that is behind by the skew says so, too.
func (s *revokedSet) over(now time.Time, limit int) (jtis []string) {
	end := now.Add(-clockSkew).Unix()
	for i := range s.shards {
		for _, entry := range s.shard(byte(i)) {
			if len(jtis) == limit {
				return jtis
			}
			if entry.expires <= end {
				jtis = append(jtis, entry.jti)
			}
		}
	}
	return jtis
}

// reset replaces everything by the documents.
func (s *revokedSet) reset(documents []keystore.Document) error {
	var shards [256]revokedShard
	count := 0
	for i := range documents {
		if documents[i].Kind != keystore.KindRevokedToken {
			continue
		}
		entry, err := revokedBy(&documents[i])
		if err != nil {
			return err
		}
		of := digestOf(entry.jti)
		if shards[of[0]] == nil {
			shards[of[0]] = revokedShard{}
		}
		shards[of[0]][of] = entry
		count++
	}
	for i := range shards {
		s.shards[i].Store(&shards[i])
	}
	s.count.Store(int64(count))
	return nil
}

// apply takes over what became of one token; no document means that it is let
// go.
func (s *revokedSet) apply(jti string, d *keystore.Document) error {
	of := digestOf(jti)
	before := s.shard(of[0])
	after := make(revokedShard, len(before)+1)
	maps.Copy(after, before)
	delete(after, of)
	if d != nil {
		entry, err := revokedBy(d)
		if err != nil {
			return err
		}
		after[of] = entry
	}
	s.shards[of[0]].Store(&after)
	s.count.Add(int64(len(after) - len(before))) // after the entry: who sees the count finds it
	return nil
}

var errRevokedBody = errors.New("not a revoked access token")

func revokedBy(d *keystore.Document) (revokedEntry, error) {
	var body revokedToken
	if err := json.Unmarshal(d.Body, &body); err != nil || body.Expires == 0 {
		return revokedEntry{}, fmt.Errorf("reading document %s %s: %w: %w", d.Kind, d.Name, errRevokedBody, keystore.ErrCorrupt)
	}
	return revokedEntry{d.Name, body.Expires}, nil
}
