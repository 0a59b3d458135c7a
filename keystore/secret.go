package keystore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Secret is text that must not reach a log, an error or a JSON document by
// accident. Reveal says at the place of use that it is meant to.
type Secret string

const redacted = "[secret]"

func (Secret) String() string               { return redacted }
func (Secret) Format(w fmt.State, _ rune)   { io.WriteString(w, redacted) } // every verb, %d and wrong ones too
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// MasterKey seals the store secret. The zero MasterKey seals nothing: both of
// its methods fail.
type MasterKey struct{ key [32]byte }

func (MasterKey) String() string               { return redacted }
func (MasterKey) Format(w fmt.State, _ rune)   { io.WriteString(w, redacted) }
func (MasterKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// IsZero reports whether no key is set.
func (k MasterKey) IsZero() bool { return k.key == [32]byte{} }

// NewMasterKey returns 32 random bytes.
func NewMasterKey() MasterKey {
	var k MasterKey
	rand.Read(k.key[:]) // never fails: crypto/rand ends the program first
	return k
}

// ParseMasterKey reads 32 bytes in standard base64, surrounded by no white
// space. The error never quotes the text.
func ParseMasterKey(text Secret) (MasterKey, error) {
	var k MasterKey
	raw, err := base64.StdEncoding.Strict().DecodeString(text.Reveal())
	// The decoder skips line ends; the length does not.
	if err != nil || len(raw) != len(k.key) || len(text) != base64.StdEncoding.EncodedLen(len(raw)) {
		return MasterKey{}, errors.New("master key must be 32 bytes in base64 (44 characters)")
	}
	copy(k.key[:], raw)
	if k.IsZero() {
		return MasterKey{}, errors.New("master key must not be all zeros")
	}
	return k, nil
}

// Text is the inverse of ParseMasterKey.
func (k MasterKey) Text() Secret { return Secret(base64.StdEncoding.EncodeToString(k.key[:])) }

// Seal encrypts plain with AES-256-GCM under a fresh nonce and binds it to
// context, so that a sealed value moved to another row does not open there.
func (k MasterKey) Seal(context string, plain []byte) ([]byte, error) {
	if k.IsZero() {
		return nil, errors.New("sealing without a master key")
	}
	return seal(k.key[:], context, plain), nil
}

// Open reverses Seal. Any mismatch of key, context or bytes is ErrWrongMasterKey.
func (k MasterKey) Open(context string, sealed []byte) ([]byte, error) {
	if k.IsZero() {
		return nil, errors.New("opening without a master key")
	}
	plain, err := open(k.key[:], context, sealed)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", context, ErrWrongMasterKey)
	}
	return plain, nil
}

func seal(key []byte, context string, plain []byte) []byte {
	return newGCM(key).Seal(nil, nil, plain, []byte(context))
}

func open(key []byte, context string, sealed []byte) ([]byte, error) {
	return newGCM(key).Open(nil, nil, sealed, []byte(context))
}

func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // keys here are 32 bytes by construction
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

// StoreSecret is the root of everything secret in one store. It is made with
// the store and never changes; what is used is derived from it by purpose. The
// zero StoreSecret is none: using it panics.
type StoreSecret struct {
	// A function, because package fmt shows what unexported fields of other
	// types hold without asking this one, but never what a function holds.
	root func() *[32]byte
}

