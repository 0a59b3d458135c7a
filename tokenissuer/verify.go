package tokenissuer

import (
	"encoding/base64"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Why a token is refused, for operators. A caller sees one answer for all but
// the last. They are made once: refusing costs no memory.
var (
	errTokenLength    = notOurs(keystore.CheckSigningKey, "access token is too long")
	errTokenHeader    = notOurs(keystore.CheckSigningKey, "access token has no header of a trusted signing key")
	errTokenSignature = notOurs(keystore.CheckSignature, "access token has no good signature")
	errTokenClaims    = notOurs(keystore.CheckClaims, "access token has not the claims of one of ours")
	errTokenIssuer    = notOurs(keystore.CheckIssuer, "access token is of another issuer")
	errTokenAudience  = notOurs(keystore.CheckAudience, "access token is for another audience")
	errTokenEarly     = notOurs(keystore.CheckIssued, "access token was issued in the future")
)

func notOurs(c keystore.Check, text string) error { return &keystore.TokenError{Check: c, Text: text} }

// strict refuses the unused bits of the last character; its decoder skips
// line ends, so lengths are compared too.
var strict = base64.RawURLEncoding.Strict()

// Verify implements keystore.TokenVerifier: ErrInvalid for anything that is
// not an access token of this issuer, ErrTokenExpired for one that was,
// ErrTokenRevoked for one that was revoked, ErrUnavailable while no signing key
// is known. It does not ask whether the key behind the token still lives.
//
// The header is not interpreted. A trusted key's tokens have one header, byte
// for byte, and only those bytes lead to the key: alg, kid, jku, x5u, crit,
// b64 and typ have no second spelling and nothing to choose.
func (i *Issuer) Verify(token string, now time.Time) (keystore.TokenClaims, error) {
	if len(token) > maxToken {
		return keystore.TokenClaims{}, errTokenLength
	}
	ring := i.keyring.current.Load()
	if ring == nil {
		return keystore.TokenClaims{}, errNoRing
	}
	header, rest, _ := strings.Cut(token, ".")
	key := ring.by(header) // trust in the key is looked at even if the proof is known
	if key == nil {
		return keystore.TokenClaims{}, errTokenHeader
	}
	p := i.keyring.memo.find(token)
	remembered := p != nil
	if !remembered {
		var err error
		if p, err = i.prove(key, token, rest); err != nil {
			return keystore.TokenClaims{}, err
		}
	}
	if err := i.judge(p, now); err != nil {
		return keystore.TokenClaims{}, err
	}
	if !remembered {
		i.keyring.memo.keep(p)
	}
	return keystore.TokenClaims{Key: p.key, Generation: p.generation, Scopes: p.scopes}, nil
}

// judge is the decision on a proved token, made anew on every request.
func (i *Issuer) judge(p *proof, now time.Time) error {
	seconds := now.Unix()
	switch {
	case p.issuer != i.name:
		return errTokenIssuer
	case !i.accepts(p.audience):
		return errTokenAudience
	case p.issued > seconds+int64(clockSkew/time.Second):
		return errTokenEarly
	case p.expires <= seconds:
		return keystore.ErrTokenExpired
	case i.keyring.revoked.has(p.id):
		return keystore.ErrTokenRevoked
	default:
		return nil
	}
}

// read returns all that a token says which Verify, or an Authenticator by it,
// has accepted. False for anything that is not a token of this ring.
func (i *Issuer) read(token string) (claims, bool) {
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := strict.DecodeString(payload)
	if err != nil {
		return claims{}, false
	}
	return decodeClaims(string(text))
}

// prove checks the signature by key over the token, whose segments after the
// header are rest, and only then reads the payload.
func (i *Issuer) prove(key *verifyingKey, token, rest string) (*proof, error) {
	payload, signature, _ := strings.Cut(rest, ".")
	if len(signature) != strict.EncodedLen(key.signature) {
		return nil, errTokenSignature
	}
	work := scratches.Get().(*scratch)
	defer scratches.Put(work)
	raw := work.token[:copy(work.token[:], token)]
	dot := len(token) - len(signature) - 1
	n, err := strict.Decode(work.signature[:], raw[dot+1:])
	if err != nil || n != key.signature || !key.proves(raw[:dot], work.signature[:n]) {
		return nil, errTokenSignature
	}
	n, err = strict.Decode(work.payload[:], raw[dot-len(payload):dot])
	if err != nil || strict.EncodedLen(n) != len(payload) {
		return nil, errTokenClaims
	}
	c, ok := decodeClaims(string(work.payload[:n]))
	if !ok {
		return nil, errTokenClaims
	}
	i.share(&c)
	return newProof(token, &c), nil
}

// share lets proofs of our own tokens hold our own copy of issuer and
// audience; they are equal, so it changes no verdict. Another audience gets a
// copy of its own, for it may be kept.
func (i *Issuer) share(c *claims) {
	if c.issuer == i.name {
		c.issuer = i.name
	}
	if c.audience == i.own {
		c.audience = i.own
	} else {
		c.audience = audience(strings.Clone(string(c.audience)))
	}
}

// Interface guards.
var _ keystore.TokenVerifier = (*Issuer)(nil)
