package managementapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

// What this package itself refuses.
var (
	errCrossOrigin    = errors.New("request comes from another site")
	errNoRoute        = errors.New("no such route")
	errMethod         = errors.New("method is not allowed here")
	errMediaType      = errors.New("body is not declared as JSON")
	errBodyTooLarge   = errors.New("body is too large")
	errBodyUnread     = errors.New("body did not arrive")
	errNotJSON        = errors.New("body is not one JSON object")
	errTooDeep        = errors.New("body is nested too deeply")
	errDuplicateField = errors.New("body names a field twice")
	errNoIssuer       = errors.New("no access tokens are issued")
	errUnknownField   = errors.New("body names an unknown field")
)

// Refusals of a mount that has no API to offer. See WriteError.
var (
	// ErrNotConfigured: the server runs, but without Warder.
	ErrNotConfigured = errors.New("no warder app is configured")
	// ErrRemote: the endpoint can be reached from elsewhere, and nobody has
	// said that this is meant.
	ErrRemote = errors.New("admin endpoint is not local")
)

// Problem is the body of a refusal (RFC 9457). Code is stable.
type Problem struct {
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Code      string         `json:"code"`
	Detail    string         `json:"detail"`
	Pointer   string         `json:"pointer,omitempty"`   // of the bad field in the body (RFC 6901)
	Parameter string         `json:"parameter,omitempty"` // the bad query parameter
	Header    string         `json:"header,omitempty"`    // the bad header
	KeyID     keystore.KeyID `json:"id,omitempty"`        // of the key that an earlier call made
}

const problemType = "application/problem+json"

// errorTable says, for every error that a caller may hear of, what it hears.
// The texts name the remedy. Whatever is not here is an internal error.
var errorTable = []struct {
	err    error
	status int
	code   string
	detail string
}{
	{errCrossOrigin, http.StatusForbidden, "cross_origin", "requests on behalf of another site are not accepted"},
	{errNoRoute, http.StatusNotFound, "not_found", "there is nothing at this path"},
	{errMethod, http.StatusMethodNotAllowed, "method_not_allowed", "use one of the methods named in Allow"},
	{errMediaType, http.StatusUnsupportedMediaType, "unsupported_media_type", "send the body as application/json, or a PATCH as application/merge-patch+json"},
	{errBodyTooLarge, http.StatusRequestEntityTooLarge, "body_too_large", "a body has at most 1 MiB"},
	{errBodyUnread, http.StatusBadRequest, "body_incomplete", "the body did not arrive whole and in time"},
	{errNotJSON, http.StatusBadRequest, "invalid_json", "the body must be exactly one JSON object in UTF-8"},
	{errTooDeep, http.StatusBadRequest, "too_deep", "the body is nested too deeply"},
	{errDuplicateField, http.StatusBadRequest, "duplicate_field", "the field is there twice"},
	{errUnknownField, http.StatusBadRequest, "unknown_field", "the field does not exist here; names are case-sensitive"},
	{errNoIssuer, http.StatusNotFound, "no_issuer", "this configuration issues no access tokens, so it has no signing keys"},
	{ErrRemote, http.StatusForbidden, "remote_endpoint", "this admin endpoint is not on a loopback address or socket; allow it with admin_api remote"},
	{ErrNotConfigured, http.StatusServiceUnavailable, "not_configured", "the running configuration has no warder app"},

	{keystore.ErrNoCredential, http.StatusUnauthorized, "unauthorized", "send a credential"},
	{keystore.ErrInvalid, http.StatusUnauthorized, "invalid_token", "the credential is not valid"},
	{keystore.ErrForbidden, http.StatusForbidden, "forbidden", "the caller does not hold the scope that this needs or grants"},

	{keystore.ErrKeyNotFound, http.StatusNotFound, "key_not_found", "there is no such key"},
	{keystore.ErrOrganizationNotFound, http.StatusNotFound, "organization_not_found", "there is no such organization"},
	{keystore.ErrOrganizationExists, http.StatusConflict, "organization_exists", "there is an organization of this name; choose another"},
	{keystore.ErrNameTaken, http.StatusConflict, "name_taken", "another key of the organization has this name; choose another"},
	{keystore.ErrNeverExpires, http.StatusConflict, "never_expires", "the key never expires, so it cannot be renewed"},
	{keystore.ErrBlocked, http.StatusConflict, "blocked", "the key is blocked; unblock it first"},
	{keystore.ErrExpired, http.StatusConflict, "expired", "the key is expired; renew or regenerate it"},
	{keystore.ErrStaleEdit, http.StatusPreconditionFailed, "stale_revision", "it has changed since the revision in If-Match; read it again"},
	{keystore.ErrReplayMismatch, http.StatusUnprocessableEntity, "replay_mismatch", "this Idempotency-Key was used with another body; use a new one"},
	{keystore.ErrReplayRunning, http.StatusConflict, "replay_running", "a request with this Idempotency-Key is still running; try again"},
	{keystore.ErrReplaySecretGone, http.StatusConflict, "replay_secret_gone", "this was done more than ten minutes ago, and its secret is not kept any longer; rotate the key named by id for a new one"},

	{tokenissuer.ErrRotatedTooOften, http.StatusConflict, "rotated_too_often", "too many retired signing keys still verify; wait until some are dropped"},

	{context.Canceled, http.StatusServiceUnavailable, "unavailable", unavailableDetail},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "unavailable", unavailableDetail},
	{keystore.ErrStale, http.StatusServiceUnavailable, "unavailable", unavailableDetail},
	{keystore.ErrUnavailable, http.StatusServiceUnavailable, "unavailable", unavailableDetail},
}

