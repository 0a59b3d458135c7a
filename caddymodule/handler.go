package caddymodule

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/warderhq/warder/keystore"
)

func init() {
	caddy.RegisterModule(Handler{})
}

// Handler lets a request pass to the next handler if it carries a good
// credential, and tells the next handler who calls. Everything else is
// refused; see the table of refusals.
//
// A request meets, in this order: the path is brought to its normal form and
// forged identity is removed; the credential is read, and removed; digest or
// signature, state, generation and expiry are checked; then the key's
// networks, its permissions, and the type and scopes required here; then its
// limit; then identity headers and placeholders are set.
//
// A second handler in the chain adds its requirements to the principal that
// the first one admitted, and asks and counts nothing else again.
type Handler struct {
	// Paths that pass without a credential: exact ("/healthz"), all below
	// ("/docs/*"), or with any one segment inside ("/docs/*/index"). Matched
	// against the normal form. Forged identity is removed here, too.
	Public []string `json:"public,omitempty"`

	// Requests without any credential pass, without identity. One with a bad
	// credential is refused all the same.
	Optional bool `json:"optional,omitempty"`

	// WEAKENS THE GATE: decides, logs and counts, but lets every request
	// pass, with its credential. For trying Warder in front of a running API.
	Shadow bool `json:"shadow,omitempty"`

	// What happens to CORS preflights, which carry no credential: "pass"
	// (default) or "deny".
	Preflight string `json:"preflight,omitempty"`

	// Scopes that the credential must hold, all of them.
	RequireScopes []string `json:"require_scopes,omitempty"`

	// Key types of which the key must be one: "standard", "trial".
	RequireTypes []string `json:"require_types,omitempty"`

	// The header that carries the bare credential, instead of Authorization,
	// which then belongs to the API behind and is neither read nor removed.
	CredentialHeader string `json:"credential_header,omitempty"`

	// Leaves the credential in the request: the API behind sees it.
	ForwardCredential bool `json:"forward_credential,omitempty"`

	// Accepts "%2f" in paths. Rules see it undecoded, as no separator.
	AllowEncodedSlash bool `json:"allow_encoded_slash,omitempty"`

	// Begins the names of the identity headers. Default: "X-Warder-".
	IdentityPrefix string `json:"identity_prefix,omitempty"`

	// The realm in challenges. Default: "warder".
	Realm string `json:"realm,omitempty"`

	app        *App
	gate       *gate
	logger     *zap.Logger
	identity   identityHeaders
	public     []keystore.PathPattern
	types      []keystore.Type
	credential string // folded name of CredentialHeader
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.warder",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision sets defaults and finds the warder app.
func (h *Handler) Provision(ctx caddy.Context) error {
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	app.noteListeners(ctx)
	h.app, h.gate, h.logger = app, app.gate, ctx.Logger()
	if h.IdentityPrefix == "" {
		h.IdentityPrefix = defaultIdentityPrefix
	}
	if h.Realm == "" {
		h.Realm = "warder"
	}
	if h.CredentialHeader == "" {
		h.CredentialHeader = authorization
	}
	h.CredentialHeader = http.CanonicalHeaderKey(h.CredentialHeader)
	h.identity = newIdentityHeaders(h.IdentityPrefix)
	h.credential = foldName(h.CredentialHeader)
	if err := h.parseRules(); err != nil {
		return err
	}
	if h.CredentialHeader != authorization {
		return requireLogFilter(ctx, "credential_header", h.CredentialHeader)
	}
	return nil
}

func (h *Handler) parseRules() error {
	for _, s := range h.Public {
		pattern, ok := keystore.ParsePathPattern(s)
		if !ok {
			return fmt.Errorf("public: %q is neither an exact path nor a prefix like /docs/*", s)
		}
		h.public = append(h.public, pattern)
	}
	for _, s := range h.RequireTypes {
		t, err := keystore.ParseType(s)
		if err != nil {
			return fmt.Errorf("require_types: %w", err)
		}
		h.types = append(h.types, t)
	}
	if _, err := keystore.NewScopes("require_scopes", h.RequireScopes); err != nil {
		return err
	}
	return nil
}

// Validate judges what Provision read.
func (h *Handler) Validate() error {
	if h.Preflight != "" && h.Preflight != "pass" && h.Preflight != "deny" {
		return fmt.Errorf("preflight: %q is neither pass nor deny", h.Preflight)
	}
	if strings.ContainsFunc(h.Realm, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return errors.New("realm: must be printable ASCII without quote and backslash")
	}
	if !isToken(h.CredentialHeader) || !isToken(h.IdentityPrefix) || len(h.IdentityPrefix) < 2 {
		return errors.New("credential_header and identity_prefix must be header names")
	}
	if foldedPrefix(h.CredentialHeader, h.identity.prefix) {
		return errors.New("credential_header: lies under identity_prefix, so that it would be removed as forged identity")
	}
	if h.Shadow {
		h.logger.Warn("shadow mode: requests are not refused")
	}
	return nil
}

const authorization = "Authorization"

// ServeHTTP decides.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	h.identity.strip(r) // before anything else: error routes, too, may lead to an API
	earlier := principalOf(r)
	if earlier != nil {
		h.name(r, new(identityValues), earlier)
	}
	if err := normalise(r, h.AllowEncodedSlash); err != nil {
		return h.refuse(w, r, next, keystore.Principal{}, err)
	}
	if h.passesWithoutCredential(r) {
		return h.passUnnamed(w, r, next)
	}
	now := time.Now()
	p, err := h.decideTraced(r, earlier, now)
	h.gate.took(now)
	switch {
	case err == nil:
		h.admit(r, p, earlier, now)
		return next.ServeHTTP(w, r)
	case h.Optional && errors.Is(err, keystore.ErrNoCredential):
		return h.passUnnamed(w, r, next)
	default:
		return h.refuse(w, r, next, p, err)
	}
}

