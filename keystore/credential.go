package keystore

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/big"
	"strings"
	"sync"
	"unsafe"
)

// The parts of an API key: prefix "_" access key "_" secret key checksum.
const (
	accessKeyLength = 22 // base62 of 80 random and 48 MAC bits
	secretKeyLength = 43 // base62 of 256 random bits
	checksumLength  = 6  // base62 of a CRC-32 (IEEE) over all before it
	apiKeyBody      = 1 + accessKeyLength + 1 + secretKeyLength + checksumLength

	accessKeyRandom = 10 // bytes
	accessKeyMAC    = 6  // bytes
)

// DefaultPrefix begins an API key, so that people and secret scanners know
// one when they see it.
const DefaultPrefix = "wdr"

const maxPrefixLength = 16

// ValidPrefix reports whether an API key may begin with prefix: 1 to 16
// letters and digits.
func ValidPrefix(prefix string) bool {
	return prefix != "" && len(prefix) <= maxPrefixLength && isBase62(prefix)
}

// FormatAPIKey joins a pair into the one string that people paste.
func FormatAPIKey(prefix string, access AccessKey, secret Secret) Secret {
	body := prefix + "_" + string(access) + "_" + secret.Reveal()
	return Secret(body + base62(checksum(body), checksumLength))
}

// splitAPIKey splits what has the shape of an API key into its halves, which
// point into s. Alphabet and checksum are not examined: see spelled.
func splitAPIKey(prefix, s string) (access AccessKey, secret string, ok bool) {
	if len(s) != len(prefix)+apiKeyBody || s[:len(prefix)] != prefix {
		return "", "", false
	}
	body := s[len(prefix):]
	if body[0] != '_' || body[1+accessKeyLength] != '_' {
		return "", "", false
	}
	return AccessKey(body[1 : 1+accessKeyLength]), body[2+accessKeyLength : len(body)-checksumLength], true
}

// spelled reports whether the alphabet and the checksum of an API key, split
// into its halves, are right. It does not allocate.
func spelled(s string, access AccessKey, secret string) bool {
	body, sum := s[:len(s)-checksumLength], s[len(s)-checksumLength:]
	return isBase62(string(access)) && isBase62(secret) && spells(checksum(body), sum)
}

func checksum(s string) uint32 { return crc32.ChecksumIEEE(inPlace(s)) }

// inPlace returns the bytes of s for a function that only reads them: hashes
// let their argument escape, so that a copy would cost an allocation.
func inPlace(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// wellFormedPair reports whether two strings have the shape of a pair.
func wellFormedPair(access, secret string) bool {
	return len(access) == accessKeyLength && len(secret) == secretKeyLength && isBase62(access) && isBase62(secret)
}

const base62Digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" // as math/big has it

var isBase62Digit = func() (table [256]bool) {
	for i := range len(base62Digits) {
		table[base62Digits[i]] = true
	}
	return table
}()

func isBase62(s string) bool {
	for i := range len(s) {
		if !isBase62Digit[s[i]] {
			return false
		}
	}
	return true
}

// base62 writes n with exactly width digits.
func base62(n uint32, width int) string {
	out := make([]byte, width)
	for i := width - 1; i >= 0; i-- {
		out[i] = base62Digits[n%62]
		n /= 62
	}
	return string(out)
}

// spells reports whether s is n in base62, without allocating.
func spells(n uint32, s string) bool {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] != base62Digits[n%62] {
			return false
		}
		n /= 62
	}
	return n == 0
}

func base62Bytes(raw []byte, width int) string {
	text := new(big.Int).SetBytes(raw).Text(62)
	return strings.Repeat("0", width-len(text)) + text
}

// Credentials makes credentials and judges them by the secrets of one store.
// It is safe for concurrent use.
type Credentials struct {
	accessKeyMAC func() hash.Hash // holds its key as StoreSecret holds its root
	foreignMAC   func() hash.Hash // likewise
	peppers      sync.Pool        // of *peppered
	fingerprints *fingerprints
}

type peppered struct {
	mac hash.Hash
	out Digest
}

// NewCredentials derives what it needs from the store secret.
func NewCredentials(s StoreSecret) *Credentials {
	pepper, accessKeyMAC, foreign := s.Derive(purposePepper), s.Derive(purposeAccessKey), s.Derive(purposeImported)
	return &Credentials{
		accessKeyMAC: func() hash.Hash { return hmac.New(sha256.New, accessKeyMAC) },
		foreignMAC:   func() hash.Hash { return hmac.New(sha256.New, foreign) },
		peppers:      sync.Pool{New: func() any { return &peppered{mac: hmac.New(sha256.New, pepper)} }},
		fingerprints: newFingerprints(),
	}
}