// A change may be committed although nobody could be told, so nothing else
// can be said about it here.
const unavailableDetail = "the store does not answer now; whether a change was made is not known: retry with an Idempotency-Key, or look"

// parameterError is a query parameter, headerError a header, that cannot be
// meant as it stands.
type (
	parameterError struct{ name, reason string }
	headerError    struct{ name, reason string }
)

func (e *parameterError) Error() string { return "parameter " + e.name + ": " + e.reason }
func (e *headerError) Error() string    { return "header " + e.name + ": " + e.reason }

// WriteError answers err by the error table. A mount uses it for what it
// refuses before the API is reached.
func WriteError(w http.ResponseWriter, err error) {
	p := problemOf(err)
	body, encodeErr := encode(p)
	if encodeErr != nil {
		body = nil // a Problem of strings and numbers always encodes
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", problemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	switch p.Status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(1+rand.IntN(5))) // apart, lest all come back at once
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="warder"`)
	case http.StatusUnsupportedMediaType:
		h.Set("Accept-Patch", mergePatchType)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a caller that has gone cannot be told
}

func problemOf(err error) Problem {
	p := Problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "an internal error; the log of the server says more"}
	for _, row := range errorTable {
		if errors.Is(err, row.err) {
			p = Problem{Status: row.status, Code: row.code, Detail: row.detail}
			break
		}
	}
	p.locate(err)
	p.Title = http.StatusText(p.Status)
	return p
}

// locate adds where in the request the reason stands.
func (p *Problem) locate(err error) {
	if e, ok := errors.AsType[*keystore.FieldError](err); ok {
		p.Pointer = e.Pointer
		p.refine("invalid_field", e.Reason)
	}
	if e, ok := errors.AsType[*parameterError](err); ok {
		p.Parameter = e.name
		p.refine("invalid_parameter", e.reason)
	}
	if e, ok := errors.AsType[*headerError](err); ok {
		p.Header = e.name
		p.refine("invalid_header", e.reason)
	}
	if e, ok := errors.AsType[*keystore.ReplaySecretGoneError](err); ok {
		p.KeyID = e.Key
	}
	switch p.Code {
	case "name_taken":
		p.Pointer = "/name"
	case "organization_exists":
		p.Pointer = "/slug"
	case "stale_revision":
		p.Header = "If-Match"
	}
}

// refine makes a bad request of what no row of the table knows.
func (p *Problem) refine(code, reason string) {
	if p.Code == "internal" {
		p.Status, p.Code, p.Detail = http.StatusBadRequest, code, reason
	}
}
