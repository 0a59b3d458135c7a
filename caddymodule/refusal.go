package caddymodule

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
)

// errPath: the request's path has no one meaning; see normalise.
var errPath = errors.New("path is ambiguous")

// refusal is one row of the table from what happened to what the caller sees.
// Its text is fixed: nothing of the request or the store gets into it.
type refusal struct {
	cause  error
	status int
	code   string // stable, for machines
	reason string // why a credential proved to be the caller's own does not pass
	detail string // for people

	// challenge is the error code of RFC 6750 §3.1 for WWW-Authenticate;
	// none on a 401 is the bare challenge.
	challenge string
	usage     keystore.Outcome // of a key that is known; allowed: of none
	body      []byte           // application/problem+json (RFC 9457)
}

// refusals is searched in order. The last row is for everything unforeseen:
// an outage is not a denial, and what is not understood does not pass.
var refusals = rendered([]refusal{
	{cause: keystore.ErrNoCredential, status: 401, code: "credential_missing", detail: "This resource needs an API key or an access token."},
	{cause: errPath, status: 400, code: "invalid_request", detail: "The path is ambiguous: dot segments, encoded slashes, backslashes and control characters are not accepted.", challenge: "invalid_request"},
	{cause: keystore.ErrMalformed, status: 400, code: "invalid_request", detail: "Exactly one credential is accepted, in one well-formed header.", challenge: "invalid_request"},
	{cause: keystore.ErrInvalid, status: 401, code: "invalid_token", detail: "The credential is not valid.", challenge: "invalid_token"},
	{cause: keystore.ErrBlocked, status: 401, code: "invalid_token", reason: "blocked", detail: "The key is blocked.", challenge: "invalid_token", usage: keystore.OutcomeBlocked},
	{cause: keystore.ErrExpired, status: 401, code: "invalid_token", reason: "expired", detail: "The key has expired.", challenge: "invalid_token", usage: keystore.OutcomeExpired},
	{cause: keystore.ErrDeactivated, status: 401, code: "invalid_token", reason: "deactivated", detail: "The key is deactivated.", challenge: "invalid_token", usage: keystore.OutcomeDeactivated},
	{cause: keystore.ErrSuperseded, status: 401, code: "invalid_token", reason: "superseded", detail: "The secret was replaced by a newer one.", challenge: "invalid_token", usage: keystore.OutcomeSuperseded},
	{cause: keystore.ErrTokenExpired, status: 401, code: "invalid_token", reason: "token_expired", detail: "The access token has expired.", challenge: "invalid_token"},
	{cause: keystore.ErrTokenRevoked, status: 401, code: "invalid_token", reason: "token_revoked", detail: "The access token was revoked.", challenge: "invalid_token"},
	{cause: keystore.ErrNetwork, status: 403, code: "access_denied", reason: "network", detail: "The key may not be used from this address.", usage: keystore.OutcomeNetwork},
	{cause: keystore.ErrPermission, status: 403, code: "insufficient_scope", reason: "permission", detail: "The key has no permission for this method and path.", challenge: "insufficient_scope", usage: keystore.OutcomePermission},
	{cause: keystore.ErrScope, status: 403, code: "insufficient_scope", detail: "The credential lacks a required scope.", challenge: "insufficient_scope", usage: keystore.OutcomeScope},
	{cause: keystore.ErrKeyType, status: 403, code: "access_denied", detail: "Keys of this type are not allowed here.", usage: keystore.OutcomeScope},
	{cause: keystore.ErrLimited, status: 429, code: "rate_limited", detail: "The key is used more often than it may.", usage: keystore.OutcomeLimited},
	{cause: keystore.ErrStale, status: 503, code: "temporarily_unavailable", detail: "Credentials cannot be checked at the moment."},
	{status: 503, code: "temporarily_unavailable", detail: "Credentials cannot be checked at the moment."},
})

func rendered(table []refusal) []refusal {
	for i := range table {
		row := &table[i]
		body, err := json.Marshal(struct {
			Type   string `json:"type"`
			Title  string `json:"title"`
			Status int    `json:"status"`
			Code   string `json:"code"`
			Reason string `json:"reason,omitempty"`
			Detail string `json:"detail"`
		}{"about:blank", http.StatusText(row.status), row.status, row.code, row.reason, row.detail})
		if err != nil {
			panic(err) // plain strings always encode
		}
		row.body = append(body, '\n')
	}
	return table
}

// refusalOf finds the row for err.
func refusalOf(err error) *refusal {
	last := len(refusals) - 1
	for i := range refusals[:last] {
		if errors.Is(err, refusals[i].cause) {
			return &refusals[i]
		}
	}
	return &refusals[last]
}

// outcome is the row's name in metrics and events: the reason where there is
// one, else the code.
func (f *refusal) outcome() string {
	if f.reason != "" {
		return f.reason
	}
	return f.code
}

// write answers the request, or, when the server has error routes, sets
// headers and placeholders and leaves the body to them.
func (f *refusal) write(w http.ResponseWriter, r *http.Request, realm, scope string) error {
	h := w.Header()
	f.setHeaders(h, realm, scope)
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set("http.warder.error.status", f.status)
		repl.Set("http.warder.error.code", f.code)
		repl.Set("http.warder.error.reason", f.reason)
		repl.Set("http.warder.error.detail", f.detail)
	}
	if hasErrorRoutes(r) {
		return caddyhttp.Error(f.status, errors.New(f.detail))
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	w.WriteHeader(f.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(f.body) // the caller has gone: nothing to be done
	}
	return nil
}

func (f *refusal) setHeaders(h http.Header, realm, scope string) {
	h.Set("Cache-Control", "no-store")
	if f.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(1+rand.IntN(5)))
		return
	}
	if f.status != http.StatusUnauthorized && f.challenge == "" {
		return
	}
	var b strings.Builder
	b.WriteString(`Bearer realm="` + realm + `"`)
	if f.challenge != "" {
		b.WriteString(`, error="` + f.challenge + `", error_description="` + f.detail + `"`)
	}
	if f.cause == keystore.ErrScope && scope != "" {
		b.WriteString(`, scope="` + scope + `"`)
	}
	h.Set("WWW-Authenticate", b.String())
}

func hasErrorRoutes(r *http.Request) bool {
	srv, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	return ok && srv != nil && srv.Errors != nil && len(srv.Errors.Routes) > 0
}