// NewAccessKey returns 80 random bits with the MAC that tells it from a
// made-up one.
func (c *Credentials) NewAccessKey() AccessKey {
	raw := make([]byte, accessKeyRandom, accessKeyRandom+accessKeyMAC)
	rand.Read(raw)
	return AccessKey(base62Bytes(append(raw, c.macOf(raw)...), accessKeyLength))
}

// NewSecretKey returns 256 random bits.
func (c *Credentials) NewSecretKey() Secret {
	raw := make([]byte, 32)
	rand.Read(raw)
	return Secret(base62Bytes(raw, secretKeyLength))
}

// Genuine reports whether this store made the access key, though its key may
// be gone. Everything else is refused by it without any look-up. Constant
// time in the MAC.
func (c *Credentials) Genuine(access AccessKey) bool {
	if len(access) != accessKeyLength || !isBase62(string(access)) {
		return false
	}
	n, ok := new(big.Int).SetString(string(access), 62)
	if !ok || n.BitLen() > 8*(accessKeyRandom+accessKeyMAC) {
		return false
	}
	var raw [accessKeyRandom + accessKeyMAC]byte
	n.FillBytes(raw[:])
	return subtle.ConstantTimeCompare(raw[accessKeyRandom:], c.macOf(raw[:accessKeyRandom])) == 1
}

func (c *Credentials) macOf(random []byte) []byte {
	mac := c.accessKeyMAC()
	mac.Write(random)
	return mac.Sum(nil)[:accessKeyMAC]
}

// Digest returns what the store keeps of a secret key: HMAC-SHA-256 under the
// pepper. Secrets are random, so a fast digest is enough. A text longer than
// a secret key has the digest of nothing that was ever made. It does not
// allocate.
func (c *Credentials) Digest(secret string) Digest {
	if len(secret) != secretKeyLength {
		return Digest{}
	}
	p := c.peppers.Get().(*peppered)
	p.mac.Reset()
	p.mac.Write(inPlace(secret))
	p.mac.Sum(p.out[:0])
	d := p.out
	c.peppers.Put(p)
	return d
}

// Presented is a credential as a request carries it, classified but not yet
// judged. Its strings point into the header.
type Presented struct {
	Kind   CredentialKind
	Access AccessKey // of a key
	Secret string    // of a key
	Token  string    // an access token, or what may be a credential of another system
	Trace  *Trace    // of the decision on it; nil: none is wanted

	apiKey string // what a key's halves point into, if they were not a pair
}

// examine says what is wrong with a key whatever the store holds: ErrMalformed
// for characters that no credential has, ErrInvalid for a wrong alphabet or
// checksum.
func (p *Presented) examine() error {
	switch {
	case p.apiKey == "" || spelled(p.apiKey, p.Access, p.Secret):
		return nil
	case !isOneCredential(p.apiKey):
		return ErrMalformed
	default:
		return ErrInvalid
	}
}

// String hides the credential from logs.
func (p Presented) String() string { return p.Kind.String() + " " + redacted }

// Format hides the credential from every verb of package fmt.
func (p Presented) Format(w fmt.State, _ rune) { io.WriteString(w, p.String()) }

// MarshalText hides the credential from encoders that reflect.
func (p Presented) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// CredentialKind is what stands in credential position.
type CredentialKind uint8

// The zero kind is none, and is never admitted.
const (
	CredentialNone CredentialKind = iota
	CredentialKey
	CredentialAccessToken
	CredentialImported
)

var credentialKindNames = [...]string{CredentialNone: "none", CredentialKey: "key", CredentialAccessToken: "access_token", CredentialImported: "imported"}

func (k CredentialKind) String() string {
	if int(k) < len(credentialKindNames) {
		return credentialKindNames[k]
	}
	return credentialKindNames[CredentialNone]
}

// MaximumCredential bounds what is looked at in credential position, in bytes.
const MaximumCredential = 4 << 10

