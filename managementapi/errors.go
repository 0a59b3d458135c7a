package managementapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

// What this package itself refuses.
var (
	errCrossOrigin    = errors.New("request comes from another site")
	errNoRoute        = errors.New("no such route")
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
	// ErrMethod: the path is served, but not with this method. Allow says which.
	ErrMethod = errors.New("method is not allowed here")
	// ErrRemote: the endpoint can be reached from elsewhere, and nobody has
	// said that this is meant.
	ErrRemote = errors.New("admin endpoint is not local")
	// ErrTooManyRequests: the caller asks more often than the mount allows.
	// See TooManyRequestsError.
	ErrTooManyRequests = errors.New("too many management calls")
)

// TooManyRequestsError says when the caller may come again. It is an
// ErrTooManyRequests.
type TooManyRequestsError struct{ RetryAfter time.Duration }

func (e *TooManyRequestsError) Error() string {
	return fmt.Sprintf("%v, again after %s", ErrTooManyRequests, e.RetryAfter)
}

// Unwrap makes errors.Is(err, ErrTooManyRequests) true.
func (e *TooManyRequestsError) Unwrap() error { return ErrTooManyRequests }

// CallerError is why the caller was not identified: what is wrong is not what
// it asks about, but itself.
type CallerError struct{ Err error }

func (e *CallerError) Error() string { return "identifying the caller: " + e.Err.Error() }

// Unwrap makes errors.Is see the reason.
func (e *CallerError) Unwrap() error { return e.Err }

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

	// What still refers to a permission, or the first of it.
	Keys          []keystore.KeyID `json:"keys,omitempty"`
	Organizations []string         `json:"organizations,omitempty"`

	RetryAfter time.Duration `json:"-"` // as a Client was told; zero: it was not
}

const problemType = "application/problem+json"

// errorRow is what a caller hears of an error.
type errorRow struct {
	err    error
	status int
	code   string
	detail string
}

// callerTable is searched first for why a caller was not identified.
var callerTable = []errorRow{
	{keystore.ErrMalformed, http.StatusBadRequest, "invalid_request", "send exactly one credential, in one well-formed header"},
	{keystore.ErrBlocked, http.StatusUnauthorized, "invalid_token", "the key that calls is blocked"},
	{keystore.ErrExpired, http.StatusUnauthorized, "invalid_token", "the key that calls is expired"},
	{keystore.ErrDeactivated, http.StatusUnauthorized, "invalid_token", "the key that calls is deactivated"},
	{keystore.ErrSuperseded, http.StatusUnauthorized, "invalid_token", "the secret was replaced by a newer one"},
	{keystore.ErrTokenExpired, http.StatusUnauthorized, "invalid_token", "the access token is expired"},
	{keystore.ErrTokenRevoked, http.StatusUnauthorized, "invalid_token", "the access token was revoked"},
	{keystore.ErrLimited, http.StatusTooManyRequests, "too_many_requests", "the key that calls is used more often than it may; try again after Retry-After"},
	{keystore.ErrPermission, http.StatusForbidden, "access_denied", "no permission of the key that calls allows this"},
	{keystore.ErrNetwork, http.StatusForbidden, "access_denied", "the key that calls may not be used from this address"},
}

// readinessTable is searched first for why a node is not ready.
var readinessTable = []errorRow{
	{ErrStarting, http.StatusServiceUnavailable, "starting", "this configuration does not run yet"},
	{ErrStopping, http.StatusServiceUnavailable, "stopping", "this server is shutting down"},
	{keystore.ErrStale, http.StatusServiceUnavailable, "lease_over", "this node has not heard of the store for longer than it may, and refuses every request until it has"},
	{keystore.ErrUnavailable, http.StatusServiceUnavailable, "store_unavailable", "the store does not answer, so that keys which are not in memory cannot be known"},
}

