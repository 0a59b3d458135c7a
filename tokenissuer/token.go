package tokenissuer

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
)

// serveToken exchanges a key for an access token: the client credentials
// grant of RFC 6749 §4.4.
func (e *Endpoints) serveToken(w http.ResponseWriter, r *http.Request) {
	principal, minted, err := e.exchange(w, r)
	if err != nil {
		e.refuse(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		AccessToken string          `json:"access_token"`
		TokenType   string          `json:"token_type"`
		ExpiresIn   int64           `json:"expires_in"`
		Scope       keystore.Scopes `json:"scope,omitempty"`
	}{minted.Token.Reveal(), "Bearer", minted.ExpiresIn(), minted.Scopes})
	e.tell(r, Observation{Outcome: OutcomeMinted, Key: principal.Record.ID, TokenID: minted.ID})
}

func (e *Endpoints) exchange(w http.ResponseWriter, r *http.Request) (keystore.Principal, Minted, error) {
	asked, err := read(e, w, r, readTokenRequest)
	if err != nil {
		return keystore.Principal{}, Minted{}, err
	}
	principal, err := e.authenticate(r, asked.client, time.Now())
	if err != nil {
		return principal, Minted{}, err
	}
	scopes, err := narrow(principal.Scopes, asked.scope)
	if err != nil {
		return principal, Minted{}, refusedFor(principal, err)
	}
	minted, err := e.issuer.Mint(principal, scopes, time.Now(), asked.resources...)
	if err != nil {
		return principal, Minted{}, refusedFor(principal, mintRefusal(err, asked.client))
	}
	return principal, minted, nil
}

func mintRefusal(err error, c client) refusal {
	switch {
	case errors.Is(err, ErrTarget):
		return refusedTarget.because(err)
	case isOutage(err):
		return refusedUnavailable.because(err)
	case errors.Is(err, ErrTokenTooLong):
		return refusedTooManyScopes.because(err)
	case isDenial(err):
		return c.denied(err)
	default:
		return refusedInternally.because(err)
	}
}

// narrow returns the scopes that were asked for (RFC 6749 §3.3), all that are
// held if none were.
func narrow(held keystore.Scopes, asked string) (keystore.Scopes, error) {
	if asked == "" {
		return held, nil
	}
	scopes, err := keystore.NewScopes("/scope", strings.Split(asked, " "))
	if err != nil {
		return "", refusedScope.because(err)
	}
	if !scopes.Within(held) {
		return "", refusedScope.because(keystore.ErrScope)
	}
	return scopes, nil
}
