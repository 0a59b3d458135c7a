package dialect

import (
	"errors"
	"net/http"
	"strings"

	"github.com/warderhq/warder/managementapi"
)

// What this package itself refuses.
var (
	errNoRoute   = errors.New("no such call")
	errNoTokens  = errors.New("no access tokens are issued")
	errTooMany   = errors.New("too many keys to list at once")
	errTimeRange = errors.New("time range is not valid")
	errPair      = errors.New("credentials are not good")
)

// methodError names the methods that a path has instead of the one asked for.
type methodError []string

func (methodError) Error() string { return "method is not allowed here" }

// refusals are those that the management API does not have.
var refusals = []struct {
	err    error
	status int
	code   string
	detail string
}{
	{errNoRoute, http.StatusNotFound, "not_found", "there is nothing at this path"},
	{errNoTokens, http.StatusServiceUnavailable, "no_issuer", "this configuration issues no access tokens"},
	{errTooMany, http.StatusBadRequest, "too_many", "there are too many keys for a list without pages; use the management API"},
	{errTimeRange, http.StatusBadRequest, "invalid_time_range", "must be 1 to 120 months, from one like 2026-01 to the same or a later one"},
	{errPair, http.StatusForbidden, "forbidden", "the credentials are not valid"},
}

// refusal is what a dialect has to put into its own words.
type refusal struct {
	err     error
	call    *call
	problem managementapi.Problem // as the management API would say it
}

func newRefusal(c *call, err error) refusal {
	p := managementapi.ProblemOf(err)
	for _, row := range refusals {
		if errors.Is(err, row.err) {
			p.Status, p.Code, p.Detail = row.status, row.code, row.detail
		}
	}
	if _, ok := errors.AsType[methodError](err); ok {
		p.Status, p.Code, p.Detail = http.StatusMethodNotAllowed, "method_not_allowed", "use one of the methods named in Allow"
	}
	return refusal{err, c, p}
}

// is reports whether the reason is, or wraps, target.
func (no *refusal) is(target error) bool { return errors.Is(no.err, target) }

// ofCredential reports whether what is wrong is the caller's credential.
func (no *refusal) ofCredential() bool {
	_, ok := errors.AsType[*managementapi.CallerError](no.err)
	return ok && (no.problem.Status == http.StatusUnauthorized || no.problem.Status == http.StatusBadRequest)
}

// text is what is told of the reason, with the place if there is one.
func (no *refusal) text() string {
	for _, place := range []string{strings.TrimPrefix(no.problem.Pointer, "/"), no.problem.Parameter, no.problem.Header} {
		if place != "" {
			return place + ": " + no.problem.Detail
		}
	}
	return no.problem.Detail
}

// setHeaders is for the status that the dialect has chosen.
func (no *refusal) setHeaders(h http.Header, status int) {
	if methods, ok := errors.AsType[methodError](no.err); ok {
		h.Set("Allow", strings.Join(methods, ", "))
	}
	no.problem.Status = status
	no.problem.SetHeaders(h, no.err)
}