// passUnnamed lets a request go on without asking who sent it.
func (h *Handler) passUnnamed(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	h.takeCredential(r)
	if principalOf(r) == nil {
		h.gate.passed(keystore.CredentialNone)
	}
	return next.ServeHTTP(w, r)
}

// decide returns who calls, or why they may not pass. With an error the
// principal, if it has a record, is a recognised but refused caller. earlier
// is whom an earlier handler of this chain has admitted, or nil.
func (h *Handler) decide(r *http.Request, earlier *keystore.Principal, now time.Time) (keystore.Principal, error) {
	if earlier != nil {
		return *earlier, h.meets(nil, earlier)
	}
	return h.judge(r, nil, now)
}

// judge makes the checks, all in this order. With a trace it notes them, and
// takes nothing from the limit.
func (h *Handler) judge(r *http.Request, t *keystore.Trace, now time.Time) (keystore.Principal, error) {
	p, err := h.authenticate(r, t, now)
	if err != nil {
		return p, err
	}
	if err := h.gate.permit(r, t, &p); err != nil {
		return p, err
	}
	if err := h.meets(t, &p); err != nil {
		return p, err
	}
	return p, h.gate.spend(t, &p, now)
}

func (h *Handler) authenticate(r *http.Request, t *keystore.Trace, now time.Time) (keystore.Principal, error) {
	t.At(keystore.CheckForm)
	presented, err := h.readCredential(r.Header)
	if err != nil {
		return keystore.Principal{}, err
	}
	presented.Trace = t
	return h.gate.authenticator.Authenticate(r.Context(), presented, now)
}

// meets asks for what this handler requires: ErrKeyType, ErrScope.
func (h *Handler) meets(t *keystore.Trace, p *keystore.Principal) error {
	if t.At(keystore.CheckType) && len(h.types) > 0 && !slices.Contains(h.types, p.Record.Type) {
		return keystore.ErrKeyType
	}
	t.At(keystore.CheckScope)
	for _, scope := range h.RequireScopes {
		if !p.Scopes.Grants(scope) {
			return keystore.ErrScope
		}
	}
	return nil
}

