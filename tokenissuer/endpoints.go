package tokenissuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Where the endpoints are, after the path prefix.
const (
	tokenPath      = "/token"
	introspectPath = "/introspect"
	revokePath     = "/revoke"
	jwksPath       = "/.well-known/jwks.json"
	metadataPath   = "/.well-known/oauth-authorization-server"
)

// Endpoints serves the token, introspection and revocation endpoints, the JWKS
// and the metadata of one Issuer. Safe for concurrent use.
type Endpoints struct {
	issuer        *Issuer
	authenticator Authenticator
	revocations   *Revocations
	guesses       *Guesses
	peer          func(*http.Request) netip.Addr
	prefix        string
	keyPrefix     string
	fresh         func(ctx context.Context, now time.Time) error
	observe       func(context.Context, Observation)
	reading       chan struct{} // holds a value for each body that is being read

	handlers    map[string]http.HandlerFunc // by path
	metadata    []byte
	metadataTag string
}

// EndpointsConfig is what Endpoints need.
type EndpointsConfig struct {
	Issuer        *Issuer
	Authenticator Authenticator
	Revocations   *Revocations
	// Guesses is who has failed to authenticate before. Nil: nobody.
	Guesses *Guesses
	// Peer is the address that a request comes from, as far as it is to be
	// believed. Nil: the peer of the connection.
	Peer func(*http.Request) netip.Addr
	// KeyPrefix begins an API key. Empty is keystore.DefaultPrefix.
	KeyPrefix string
	// PathPrefix moves the paths, as in "/auth". Empty: they begin at the root.
	PathPrefix string
	// Fresh, if not nil, says whether this node may still trust what it knows,
	// as keystore.View.Await does. It is asked before the JWKS is served; at
	// the other endpoints the Authenticator asks for itself.
	Fresh func(ctx context.Context, now time.Time) error
	// Observe, if not nil, is told the outcome of every call of the token,
	// introspection and revocation endpoints and of every other one that was
	// refused.
	Observe func(context.Context, Observation)
}

// Authenticator decides whether a presented key passes. A
// *keystore.Authenticator is one.
type Authenticator interface {
	Authenticate(ctx context.Context, p keystore.Presented, now time.Time) (keystore.Principal, error)
}

// Observation is what became of a call. It holds nothing secret.
type Observation struct {
	Outcome Outcome
	Key     keystore.KeyID // who called, if that was proved
	TokenID string         // jti of the token minted or revoked
	Err     error          // for operators; nil if the call was answered
}

// Outcome is fit to be a metric's label: there are only these.
type Outcome string

// The outcomes.
const (
	OutcomeMinted           Outcome = "minted"
	OutcomeIntrospected     Outcome = "introspected"
	OutcomeRevoked          Outcome = "revoked"
	OutcomeNotRevoked       Outcome = "not_revoked" // nothing to revoke, or nothing of the caller's: answered alike
	OutcomeInvalidRequest   Outcome = "invalid_request"
	OutcomeInvalidClient    Outcome = "invalid_client"
	OutcomeInvalidScope     Outcome = "invalid_scope"
	OutcomeInvalidTarget    Outcome = "invalid_target"
	OutcomeUnsupportedToken Outcome = "unsupported_token_type"
	OutcomeTooMany          Outcome = "too_many_requests"
	OutcomeUnsupportedGrant Outcome = "unsupported_grant_type"
	OutcomeUnavailable      Outcome = "temporarily_unavailable"
	OutcomeServerError      Outcome = "server_error"
)

// NewEndpoints returns Endpoints, or what is wrong with cfg.
func NewEndpoints(cfg EndpointsConfig) (*Endpoints, error) {
	if err := validPrefix(cfg.PathPrefix); err != nil {
		return nil, err
	}
	e := &Endpoints{
		issuer: cfg.Issuer, authenticator: cfg.Authenticator, revocations: cfg.Revocations,
		guesses: cfg.Guesses, peer: cfg.Peer, prefix: cfg.PathPrefix, keyPrefix: cfg.KeyPrefix,
		fresh: cfg.Fresh, observe: cfg.Observe, reading: make(chan struct{}, maxReading),
	}
	e.setDefaults()
	var err error
	if e.metadata, e.metadataTag, err = e.encodeMetadata(); err != nil {
		return nil, err
	}
	e.handlers = map[string]http.HandlerFunc{
		e.prefix + tokenPath:      e.allow(e.serveToken, http.MethodPost),
		e.prefix + introspectPath: e.allow(e.serveIntrospection, http.MethodPost),
		e.prefix + revokePath:     e.allow(e.serveRevocation, http.MethodPost),
		e.prefix + jwksPath:       e.allow(e.serveJWKS, http.MethodGet, http.MethodHead),
	}
	for _, p := range e.metadataPaths() {
		e.handlers[p] = e.allow(e.serveMetadata, http.MethodGet, http.MethodHead)
	}
	return e, nil
}

func (e *Endpoints) setDefaults() {
	if e.guesses == nil {
		e.guesses = NewGuesses()
	}
	if e.peer == nil {
		e.peer = remotePeer
	}
	if e.keyPrefix == "" {
		e.keyPrefix = keystore.DefaultPrefix
	}
}

func validPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	if prefix[0] != '/' || path.Clean(prefix) != prefix || prefix == "/" || strings.ContainsAny(prefix, `?#%\"`) || !plain(prefix) {
		return fmt.Errorf("path_prefix %q: must be a plain path that begins with / and does not end with it", prefix)
	}
	return nil
}

// Paths returns the paths that are served, and no others. They are to be
// compared with the decoded path of a request.
func (e *Endpoints) Paths() []string {
	paths := make([]string, 0, len(e.handlers))
	for p := range e.handlers {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	return paths
}

// Serves reports whether the path is one of Paths.
func (e *Endpoints) Serves(path string) bool { return e.handlers[path] != nil }

// ServeHTTP answers on Paths, and 404 elsewhere.
func (e *Endpoints) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	handler := e.handlers[r.URL.Path]
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	handler(w, r)
}

// allow refuses other methods (RFC 9110 §15.5.6).
func (e *Endpoints) allow(serve http.HandlerFunc, methods ...string) http.HandlerFunc {
	list := strings.Join(methods, ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		if !slices.Contains(methods, r.Method) {
			w.Header().Set("Allow", list)
			e.refuse(w, r, refusedMethod)
			return
		}
		serve(w, r)
	}
}

// refuse answers with a refusal and tells the observer.
func (e *Endpoints) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var refused refusal
	if !errors.As(err, &refused) {
		refused = refusedInternally.because(err)
	}
	refused.write(w)
	e.tell(r, Observation{Outcome: refused.outcome, Key: refused.key, Err: err})
}

func (e *Endpoints) tell(r *http.Request, o Observation) {
	if e.observe != nil {
		e.observe(r.Context(), o)
	}
}

// Interface guards.
var _ http.Handler = (*Endpoints)(nil)
