package tokenissuer

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/warderhq/warder/keystore"
)

// refusal is an error response of RFC 6749 §5.2. Status, code and text are
// fixed; the cause is for operators only and changes no byte of the answer.
type refusal struct {
	status      int
	outcome     Outcome // of the observation
	code        string  // of the answer
	description string

	challenge bool           // ask for Basic: the caller tried it
	key       keystore.KeyID // whom the caller proved to be
	cause     error
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
	if r.challenge {
		w.Header().Set("WWW-Authenticate", `Basic realm="token", charset="UTF-8"`)
	}
	if r.status == http.StatusServiceUnavailable {
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
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