// readCredential accepts one header field with one value. The value is a
// list of one in nearly every request, so this looks before it loops.
func (h *Handler) readCredential(header http.Header) (keystore.Presented, error) {
	values := header[h.CredentialHeader]
	if len(values) > 1 || h.misspelled(header) {
		return keystore.Presented{}, keystore.ErrMalformed
	}
	if len(values) == 0 {
		return keystore.Presented{}, keystore.ErrNoCredential
	}
	if h.CredentialHeader == authorization {
		return keystore.ParseAuthorization(h.app.Prefix, values[0])
	}
	return keystore.ParseCredential(h.app.Prefix, values[0])
}

// misspelled: a second spelling of the credential header (X_Api_Key) would be
// a second credential for an API that folds names.
func (h *Handler) misspelled(header http.Header) bool {
	if h.CredentialHeader == authorization {
		return false // one word: it has no other spelling
	}
	for name := range header {
		if len(name) == len(h.credential) && name != h.CredentialHeader && foldedPrefix(name, h.credential) {
			return true
		}
	}
	return false
}

// takeCredential removes the credential: the API behind has no use for it.
func (h *Handler) takeCredential(r *http.Request) {
	if h.ForwardCredential || h.Shadow {
		return
	}
	delete(r.Header, h.CredentialHeader)
	if h.CredentialHeader != authorization {
		for name := range r.Header {
			if len(name) == len(h.credential) && foldedPrefix(name, h.credential) {
				delete(r.Header, name)
			}
		}
	}
}

func (h *Handler) passesWithoutCredential(r *http.Request) bool {
	if len(h.public) > 0 {
		path := rulePath(r)
		for _, pattern := range h.public {
			if pattern.Matches(path) {
				return true
			}
		}
	}
	return h.Preflight != "deny" && isPreflight(r)
}

// isPreflight recognises a CORS preflight (Fetch standard, §4.8). It has no
// body, and no header with which frameworks let it stand for another method.
func isPreflight(r *http.Request) bool {
	if r.Method != http.MethodOptions || r.ContentLength != 0 || len(overridingMethods(r.Header)) != 0 {
		return false
	}
	return len(r.Header["Origin"]) == 1 && len(r.Header["Access-Control-Request-Method"]) == 1
}

// admit makes the request what the next handler sees. It counts once, by the
// first handler of a chain.
func (h *Handler) admit(r *http.Request, p keystore.Principal, earlier *keystore.Principal, now time.Time) {
	h.takeCredential(r)
	if earlier != nil {
		return
	}
	h.gate.passed(p.Kind)
	p.Meter.Pass(p.Generation, now)
	admitted := &admission{principal: p}
	h.name(r, &admitted.values, &admitted.principal)
	caddyhttp.SetVar(r.Context(), admissionVar, admitted)
	providePlaceholders(r, userPlaceholders, &admitted.principal)
}

// name tells the API behind who calls.
func (h *Handler) name(r *http.Request, values *identityValues, p *keystore.Principal) {
	h.identity.set(r.Header, values, p, h.gate.metadata(p.Record))
}

// refuse answers, or in shadow mode only takes note.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler, p keystore.Principal, err error) error {
	f := refusalOf(err)
	h.gate.refused(r, h.logger, f, p, err)
	if h.Shadow {
		return next.ServeHTTP(w, r)
	}
	h.takeCredential(r) // error routes have no use for it either
	if p.Record != nil {
		candidate := p
		providePlaceholders(r, candidatePlaceholders, &candidate)
	}
	if limited, ok := errors.AsType[*keystore.LimitedError](err); ok {
		setRateLimit(w.Header(), limited.Allowance)
	}
	return f.write(w, r, h.Realm, strings.Join(h.RequireScopes, " "))
}

// isToken reports whether s is a token of RFC 9110 §5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
