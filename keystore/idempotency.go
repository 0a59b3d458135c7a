package keystore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// Once makes a call that shows a secret repeatable: within ReplaySecretLife
// the same Once gets the same answer, and nothing is done twice.
type Once struct {
	Key     Secret   // the Idempotency-Key header
	Route   string   // what is called, with its path parameters
	Request [32]byte // digest of the body
}

// MaximumIdempotencyKey bounds the header, in bytes.
const MaximumIdempotencyKey = 255

// Replays keeps the answers of idempotent calls. An answer is sealed under a
// key made from the store secret and the Idempotency-Key, of which only a
// digest is kept: neither the store nor its secret alone opens it.
type Replays struct {
	secret StoreSecret

	mu      sync.Mutex // guards running
	running map[ReplyID]struct{}
}

// NewReplays returns the replays of the store with the given secret.
func NewReplays(secret StoreSecret) *Replays {
	return &Replays{secret: secret, running: make(map[ReplyID]struct{})}
}

// begin claims id until the returned function is called; ErrReplayRunning.
func (p *Replays) begin(id ReplyID) (end func(), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, taken := p.running[id]; taken {
		return nil, ErrReplayRunning
	}
	p.running[id] = struct{}{}
	return func() { p.end(id) }, nil
}

func (p *Replays) end(id ReplyID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, id)
}

func (o *Once) id(c Caller) ReplyID {
	h := sha256.New()
	for _, part := range []string{c.Actor, o.Route, o.Key.Reveal()} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return ReplyID(h.Sum(nil))
}

// keptAnswer is the plain form of a sealed answer.
type keptAnswer struct {
	Record Record
	APIKey keptSecret
	Secret keptSecret
	Scopes Scopes // Warder's own that the caller held
}

// keptSecret is a secret that may be encoded, because it is then sealed. It
// does not print either.
type keptSecret string

func (keptSecret) String() string   { return redacted }
func (keptSecret) GoString() string { return redacted }

func (p *Replays) seal(o *Once, id ReplyID, c Caller, a Issued) ([]byte, error) {
	plain, err := json.Marshal(keptAnswer{a.Record, keptSecret(a.APIKey), keptSecret(a.SecretKey), c.Scopes.reserved()})
	if err != nil {
		return nil, fmt.Errorf("encoding an answer to keep: %w", err)
	}
	return p.secret.Seal(o.purpose(), hex.EncodeToString(id[:]), plain), nil
}

// open returns the answer kept in r, if it answers o at now. ErrForbidden for a
// caller that holds less by now, or in this access token, than when it was
// answered: it might not get so far today.
func (p *Replays) open(o *Once, c Caller, r Reply, now time.Time) (Issued, error) {
	if r.Request != o.Request {
		return Issued{}, ErrReplayMismatch
	}
	if len(r.Sealed) == 0 || now.Sub(r.Created.Time()) >= ReplaySecretLife {
		return Issued{}, &ReplaySecretGoneError{Key: r.Key}
	}
	plain, err := p.secret.Open(o.purpose(), hex.EncodeToString(r.ID[:]), r.Sealed)
	if err != nil {
		return Issued{}, err
	}
	var a keptAnswer
	if err := json.Unmarshal(plain, &a); err != nil {
		return Issued{}, fmt.Errorf("decoding a kept answer: %w", ErrCorrupt)
	}
	for _, scope := range a.Scopes.List() {
		if !c.Scopes.Grants(scope) {
			return Issued{}, ErrForbidden
		}
	}
	return Issued{Record: a.Record, APIKey: Secret(a.APIKey), SecretKey: Secret(a.Secret), Replayed: true}, nil
}

// purpose makes the header's value part of the key derivation.
func (o *Once) purpose() string { return purposeIdempotency + "\x00" + o.Key.Reveal() }
