package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// A key that is used is used again, mostly. An entry of the view therefore
// remembers of one credential, bit for bit, that its digest was found to be
// that of the record's current secret. This is a proof and no decision: that
// the record is the newest one and admits its current generation now is looked
// at each time. A proof cannot outlive what it was made of, because it stands
// in the entry itself: whatever changes a record replaces its entry, and no
// proof is handed on.
//
// Remembered is a fingerprint and not the secret, so that who reads this
// memory has gained nothing: AES-CBC-MAC under a random key of this process,
// which for messages of one length is a pseudorandom function (Bellare, Kilian
// and Rogaway). It covers the whole credential, so that alphabet and checksum
// are proved with it.

// proof is the fingerprint of the credential proved last, or zero. Two proofs
// that are kept at once may leave half of each: the fingerprint of nothing.
type proof struct{ high, low atomic.Uint64 }

func (p *proof) keep(f fingerprint) {
	p.high.Store(f.high)
	p.low.Store(f.low)
}

// of reports whether f was proved, in constant time. The zero fingerprint
// never is.
func (p *proof) of(f fingerprint) bool {
	differ := (p.high.Load() ^ f.high) | (p.low.Load() ^ f.low)
	return differ == 0 && f != fingerprint{}
}

// fingerprint stands for one credential. The zero fingerprint stands for none.
type fingerprint struct{ high, low uint64 }

// fingerprints makes fingerprints, and does not allocate.
type fingerprints struct {
	cipher   cipher.Block
	messages sync.Pool // of *message: what a cipher.Block is given escapes
}

// message is what a fingerprint covers: the secret, and for an API key its
// checksum and its prefix; zero in their place tells a pair from it.
type message [4 * aes.BlockSize]byte

const (
	messageChecksum = secretKeyLength
	messagePrefix   = messageChecksum + checksumLength
	messageRoom     = len(message{}) - messagePrefix // for a prefix; keys with the longest are digested each time
)

func newFingerprints() *fingerprints {
	key := make([]byte, 16)
	rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // the key has 16 bytes
	}
	return &fingerprints{cipher: block, messages: sync.Pool{New: func() any { return new(message) }}}
}

// of returns the fingerprint of a key's credential: the same one only for the
// same secret in the same form. The access key is not in it. What is no key's
// credential by its length has none.
func (f *fingerprints) of(p *Presented) fingerprint {
	prefix := max(0, len(p.apiKey)-apiKeyBody)
	if len(p.Secret) != secretKeyLength || prefix > messageRoom || (p.apiKey == "") != (prefix == 0) {
		return fingerprint{}
	}
	m := f.messages.Get().(*message)
	copy(m[:], p.Secret)
	if p.apiKey != "" {
		copy(m[messageChecksum:], p.apiKey[len(p.apiKey)-checksumLength:])
		copy(m[messagePrefix:], p.apiKey[:prefix])
	}
	sum := f.chain(m)
	clear(m[:])
	f.messages.Put(m)
	return sum
}

// chain is CBC-MAC. It works in m.
func (f *fingerprints) chain(m *message) fingerprint {
	block := m[:]
	f.cipher.Encrypt(block, block)
	for len(block) > aes.BlockSize {
		next := block[aes.BlockSize:]
		subtle.XORBytes(next, next[:aes.BlockSize], block)
		f.cipher.Encrypt(next, next)
		block = next
	}
	return fingerprint{binary.NativeEndian.Uint64(block), binary.NativeEndian.Uint64(block[8:])}
}

// recall returns the entry of the record whose current secret a credential of
// fingerprint f has been proved to carry, or nil if that is to be found out.
// It takes as long for a wrong secret as for a key that is not known.
func (a *Authenticator) recall(f fingerprint, access AccessKey, now time.Time) *entry {
	if !a.View.Valid(now, a.Freshness.MaxStaleness) { // asked before the view is: what is read after it is as fresh
		return nil
	}
	e, _ := a.View.cached(LookupID(access), now)
	if !e.proved.of(f) || e.rec.Current.AccessKey != access {
		return nil
	}
	return e
}

// remember keeps, in the very entry whose record was looked at, that a
// credential of fingerprint f proved generation gen of it, if that is the
// current one.
func (a *Authenticator) remember(f fingerprint, e *entry, gen Generation) {
	if gen == e.rec.Current.Generation {
		e.proved.keep(f)
	}
}
