package tokenissuer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/warderhq/warder/keystore"
)

// Bounds of the body of a token request.
const (
	maxBody  = 16 << 10
	bodyTime = 10 * time.Second
)

const grantClientCredentials = "client_credentials"

// tokenRequest is a request for an access token, read but not yet judged.
type tokenRequest struct {
	presented keystore.Presented // of kind none if the caller did not authenticate
	basic     bool               // the caller tried Basic
	scope     string             // empty: not restricted
}

// parameters are those of the body that mean something here. Empty is absent
// (RFC 6749 §3.2).
type parameters struct {
	grant  string
	scope  string
	access string
	secret keystore.Secret
}

// readTokenRequest reads one request, cheapest checks first. Every error is a
// refusal.
func readTokenRequest(w http.ResponseWriter, r *http.Request) (tokenRequest, error) {
	if r.URL.RawQuery != "" || r.URL.ForceQuery {
		return tokenRequest{}, refusedQuery
	}
	parse, err := bodyParser(r.Header["Content-Type"])
	if err != nil {
		return tokenRequest{}, err
	}
	body, err := readBody(w, r)
	if err != nil {
		return tokenRequest{}, err
	}
	params, err := parse(body)
	if err != nil {
		return tokenRequest{}, err
	}
	switch params.grant {
	case grantClientCredentials:
		return clientOf(r.Header["Authorization"], params)
	case "":
		return tokenRequest{}, refusedGrantMissing
	default:
		return tokenRequest{}, refusedGrant
	}
}

// clientOf returns the request with its one method of authentication. Two,
// even with equal credentials, are refused (RFC 6749 §2.3).
func clientOf(authorization []string, params parameters) (tokenRequest, error) {
	asked := tokenRequest{scope: params.scope}
	inBody := params.access != "" || params.secret != ""
	switch {
	case len(authorization) > 1 || len(authorization) == 1 && inBody:
		return tokenRequest{}, refusedTwoMethods
	case len(authorization) == 1:
		err := asked.authorize(authorization[0])
		return asked, err
	case inBody:
		asked.presented = keystore.Presented{
			Kind: keystore.CredentialKey, Access: keystore.AccessKey(params.access), Secret: params.secret.Reveal(),
		}
	}
	return asked, nil
}

// authorize reads Basic (RFC 6749 §2.3.1). Form-encoding the pair before
// changes nothing: it consists of letters and digits. Another scheme
// authenticates nobody here.
func (t *tokenRequest) authorize(value string) error {
	scheme, _, _ := strings.Cut(value, " ")
	if !strings.EqualFold(scheme, "basic") {
		return nil
	}
	t.basic = true
	presented, err := keystore.ParseAuthorization(keystore.DefaultPrefix, value)
	if errors.Is(err, keystore.ErrMalformed) {
		return refusedTwoMethods.because(err)
	}
	if err != nil {
		return deniedClient(true, err)
	}
	t.presented = presented
	return nil
}

// bodyParser chooses by the one Content-Type.
func bodyParser(contentType []string) (func([]byte) (parameters, error), error) {
	if len(contentType) != 1 {
		return nil, refusedContentType
	}
	mediaType, params, err := mime.ParseMediaType(contentType[0])
	if charset := params["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return nil, refusedContentType
	}
	switch mediaType {
	case "application/x-www-form-urlencoded":
		return parseForm, nil
	case "application/json":
		return parseJSON, nil
	default:
		return nil, refusedContentType
	}
}

// readBody reads the whole body within its bounds. A writer without read
// deadlines does not make it wait any longer.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		return nil, refusedTooLarge
	}
	limited := http.MaxBytesReader(w, r.Body, maxBody)
	control := http.NewResponseController(w)
	if control.SetReadDeadline(time.Now().Add(bodyTime)) != nil {
		body, err := readBodyUntil(limited, time.After(bodyTime))
		if err != nil && r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close") // or the server waits for the rest before it answers
		}
		return body, err
	}
	body, err := io.ReadAll(limited)
	if err != nil {
		return nil, bodyRefusal(err) // the deadline stays: nobody waits for the rest either
	}
	_ = control.SetReadDeadline(time.Time{}) // what follows has its own bounds
	return body, nil
}

// readBodyUntil leaves a read that is late to itself: it ends when the server
// closes the body after the answer.
func readBodyUntil(body io.Reader, late <-chan time.Time) ([]byte, error) {
	type result struct {
		body []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		body, err := io.ReadAll(body)
		done <- result{body, err}
	}()
	select {
	case read := <-done:
		if read.err != nil {
			return nil, bodyRefusal(read.err)
		}
		return read.body, nil
	case <-late:
		return nil, refusedTooSlow
	}
}

func bodyRefusal(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return refusedTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return refusedTooSlow
	default:
		return refusedBody.because(err)
	}
}

// parseForm reads a form (RFC 6749 Appendix B). Unknown parameters are
// ignored, repeated ones refused, unknown and empty ones too (§3.2).
func parseForm(body []byte) (parameters, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return parameters{}, refusedBody // the error would quote the body
	}
	for _, values := range form {
		if len(values) > 1 {
			return parameters{}, refusedRepetition
		}
	}
	return parameters{
		grant:  form.Get("grant_type"),
		scope:  form.Get("scope"),
		access: form.Get("client_id"),
		secret: keystore.Secret(form.Get("client_secret")),
	}, nil
}

// parseJSON reads one flat object of strings with our own names only, each at
// most once and spelled exactly. The grant type may be left out: there is one.
func parseJSON(body []byte) (parameters, error) {
	if !utf8.Valid(body) {
		return parameters{}, refusedBody // the decoder would replace what is not
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return parameters{}, refusedBody
	}
	params, seen := parameters{}, map[string]bool{}
	for decoder.More() {
		name, value, ok := nextMember(decoder)
		if !ok || seen[name] || !params.set(name, value) {
			return parameters{}, refusedBody
		}
		seen[name] = true
	}
	if _, err := decoder.Token(); err != nil {
		return parameters{}, refusedBody
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return parameters{}, refusedBody
	}
	if !seen["grant_type"] {
		params.grant = grantClientCredentials
	}
	return params, nil
}

// nextMember reads a name and a string; anything deeper is not looked into.
func nextMember(decoder *json.Decoder) (name, value string, ok bool) {
	token, err := decoder.Token()
	if name, ok = token.(string); err != nil || !ok {
		return "", "", false
	}
	token, err = decoder.Token()
	value, ok = token.(string)
	return name, value, ok && err == nil
}

func (p *parameters) set(name, value string) bool {
	switch name {
	case "grant_type":
		p.grant = value
	case "scope":
		p.scope = value
	case "access_key":
		p.access = value
	case "secret_key":
		p.secret = keystore.Secret(value)
	default:
		return false
	}
	return true
}