// ParseAuthorization classifies the value of an Authorization header (RFC
// 9110 §11.6.2): Token or Bearer with an API key, Bearer with an access token,
// Basic with the pair. There is no fallback: the shape alone decides the kind.
//
// ErrNoCredential for an empty value or another scheme, ErrMalformed for more
// than one credential or characters that no credential has, ErrInvalid for
// what cannot be decoded. Only Basic allocates.
//
// What looks like an API key or an access token is not read through here: only
// one that is not known to be good can be malformed. Authenticate says so.
func ParseAuthorization(prefix, value string) (Presented, error) {
	if value == "" {
		return Presented{}, ErrNoCredential
	}
	if len(value) > MaximumCredential {
		return Presented{}, ErrInvalid
	}
	scheme, rest, found := strings.Cut(value, " ")
	switch {
	case isScheme(scheme, "bearer"):
		return parseOne(prefix, rest, found, CredentialAccessToken)
	case isScheme(scheme, "token"):
		return parseOne(prefix, rest, found, CredentialKey)
	case isScheme(scheme, "basic"):
		return parseBasic(rest, found)
	case !isOneCredential(scheme):
		return Presented{}, ErrMalformed
	default:
		return Presented{}, ErrNoCredential
	}
}

// ParseCredential classifies the value of a header that carries nothing but
// the credential: an API key or an access token. Errors as ParseAuthorization.
func ParseCredential(prefix, value string) (Presented, error) {
	if value == "" {
		return Presented{}, ErrNoCredential
	}
	return parseOne(prefix, value, true, CredentialAccessToken)
}

// parseOne reads one bare credential; most says whether a token may stand here.
func parseOne(prefix, text string, found bool, most CredentialKind) (Presented, error) {
	if access, secret, ok := splitAPIKey(prefix, text); ok {
		return Presented{Kind: CredentialKey, Access: access, Secret: secret, apiKey: text}, nil
	}
	switch {
	case most == CredentialAccessToken && len(text) <= MaximumCredential && !native(prefix, text) && strings.Count(text, ".") == 2:
		return Presented{Kind: CredentialAccessToken, Token: text}, nil
	case !found || !isOneCredential(text):
		return Presented{}, ErrMalformed
	case native(prefix, text) || len(text) > MaximumCredential || strings.Count(text, ".") == 2:
		return Presented{}, ErrInvalid
	default:
		return Presented{Kind: CredentialImported, Token: text}, nil
	}
}

func native(prefix, text string) bool {
	return len(text) > len(prefix) && text[:len(prefix)] == prefix && text[len(prefix)] == '_'
}

// parseBasic reads access key and secret key of RFC 7617.
func parseBasic(text string, found bool) (Presented, error) {
	const pairLength = accessKeyLength + 1 + secretKeyLength // 66 bytes: 88 in base64, no padding
	if !found || !isOneCredential(text) {
		return Presented{}, ErrMalformed
	}
	if len(text) != base64.StdEncoding.EncodedLen(pairLength) {
		return Presented{}, ErrInvalid
	}
	pair, err := decodeBasic(text)
	if err != nil {
		return Presented{}, ErrInvalid
	}
	access, secret, _ := strings.Cut(pair, ":")
	if !wellFormedPair(access, secret) {
		return Presented{}, ErrInvalid
	}
	return Presented{Kind: CredentialKey, Access: AccessKey(access), Secret: secret}, nil
}

var strictBase64 = base64.StdEncoding.Strict()

func decodeBasic(text string) (string, error) {
	raw, err := strictBase64.DecodeString(text)
	if err != nil {
		return "", fmt.Errorf("decoding Basic credentials: %w", err)
	}
	return string(raw), nil
}

// isScheme compares an authentication scheme, which is case-insensitive.
func isScheme(s, lower string) bool { return len(s) == len(lower) && strings.EqualFold(s, lower) }

// isOneCredential: visible ASCII, no comma, no space. Anything else is two
// credentials, folding, or a disagreement between us and the next parser.
func isOneCredential(s string) bool { return s != "" && strings.IndexByte(s, ',') < 0 && isVisible(s) }

// isVisible reports whether s is nothing but "!" to "~", eight bytes at a
// time: an access token is long, and each request reads all of it.
func isVisible(s string) bool {
	const each, high = 0x0101_0101_0101_0101, 0x8080_8080_8080_8080
	for ; len(s) >= 8; s = s[8:] {
		w := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		// A borrow below "!", a carry beyond "~", or not ASCII at all.
		if ((w-'!'*each)|(w+each)|w)&high != 0 {
			return false
		}
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
