package tokenissuer

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Bounds of an access token's life.
const (
	MinimumTTL = time.Second
	MaximumTTL = 24 * time.Hour
	DefaultTTL = 15 * time.Minute
)

const (
	// maxToken bounds what is looked at, and what is minted, in bytes.
	maxToken = keystore.MaximumCredential
	// maxClaim bounds issuer and audience, in bytes.
	maxClaim = 512
	// clockSkew is how far another node's clock may be ahead of ours. It
	// never prolongs a token's life.
	clockSkew = time.Minute
)

// ErrTokenTooLong: the scopes asked for do not fit into one access token.
var ErrTokenTooLong = errors.New("access token would be too long")

// Issuer mints and verifies access tokens under one name. It is a value of
// one configuration over the Keyring that all share. Safe for concurrent use.
type Issuer struct {
	keyring   *Keyring
	url       *url.URL
	name      string   // byte for byte the iss
	own       audience // of a token for which nothing else was asked
	audiences []string // all that tokens may be for, its own first
	ttl       time.Duration
}

// IssuerConfig is what an Issuer needs.
type IssuerConfig struct {
	Keyring *Keyring
	// URL is the issuer identifier (RFC 8414 §2): http or https, without
	// query and fragment. Byte for byte the iss.
	URL string
	// TTL is how long tokens live at most. Zero is DefaultTTL.
	TTL time.Duration
	// Audience is the aud; empty is the URL.
	Audience string
	// Resources are what else tokens can be asked for (RFC 8707): absolute
	// URIs without fragment. Tokens for them pass as those for Audience do.
	Resources []string
}

// NewIssuer returns an Issuer, or what is wrong with cfg.
func NewIssuer(cfg IssuerConfig) (*Issuer, error) {
	parsed, err := parseIssuer(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("issuer %q: %w", cfg.URL, err)
	}
	i := &Issuer{keyring: cfg.Keyring, url: parsed, name: cfg.URL, ttl: cfg.TTL}
	if i.ttl == 0 {
		i.ttl = DefaultTTL
	}
	own := cfg.Audience
	if own == "" {
		own = i.name
	}
	switch {
	case i.ttl < MinimumTTL || i.ttl > MaximumTTL:
		return nil, fmt.Errorf("token_ttl %s: must be %s to %s", i.ttl, MinimumTTL, MaximumTTL)
	case len(own) > maxClaim || !plain(own):
		return nil, fmt.Errorf("audience %q: at most %d printable ASCII characters without quote and backslash", own, maxClaim)
	}
	if err := parseResources(cfg.Resources); err != nil {
		return nil, err
	}
	i.own, i.audiences = newAudience(own), append([]string{own}, cfg.Resources...)
	return i, nil
}

func parseIssuer(raw string) (*url.URL, error) {
	if len(raw) > maxClaim || !plain(raw) {
		return nil, fmt.Errorf("at most %d printable ASCII characters without quote and backslash", maxClaim)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("parsing it: %w", err)
	}
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must begin with http:// or https://")
	case u.Host == "" || u.Opaque != "":
		return nil, errors.New("must name a host")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || raw[len(raw)-1] == '#':
		return nil, errors.New("must have no user, query or fragment")
	}
	return u, nil
}

// Name returns the issuer identifier, byte for byte as configured.
func (i *Issuer) Name() string { return i.name }

// Minted is a fresh access token.
type Minted struct {
	Token  keystore.Secret
	ID     string // jti; safe to log
	Issued time.Time
	Ends   time.Time
	Scopes keystore.Scopes
}

// ExpiresIn is the token's life in seconds, as RFC 6749 §5.1 wants it.
func (m Minted) ExpiresIn() int64 { return int64(m.Ends.Sub(m.Issued) / time.Second) }

// Mint returns an access token that speaks for p with scopes, which the
// caller has checked to be p's, at the issuer's audience or, if resources are
// given, at those. It ends with its ttl, with the key or with the grace period
// of the secret, whichever comes first; a principal with no whole second left
// is ErrExpired. ErrTarget, ErrTokenTooLong; ErrUnavailable while no signing
// key is known.
func (i *Issuer) Mint(p keystore.Principal, scopes keystore.Scopes, now time.Time, resources ...string) (Minted, error) {
	ring := i.keyring.current.Load()
	if ring == nil {
		return Minted{}, errNoRing
	}
	if p.Record == nil || p.Generation == 0 {
		return Minted{}, fmt.Errorf("minting for nobody: %w", keystore.ErrInvalid)
	}
	c := i.claims(p, scopes, now)
	var err error
	if c.audience, err = i.target(resources); err != nil {
		return Minted{}, fmt.Errorf("minting for key %s: %w", p.Record.ID, err)
	}
	if !c.wellFormed() {
		return Minted{}, fmt.Errorf("minting for key %s: a claim has characters that no token has", p.Record.ID)
	}
	if c.expires <= now.Unix() {
		return Minted{}, fmt.Errorf("minting for key %s, which ends within a second: %w", p.Record.ID, keystore.ErrExpired)
	}
	token, err := ring.active.mint(&c)
	if err != nil {
		return Minted{}, fmt.Errorf("minting for key %s: %w", p.Record.ID, err)
	}
	return Minted{token, c.id, time.Unix(c.issued, 0).UTC(), time.Unix(c.expires, 0).UTC(), scopes}, nil
}

func (i *Issuer) claims(p keystore.Principal, scopes keystore.Scopes, now time.Time) claims {
	end := now.Add(i.ttl).Unix()
	if limit := p.Record.CredentialEnd(p.Generation); limit != 0 {
		end = min(end, limit.Time().Unix())
	}
	pair := &p.Record.Previous
	if p.Generation == p.Record.Current.Generation {
		pair = &p.Record.Current
	}
	return claims{
		issuer:       i.name,
		subject:      string(p.Record.ID),
		client:       string(pair.AccessKey),
		issued:       now.Unix(),
		expires:      end,
		id:           newTokenID(),
		organization: p.Record.Organization,
		generation:   uint64(p.Generation),
		scope:        string(scopes),
	}
}

// newTokenID returns 128 random bits.
func newTokenID() string {
	var raw [16]byte
	rand.Read(raw[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// mint writes and signs one token (RFC 7515 §7.1).
func (s *signer) mint(c *claims) (keystore.Secret, error) {
	work := scratches.Get().(*scratch)
	defer scratches.Put(work)
	payload := c.append(work.payload[:0])
	token := append(append(work.token[:0], s.header...), '.')
	token = base64.RawURLEncoding.AppendEncode(token, payload)
	if len(token)+1+base64.RawURLEncoding.EncodedLen(signatureSize(s.private.Public())) > maxToken {
		return "", ErrTokenTooLong
	}
	signature, err := s.alg.sign(s.private, token)
	if err != nil {
		return "", err
	}
	token = base64.RawURLEncoding.AppendEncode(append(token, '.'), signature)
	return keystore.Secret(token), nil
}

// scratch is the room in which tokens are put together and taken apart.
type scratch struct {
	token     [maxToken]byte
	payload   [maxToken]byte
	signature [maxSignature]byte
}

const maxSignature = 1024 // bytes: RSA of 8192 bits

var scratches = sync.Pool{New: func() any { return new(scratch) }}
