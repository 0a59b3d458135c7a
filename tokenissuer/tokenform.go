package tokenissuer

import (
	"net/http"
	"time"

	"github.com/warderhq/warder/keystore"
)

// tokenForm is a request about a token, read but not yet judged. A hint of its
// type is not needed: no two types look alike.
type tokenForm struct {
	client client
	token  keystore.Secret
}

// readTokenForm reads one request of RFC 7662 §2.1 or RFC 7009 §2.1, cheapest
// checks first. Every error is a refusal.
func (e *Endpoints) readTokenForm(w http.ResponseWriter, r *http.Request) (tokenForm, error) {
	if hasQuery(r) {
		return tokenForm{}, refusedQuery
	}
	if mediaType(r.Header["Content-Type"]) != formType {
		return tokenForm{}, refusedFormType
	}
	body, err := readBody(w, r)
	if err != nil {
		return tokenForm{}, err
	}
	form, err := readForm(body)
	if err != nil {
		return tokenForm{}, err
	}
	if form.Get("token") == "" {
		return tokenForm{}, refusedTokenMissing
	}
	caller, err := e.callerOf(r.Header["Authorization"], formPair(form))
	return tokenForm{caller, keystore.Secret(form.Get("token"))}, err
}

// caller reads a request about a token and proves who asks. An access token
// for another audience, which whoever serves that has seen, proves nobody
// here.
func (e *Endpoints) caller(w http.ResponseWriter, r *http.Request) (keystore.Principal, tokenForm, error) {
	asked, err := read(e, w, r, e.readTokenForm)
	if err != nil {
		return keystore.Principal{}, tokenForm{}, err
	}
	principal, err := e.authenticate(r, asked.client, time.Now())
	if err != nil {
		return keystore.Principal{}, tokenForm{}, err
	}
	if asked.client.presented.Kind == keystore.CredentialAccessToken && !e.issuer.isFor(asked.client.presented.Token) {
		return keystore.Principal{}, tokenForm{}, refusedFor(principal, asked.client.denied(errTokenAudience))
	}
	return principal, asked, nil
}
