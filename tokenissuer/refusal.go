package tokenissuer

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/warderhq/warder/keystore"
)

// refusal is an error response of RFC 6749 §5.2. Status, code and text are
// fixed; the cause is for operators only and changes no byte of the answer.
type refusal struct {
	status      int
	outcome     Outcome // of the observation
	code        string  // of the answer
	description string

	challenge  string         // of WWW-Authenticate, in the scheme that the caller tried
	retryAfter time.Duration  // zero: the status says whether and when
	key        keystore.KeyID // whom the caller proved to be
	cause      error
}

// The one table of what is answered.
var (
	refusedMethod = refusal{status: http.StatusMethodNotAllowed, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "This method is not allowed here."}
	refusedQuery = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "Parameters belong into the body, not into the URL."}
	refusedContentType = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "The body must be application/x-www-form-urlencoded or application/json."}
	refusedBody = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "The body cannot be read, or has unknown or repeated members."}
	refusedRepetition = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "A parameter is repeated."}
	refusedTooLarge = refusal{status: http.StatusRequestEntityTooLarge, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "The body is too large."}
	refusedTooSlow = refusal{status: http.StatusRequestTimeout, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "The body took too long."}
	refusedGrantMissing = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "The parameter grant_type is missing."}
	refusedGrant = refusal{status: http.StatusBadRequest, outcome: OutcomeUnsupportedGrant,
		code: "unsupported_grant_type", description: "The only grant type is client_credentials."}
	refusedTwoMethods = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "Credentials are given more than once, or are malformed."}
	refusedClient = refusal{status: http.StatusUnauthorized, outcome: OutcomeInvalidClient,
		code: "invalid_client", description: "Client authentication failed."}
	refusedBearer = refusal{status: http.StatusUnauthorized, outcome: OutcomeInvalidClient,
		code: "invalid_token", description: "The credential of the caller is not valid here."}
	refusedTooMany = refusal{status: http.StatusTooManyRequests, outcome: OutcomeTooMany,
		code: "too_many_requests", description: "Client authentication failed too often from this address; wait."}
	refusedTokenMissing = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "The parameter token is missing."}
	refusedFormType = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidRequest,
		code: "invalid_request", description: "The body must be application/x-www-form-urlencoded."}
	refusedTokenType = refusal{status: http.StatusBadRequest, outcome: OutcomeUnsupportedToken,
		code: "unsupported_token_type", description: "Only access tokens are revoked here; an API key is deactivated, rotated or deleted."}
	refusedTarget = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidTarget,
		code: "invalid_target", description: "A resource is malformed or is none that access tokens are issued for."}
	refusedScope = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidScope,
		code: "invalid_scope", description: "The scope is malformed or exceeds what the key holds."}
	refusedTooManyScopes = refusal{status: http.StatusBadRequest, outcome: OutcomeInvalidScope,
		code: "invalid_scope", description: "The scopes do not fit into one access token; ask for fewer."}
	refusedUnavailable = refusal{status: http.StatusServiceUnavailable, outcome: OutcomeUnavailable,
		code: "temporarily_unavailable", description: "Try again in a few seconds."}
	refusedInternally = refusal{status: http.StatusInternalServerError, outcome: OutcomeServerError,
		code: "server_error", description: "The request could not be answered."}
)

// because returns the refusal with its reason for operators.
func (r refusal) because(cause error) refusal {
	r.cause = cause
	return r
}

// after returns the refusal with the time after which to come again.
func (r refusal) after(wait time.Duration) refusal {
	r.retryAfter = wait
	return r
}

func (r refusal) Error() string {
	if r.cause != nil {
		return r.code + ": " + r.cause.Error()
	}
	return r.code + ": " + r.description
}

func (r refusal) Unwrap() error { return r.cause }

// maxRetryAfter spreads returning callers over so many seconds.
const maxRetryAfter = 5

func (r refusal) write(w http.ResponseWriter) {
	if r.challenge != "" {
		w.Header().Set("WWW-Authenticate", r.challenge)
	}
	switch {
	case r.retryAfter > 0:
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(r.retryAfter.Seconds()))))
	case r.status == http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(maxRetryAfter)))
	}
	writeJSON(w, r.status, struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}{r.code, r.description})
}

// writeJSON answers with something that nobody may keep (RFC 6749 §5.1).
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and numbers only
	}
	neverCached(w.Header())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

func neverCached(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
}
