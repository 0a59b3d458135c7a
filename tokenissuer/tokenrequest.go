package tokenissuer

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/warderhq/warder/keystore"
)

const grantClientCredentials = "client_credentials"

// tokenRequest is a request for an access token, read but not yet judged.
type tokenRequest struct {
	client    client
	scope     string   // empty: not restricted
	resources []string // none: the issuer's own audience
}

// parameters are those of the body that mean something here. Empty is absent
// (RFC 6749 §3.2).
type parameters struct {
	grant     string
	scope     string
	resources []string
	pair
}

// readTokenRequest reads one request, cheapest checks first. Every error is a
// refusal.
func readTokenRequest(w http.ResponseWriter, r *http.Request) (tokenRequest, error) {
	if hasQuery(r) {
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
		client, err := pairOf(r.Header["Authorization"], params.pair)
		return tokenRequest{client, params.scope, params.resources}, err
	case "":
		return tokenRequest{}, refusedGrantMissing
	default:
		return tokenRequest{}, refusedGrant
	}
}

// hasQuery: what stands in a URL stands in logs, too.
func hasQuery(r *http.Request) bool { return r.URL.RawQuery != "" || r.URL.ForceQuery }

// bodyParser chooses by the one Content-Type.
func bodyParser(contentType []string) (func([]byte) (parameters, error), error) {
	switch mediaType(contentType) {
	case formType:
		return parseForm, nil
	case "application/json":
		return parseJSON, nil
	default:
		return nil, refusedContentType
	}
}

const formType = "application/x-www-form-urlencoded"

// mediaType returns what the one Content-Type says, if its text is UTF-8.
func mediaType(contentType []string) string {
	if len(contentType) != 1 {
		return ""
	}
	mediaType, params, err := mime.ParseMediaType(contentType[0])
	if charset := params["charset"]; err != nil || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return ""
	}
	return mediaType
}

// parseForm reads the form of a token request. Several resources may be asked
// for (RFC 8707 §2).
func parseForm(body []byte) (parameters, error) {
	form, err := readForm(body, "resource")
	if err != nil {
		return parameters{}, err
	}
	return parameters{
		grant:     form.Get("grant_type"),
		scope:     form.Get("scope"),
		resources: slices.DeleteFunc(form["resource"], func(s string) bool { return s == "" }),
		pair:      formPair(form),
	}, nil
}

// readForm reads a form (RFC 6749 Appendix B). Unknown parameters are ignored,
// repeated ones refused, unknown and empty ones too (§3.2), unless they are
// repeatable.
func readForm(body []byte, repeatable ...string) (url.Values, error) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refusedBody // the error would quote the body
	}
	for name, values := range form {
		if len(values) > 1 && !slices.Contains(repeatable, name) {
			return nil, refusedRepetition
		}
	}
	return form, nil
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
	case "resource":
		p.resources = []string{value}
	case "access_key":
		p.access = value
	case "secret_key":
		p.secret = keystore.Secret(value)
	default:
		return false
	}
	return true
}