// errorTable says, for every error that a caller may hear of, what it hears.
// The texts name the remedy. Whatever is not here is an internal error.
var errorTable = []errorRow{
	{errCrossOrigin, http.StatusForbidden, "cross_origin", "requests on behalf of another site are not accepted"},
	{errNoRoute, http.StatusNotFound, "not_found", "there is nothing at this path"},
	{ErrMethod, http.StatusMethodNotAllowed, "method_not_allowed", "use one of the methods named in Allow"},
	{errMediaType, http.StatusUnsupportedMediaType, "unsupported_media_type", "send the body as application/json, or a PATCH as application/merge-patch+json"},
	{errBodyTooLarge, http.StatusRequestEntityTooLarge, "body_too_large", "a body has at most 1 MiB"},
	{errBodyUnread, http.StatusBadRequest, "body_incomplete", "the body did not arrive whole and in time"},
	{errNotJSON, http.StatusBadRequest, "invalid_json", "the body must be exactly one JSON object in UTF-8"},
	{errTooDeep, http.StatusBadRequest, "too_deep", "the body is nested too deeply"},
	{errDuplicateField, http.StatusBadRequest, "duplicate_field", "the field is there twice"},
	{errUnknownField, http.StatusBadRequest, "unknown_field", "the field does not exist here; names are case-sensitive"},
	{errNoIssuer, http.StatusNotFound, "no_issuer", "this configuration issues no access tokens, so it has no signing keys"},
	{errNotLocal, http.StatusForbidden, "local_only", "this is done on the admin endpoint of the server itself, and nowhere else"},
	{ErrNoCopy, http.StatusConflict, "no_backup", "PostgreSQL's own tools back up this store: pg_dump, or base backups with an archive of its log"},
	{ErrMasterKeyConfigured, http.StatusConflict, "master_key_configured", "the master key is configured: set master_key to a new one and previous_master_key to the present one, and restart every node"},
	{keystore.ErrFormerMasterKey, http.StatusConflict, "former_master_key", "the node that answers does not have the present master key; give it to every node, restart them, and finish then"},
	{ErrRemote, http.StatusForbidden, "remote_endpoint", "this admin endpoint is not on a loopback address or socket; allow it with admin_api remote"},
	{ErrNotConfigured, http.StatusServiceUnavailable, "not_configured", "the running configuration has no warder app"},
	{ErrTooManyRequests, http.StatusTooManyRequests, "too_many_requests", "too many management calls; try again after Retry-After"},

	{keystore.ErrNoCredential, http.StatusUnauthorized, "unauthorized", "send a credential"},
	{keystore.ErrInvalid, http.StatusUnauthorized, "invalid_token", "the credential is not valid"},
	{keystore.ErrForbidden, http.StatusForbidden, "forbidden", "the caller does not hold the scope that this needs or grants"},

	{keystore.ErrKeyNotFound, http.StatusNotFound, "key_not_found", "there is no such key"},
	{keystore.ErrOrganizationNotFound, http.StatusNotFound, "organization_not_found", "there is no such organization"},
	{keystore.ErrOrganizationExists, http.StatusConflict, "organization_exists", "there is an organization of this name; choose another"},
	{keystore.ErrNameTaken, http.StatusConflict, "name_taken", "the organization has another one of this name; choose another"},
	{keystore.ErrOrganizationInUse, http.StatusConflict, "organization_in_use", "the organization still has keys; delete all but its last standard one first"},
	{keystore.ErrDefaultOrganization, http.StatusConflict, "default_organization", "the default organization cannot be deleted"},
	{keystore.ErrPermissionNotFound, http.StatusNotFound, "permission_not_found", "there is no such permission"},
	{keystore.ErrPermissionInUse, http.StatusConflict, "permission_in_use", "keys or organizations refer to the permission; take it from them first"},
	{keystore.ErrCredentialTaken, http.StatusConflict, "credential_taken", "the credential belongs to a key of another organization"},
	{keystore.ErrLastKey, http.StatusConflict, "last_key", "an organization keeps its last standard key; make another one first, or delete the organization"},
	{keystore.ErrNoGracePeriod, http.StatusConflict, "no_grace_period", "no secret of the key was rotated out, or the one that was is ended for good"},
	{keystore.ErrNeverExpires, http.StatusConflict, "never_expires", "the key never expires, so it cannot be renewed"},
	{keystore.ErrBlocked, http.StatusConflict, "blocked", "the key is blocked; unblock it first"},
	{keystore.ErrExpired, http.StatusConflict, "expired", "the key is expired; renew or regenerate it"},
	{keystore.ErrStaleEdit, http.StatusPreconditionFailed, "stale_revision", "it has changed since the revision in If-Match; read it again"},
	{keystore.ErrReplayMismatch, http.StatusUnprocessableEntity, "replay_mismatch", "this Idempotency-Key was used with another body; use a new one"},
	{keystore.ErrReplayRunning, http.StatusConflict, "replay_running", "a request with this Idempotency-Key is still running; try again"},
	{keystore.ErrReplaySecretGone, http.StatusConflict, "replay_secret_gone", "this was done more than ten minutes ago, and its secret is not kept any longer; rotate the key named by id for a new one"},

	{tokenissuer.ErrRotatedTooOften, http.StatusConflict, "rotated_too_often", "too many retired signing keys still verify; wait until some are dropped"},

	{keystore.ErrNotInForce, http.StatusServiceUnavailable, "not_in_force", "the change is made, but not in force here yet; do not repeat it, look"},
	{context.Canceled, http.StatusServiceUnavailable, "unavailable", unavailableDetail},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, "unavailable", unavailableDetail},
	{keystore.ErrStale, http.StatusServiceUnavailable, "unavailable", unavailableDetail},
	{keystore.ErrPositionLost, http.StatusServiceUnavailable, "unavailable", unavailableDetail},
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
	p := ProblemOf(err)
	body, encodeErr := encode(p)
	if encodeErr != nil {
		body = nil // a Problem of strings and numbers always encodes
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", problemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	p.SetHeaders(h, err)
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // a caller that has gone cannot be told
}

