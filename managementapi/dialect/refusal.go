package dialect

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// What this package itself refuses.
var (
	errNoRoute   = errors.New("no such call")
	errNoTokens  = errors.New("no access tokens are issued")
	errTooMany   = errors.New("too many keys to list at once")
	errTimeRange = errors.New("time range is not valid")
)

// methodError names the methods that a path has instead of the one asked for.
type methodError []string

func (methodError) Error() string { return "method is not allowed here" }

// credentialError: what is wrong is not what the caller asks about, but the
// credential it asks with.
type credentialError struct{ err error }

func (e *credentialError) Error() string { return "identifying the caller: " + e.err.Error() }
func (e *credentialError) Unwrap() error { return e.err }

// denials are the verdicts on a credential. Their texts say no more than the
// gate does: what comes before it is proved is one.
var denials = []error{
	keystore.ErrNoCredential, keystore.ErrMalformed, keystore.ErrInvalid, keystore.ErrBlocked, keystore.ErrExpired,
	keystore.ErrDeactivated, keystore.ErrSuperseded, keystore.ErrTokenExpired,
}

// denied marks a verdict on the caller's credential. An outage is none.
func denied(err error) error {
	for _, denial := range denials {
		if errors.Is(err, denial) {
			return &credentialError{denial}
		}
	}
	return err
}

// refusals are those that the REST API does not have, or says otherwise.
var refusals = []struct {
	err    error
	status int
	code   string
	detail string
}{
	{errNoRoute, http.StatusNotFound, "not_found", "there is nothing at this path"},
	{errNoTokens, http.StatusServiceUnavailable, "no_issuer", "this configuration issues no access tokens"},
	{errTooMany, http.StatusBadRequest, "too_many", "there are too many keys for a list without pages; use the management API"},
	{errTimeRange, http.StatusBadRequest, "invalid_time_range", "the time range must be 1 to 120 months like 2026-01, the first before the last"},
	{errPair, http.StatusForbidden, "forbidden", "the credentials are not valid"},
	{keystore.ErrNetwork, http.StatusForbidden, "access_denied", "the credential may not be used from here"},
}

// refusal is what a dialect has to put into its own words.
type refusal struct {
	err     error
	call    *call
	problem managementapi.Problem // as the REST API would say it
}

func newRefusal(c *call, err error) refusal {
	p := managementapi.ProblemOf(err)
	for _, row := range refusals {
		if errors.Is(err, row.err) {
			p.Status, p.Code, p.Detail = row.status, row.code, row.detail
		}
	}
	if credential, ok := errors.AsType[*credentialError](err); ok {
		p.Status, p.Code, p.Detail = http.StatusUnauthorized, "unauthorized", credential.err.Error()
		if credential.err == keystore.ErrMalformed {
			p.Status, p.Code = http.StatusBadRequest, "invalid_request"
		}
	}
	if _, ok := errors.AsType[methodError](err); ok {
		p.Status, p.Code, p.Detail = http.StatusMethodNotAllowed, "method_not_allowed", "use one of the methods named in Allow"
	}
	if _, ok := retryAfter(err); ok {
		p.Status, p.Code, p.Detail = http.StatusTooManyRequests, "too_many_requests", "too many management calls; come again later"
	}
	return refusal{err, c, p}
}

// is reports whether the reason is, or wraps, target.
func (no *refusal) is(target error) bool { return errors.Is(no.err, target) }

// text is what is told of the reason, with the place if there is one.
func (no *refusal) text() string {
	for _, place := range []string{strings.TrimPrefix(no.problem.Pointer, "/"), no.problem.Parameter, no.problem.Header} {
		if place != "" {
			return place + ": " + no.problem.Detail
		}
	}
	return no.problem.Detail
}

// headers are what HTTP itself wants of a refusal.
func (no *refusal) headers(h http.Header, status int) {
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="warder"`)
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		h.Set("Retry-After", strconv.Itoa(1+rand.IntN(5))) // apart, lest all come back at once
	case http.StatusTooManyRequests:
		wait, _ := retryAfter(no.err)
		h.Set("Retry-After", strconv.Itoa(max(1, int((wait+time.Second-1)/time.Second))))
	case http.StatusMethodNotAllowed:
		if methods, ok := errors.AsType[methodError](no.err); ok {
			h.Set("Allow", strings.Join(methods, ", "))
		}
	}
}

// retryAfter returns when a caller that asks too often may come again.
func retryAfter(err error) (time.Duration, bool) {
	var limited interface{ RetryAfter() time.Duration }
	if !errors.As(err, &limited) {
		return 0, false
	}
	return limited.RetryAfter(), true
}
