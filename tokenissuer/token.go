package tokenissuer

import (
	"context"
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

// maxReading is how many bodies are read at the same time. Each may take
// maxBody of memory for bodyTime, whoever sends it.
const maxReading = 1024

// read reads one request, if there is a place for it.
func (e *Endpoints) read(w http.ResponseWriter, r *http.Request) (tokenRequest, error) {
	select {
	case e.reading <- struct{}{}:
		defer func() { <-e.reading }()
		return readTokenRequest(w, r)
	default:
		return tokenRequest{}, refusedUnavailable.because(errTooManyBodies)
	}
}

var errTooManyBodies = errors.New("too many bodies are being read")

func (e *Endpoints) exchange(w http.ResponseWriter, r *http.Request) (keystore.Principal, Minted, error) {
	asked, err := e.read(w, r)
	if err != nil {
		return keystore.Principal{}, Minted{}, err
	}
	principal, err := e.authenticate(r.Context(), asked, time.Now())
	if err != nil {
		return principal, Minted{}, err
	}
	scopes, err := narrow(principal.Scopes, asked.scope)
	if err != nil {
		return principal, Minted{}, refusedFor(principal, err)
	}
	minted, err := e.issuer.Mint(principal, scopes, time.Now())
	if err != nil {
		return principal, Minted{}, refusedFor(principal, mintRefusal(err, asked.basic))
	}
	return principal, minted, nil
}

// authenticate proves the client. Whatever a key's owner could be told
// elsewhere, here all denials are one.
func (e *Endpoints) authenticate(ctx context.Context, asked tokenRequest, now time.Time) (keystore.Principal, error) {
	if asked.presented.Kind != keystore.CredentialKey {
		return keystore.Principal{}, deniedClient(asked.basic, keystore.ErrNoCredential)
	}
	principal, err := e.authenticator.Authenticate(ctx, asked.presented, now)
	switch {
	case err == nil:
		return principal, nil
	case isOutage(err):
		return keystore.Principal{}, refusedUnavailable.because(err)
	case isDenial(err):
		return keystore.Principal{}, refusedFor(principal, deniedClient(asked.basic, err))
	default:
		return keystore.Principal{}, refusedInternally.because(err)
	}
}

// An outage is not a denial, and what is neither is not one either.
func isOutage(err error) bool {
	return errors.Is(err, keystore.ErrStale) || errors.Is(err, keystore.ErrUnavailable)
}

func isDenial(err error) bool {
	for _, denial := range [...]error{
		keystore.ErrNoCredential, keystore.ErrMalformed, keystore.ErrInvalid, keystore.ErrBlocked,
		keystore.ErrExpired, keystore.ErrDeactivated, keystore.ErrSuperseded,
	} {
		if errors.Is(err, denial) {
			return true
		}
	}
	return false
}

// deniedClient answers in the scheme that was tried (RFC 6749 §5.2).
func deniedClient(basic bool, cause error) refusal {
	r := refusedClient.because(cause)
	r.challenge = basic
	return r
}

func mintRefusal(err error, basic bool) refusal {
	switch {
	case isOutage(err):
		return refusedUnavailable.because(err)
	case errors.Is(err, ErrTokenTooLong):
		return refusedTooManyScopes.because(err)
	case isDenial(err):
		return deniedClient(basic, err)
	default:
		return refusedInternally.because(err)
	}
}

// refusedFor notes for operators who was refused, if that was proved.
func refusedFor(p keystore.Principal, err error) error {
	var r refusal
	if errors.As(err, &r) && p.Record != nil {
		r.key = p.Record.ID
		return r
	}
	return err
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