// SetHeaders sets what HTTP itself wants of a refusal with err: when to come
// again, how to authenticate.
func (p Problem) SetHeaders(h http.Header, err error) {
	switch p.Status {
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		h.Set("Retry-After", strconv.Itoa(1+rand.IntN(5))) // apart, lest all come back at once
	case http.StatusTooManyRequests:
		h.Set("Retry-After", strconv.Itoa(retrySeconds(err)))
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", challenge(p.Code))
	case http.StatusUnsupportedMediaType:
		h.Set("Accept-Patch", mergePatchType)
	}
}

// retrySeconds rounds up: who comes back in time must not be early.
func retrySeconds(err error) int {
	wait := time.Second
	if e, ok := errors.AsType[*TooManyRequestsError](err); ok {
		wait = max(wait, e.RetryAfter)
	}
	return int((wait + time.Second - 1) / time.Second)
}

// challenge names no error if no credential was sent (RFC 6750 §3.1).
func challenge(code string) string {
	if code == "invalid_token" {
		return `Bearer realm="warder", error="invalid_token"`
	}
	return `Bearer realm="warder"`
}

// ProblemOf returns what a caller is told about err.
func ProblemOf(err error) Problem {
	p := Problem{Status: http.StatusInternalServerError, Code: "internal", Detail: "an internal error; the log of the server says more"}
	rows := errorTable
	if _, ok := errors.AsType[*CallerError](err); ok {
		rows = slices.Concat(callerTable, errorTable)
	}
	if _, ok := errors.AsType[*NotReadyError](err); ok {
		rows = slices.Concat(readinessTable, errorTable)
	}
	for _, row := range rows {
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
	switch p.Code {
	case "name_taken":
		p.Pointer = "/name"
	case "organization_exists":
		p.Pointer = "/slug"
	case "stale_revision":
		p.Header = "If-Match"
	}
	if e, ok := errors.AsType[*keystore.ItemError](err); ok {
		p.Pointer = e.Pointer + p.Pointer
	}
	p.name(err)
}

// name adds which things the reason is about.
func (p *Problem) name(err error) {
	if e, ok := errors.AsType[*keystore.ReplaySecretGoneError](err); ok {
		p.KeyID = e.Key
	}
	if e, ok := errors.AsType[*keystore.PermissionInUseError](err); ok {
		p.Keys, p.Organizations = e.Keys, e.Organizations
	}
}

// refine makes a bad request of what no row of the table knows.
func (p *Problem) refine(code, reason string) {
	if p.Code == "internal" {
		p.Status, p.Code, p.Detail = http.StatusBadRequest, code, reason
	}
}
