package tokenissuer

import (
	"context"
	"net/http"
	"net/netip"
	"time"

	"github.com/warderhq/warder/keystore"
)

// serveRevocation revokes one access token (RFC 7009). Nobody learns from the
// answer whether there was anything to revoke.
func (e *Endpoints) serveRevocation(w http.ResponseWriter, r *http.Request) {
	caller, asked, err := e.caller(w, r)
	if err != nil {
		e.refuse(w, r, err)
		return
	}
	by := keystore.Attribution{Actor: string(caller.Record.ID), Operation: "tokens.revoke", From: addressOf(e.peer(r))}
	jti, err := e.revoke(r.Context(), caller, asked.token.Reveal(), by, time.Now())
	if err != nil {
		e.refuse(w, r, refusedFor(caller, err))
		return
	}
	neverCached(w.Header())
	w.WriteHeader(http.StatusOK)
	done := Observation{Outcome: OutcomeRevoked, Key: caller.Record.ID, TokenID: jti}
	if jti == "" {
		done.Outcome = OutcomeNotRevoked
	}
	e.tell(r, done)
}

// revoke returns the jti of the token that was revoked; none if the token is
// already worth nothing or is not the caller's to revoke. A token whose key is
// deactivated is revoked all the same: the key may be activated again.
func (e *Endpoints) revoke(ctx context.Context, caller keystore.Principal, token string, by keystore.Attribution, now time.Time) (string, error) {
	presented, err := keystore.ParseCredential(e.keyPrefix, token)
	switch {
	case err != nil:
		return "", nil
	case presented.Kind == keystore.CredentialKey:
		return "", refusedTokenType
	}
	switch _, err := e.issuer.Verify(token, now); {
	case isOutage(err):
		return "", refusedUnavailable.because(err)
	case err != nil:
		return "", nil
	}
	c, ok := e.issuer.read(token)
	if !ok || !mayRevoke(caller, &c) {
		return "", nil
	}
	switch err := e.revocations.revoke(ctx, &c, by, now); {
	case isOutage(err):
		return "", refusedUnavailable.because(err)
	case err != nil:
		return "", refusedInternally.because(err)
	}
	return c.id, nil
}

// addressOf returns the text of an address, none if it is not known.
func addressOf(peer netip.Addr) string {
	if !peer.IsValid() {
		return ""
	}
	return peer.Unmap().String()
}

// mayRevoke: the client that the token was issued to, whoever manages its
// organization's keys, and administrators. As with keys, nobody else touches
// what is an administrator's.
func mayRevoke(caller keystore.Principal, c *claims) bool {
	switch {
	case caller.Scopes.Grants(keystore.ScopeAdmin), c.subject == string(caller.Record.ID):
		return true
	case c.organization != caller.Record.Organization || keystore.Scopes(c.scope).Grants(keystore.ScopeAdmin):
		return false
	default:
		return caller.Scopes.Grants(keystore.ScopeKeys)
	}
}
