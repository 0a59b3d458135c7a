package tokenissuer

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/warderhq/warder/keystore"
)

// introspection is the answer of RFC 7662 §2.2. The zero introspection is that
// of a token that is not active, whatever the reason.
type introspection struct {
	Active       bool                `json:"active"`
	Scope        keystore.Scopes     `json:"scope,omitempty"`
	Client       string              `json:"client_id,omitempty"` // the access key
	Type         string              `json:"token_type,omitempty"`
	Expires      int64               `json:"exp,omitempty"` // absent: never
	Issued       int64               `json:"iat,omitempty"`
	Subject      keystore.KeyID      `json:"sub,omitempty"`
	Audience     json.RawMessage     `json:"aud,omitempty"` // absent: an API key is for all
	Issuer       string              `json:"iss,omitempty"`
	ID           string              `json:"jti,omitempty"` // absent: an API key
	Organization string              `json:"org,omitempty"`
	Generation   keystore.Generation `json:"gen,omitempty"`
}

// serveIntrospection says what is behind an access token or an API key, to
// anybody of the same organization, and to administrators.
func (e *Endpoints) serveIntrospection(w http.ResponseWriter, r *http.Request) {
	caller, asked, err := e.caller(w, r)
	if err != nil {
		e.refuse(w, r, err)
		return
	}
	answer, err := e.introspect(r.Context(), caller, asked.token.Reveal(), time.Now())
	if err != nil {
		e.refuse(w, r, refusedFor(caller, err))
		return
	}
	writeJSON(w, http.StatusOK, answer)
	e.tell(r, Observation{Outcome: OutcomeIntrospected, Key: caller.Record.ID})
}

// introspect decides as a gate would, so that the two cannot differ. What it
// cannot know is an error, and never "not active".
func (e *Endpoints) introspect(ctx context.Context, caller keystore.Principal, token string, now time.Time) (introspection, error) {
	presented, err := keystore.ParseCredential(e.keyPrefix, token)
	if err != nil {
		return introspection{}, nil
	}
	found, err := e.authenticator.Authenticate(ctx, presented, now)
	switch {
	case isOutage(err):
		return introspection{}, refusedUnavailable.because(err)
	case isDenial(err):
		return introspection{}, nil
	case err != nil:
		return introspection{}, refusedInternally.because(err)
	case found.Record.Organization != caller.Record.Organization && !caller.Scopes.Grants(keystore.ScopeAdmin):
		return introspection{}, nil
	}
	return e.describe(presented, found), nil
}

// describe returns the answer about a credential that passes.
func (e *Endpoints) describe(presented keystore.Presented, found keystore.Principal) introspection {
	key := found.Record
	answer := introspection{
		Active: true, Scope: found.Scopes, Client: string(presented.Access), Type: "Bearer",
		Issued: key.Created.Time().Unix(), Subject: key.ID, Issuer: e.issuer.name,
		Organization: key.Organization, Generation: found.Generation,
	}
	if end := key.CredentialEnd(found.Generation); end != 0 {
		answer.Expires = end.Time().Unix()
	}
	if presented.Kind != keystore.CredentialAccessToken {
		return answer
	}
	c, ok := e.issuer.read(presented.Token)
	if !ok {
		return introspection{}
	}
	answer.Client, answer.Issued, answer.ID, answer.Audience = c.client, c.issued, c.id, json.RawMessage(c.audience)
	if answer.Expires == 0 || c.expires < answer.Expires { // the key may have been shortened since
		answer.Expires = c.expires
	}
	return answer
}