func (StoreSecret) String() string               { return redacted }
func (StoreSecret) Format(w fmt.State, _ rune)   { io.WriteString(w, redacted) }
func (StoreSecret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// NewStoreSecret returns a random store secret.
func NewStoreSecret() StoreSecret {
	root := new([32]byte)
	rand.Read(root[:])
	return newStoreSecret(root)
}

func newStoreSecret(root *[32]byte) StoreSecret {
	return StoreSecret{root: func() *[32]byte { return root }}
}

// Purposes of derived keys. A purpose is part of the stored format.
const (
	purposePepper      = "warder pepper v1"
	purposeAccessKey   = "warder access key mac v1"
	purposeImported    = "warder imported credential v1"
	purposeIdempotency = "warder idempotency v1"
	purposeCheck       = "warder check value v1"
)

// SameAs reports whether other is the secret of the same store.
func (s StoreSecret) SameAs(other StoreSecret) bool {
	return subtle.ConstantTimeCompare(s.root()[:], other.root()[:]) == 1
}

// Derive returns the 32-byte key for a purpose (HKDF-SHA-256, RFC 5869).
func (s StoreSecret) Derive(purpose string) []byte {
	key, err := hkdf.Key(sha256.New, s.root()[:], nil, purpose, 32)
	if err != nil {
		panic(err) // only an impossible length fails
	}
	return key
}

// Seal encrypts plain under the key for purpose, bound to context.
func (s StoreSecret) Seal(purpose, context string, plain []byte) []byte {
	return seal(s.Derive(purpose), context, plain)
}

// Open reverses Seal. A mismatch is ErrCorrupt: the store secret is right, or
// nothing would have opened.
func (s StoreSecret) Open(purpose, context string, sealed []byte) ([]byte, error) {
	plain, err := open(s.Derive(purpose), context, sealed)
	if err != nil {
		return nil, fmt.Errorf("opening sealed %s: %w", context, ErrCorrupt)
	}
	return plain, nil
}

// SealedSecret is the store's one row that holds its StoreSecret. Check is
// derived from the master key alone, so that a wrong key can be told from a
// damaged row. While nodes with the former master key may still start, the
// secret is sealed under two: both fields then hold what belongs to the newest
// key, followed by what belongs to the former.
type SealedSecret struct {
	Version int
	Sealed  []byte
	Check   []byte
}

const (
	sealedSecretVersion = 1
	sealedSecretContext = "store_secret/1" // row name and version

	checkSize = 16
	sealSize  = 12 + 32 + 16 // nonce, secret, tag
)

// seals returns the row as one for each key that opens it, the newest first.
func (row SealedSecret) seals() []SealedSecret {
	if len(row.Check) != 2*checkSize || len(row.Sealed) != 2*sealSize {
		return []SealedSecret{row}
	}
	return []SealedSecret{
		{row.Version, row.Sealed[:sealSize], row.Check[:checkSize]},
		{row.Version, row.Sealed[sealSize:], row.Check[checkSize:]},
	}
}

// under returns what k seals, or opens, of the row; false: nothing.
func (row SealedSecret) under(k MasterKey) (SealedSecret, bool) {
	for _, one := range row.seals() {
		if !k.IsZero() && string(one.Check) == string(k.check()) {
			return one, true
		}
	}
	return SealedSecret{}, false
}

// beside returns the row that both keys open, next being the newer one.
func (row SealedSecret) beside(next SealedSecret) SealedSecret {
	return SealedSecret{next.Version, slices.Concat(next.Sealed, row.Sealed), slices.Concat(next.Check, row.Check)}
}

// Fingerprints names the master keys that open the row, the newest first.
func (row SealedSecret) Fingerprints() []string {
	var names []string
	for _, one := range row.seals() {
		names = append(names, checkFingerprint(one.Check))
	}
	return names
}

// SealStoreSecret wraps s for storage under k.
func SealStoreSecret(k MasterKey, s StoreSecret) (SealedSecret, error) {
	sealed, err := k.Seal(sealedSecretContext, s.root()[:])
	if err != nil {
		return SealedSecret{}, fmt.Errorf("sealing the store secret: %w", err)
	}
	return SealedSecret{Version: sealedSecretVersion, Sealed: sealed, Check: k.check()}, nil
}

// OpenStoreSecret unwraps the store secret: ErrWrongMasterKey if the row was
// sealed under another key, ErrCorrupt if under this one but damaged,
// ErrNewerSchema if its version is not known here.
func OpenStoreSecret(k MasterKey, row SealedSecret) (StoreSecret, error) {
	if row.Version != sealedSecretVersion {
		return StoreSecret{}, fmt.Errorf("store secret has version %d: %w", row.Version, ErrNewerSchema)
	}
	one, found := row.under(k)
	if !found {
		return StoreSecret{}, ErrWrongMasterKey
	}
	plain, err := k.Open(sealedSecretContext, one.Sealed)
	if err != nil || len(plain) != 32 {
		return StoreSecret{}, fmt.Errorf("opening the store secret: %w", ErrCorrupt)
	}
	return newStoreSecret((*[32]byte)(plain)), nil
}

// check identifies the master key without revealing it.
func (k MasterKey) check() []byte {
	return newStoreSecret(&k.key).Derive(purposeCheck)[:checkSize]
}

// Fingerprint names the key without revealing it, so that people can tell
// which one belongs to what: the first 8 hexadecimal digits of its check value.
func (k MasterKey) Fingerprint() string { return checkFingerprint(k.check()) }

func checkFingerprint(check []byte) string { return hex.EncodeToString(check[:min(4, len(check))]) }
