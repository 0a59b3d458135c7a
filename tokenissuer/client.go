package tokenissuer

import (
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
)

// client is who calls an endpoint, read but not yet judged.
type client struct {
	presented keystore.Presented // of kind none if the caller did not authenticate
	tried     scheme
}

// scheme is how a caller authenticates; a refusal answers in it.
type scheme uint8

const (
	schemeNone scheme = iota // or in the body
	schemeBasic
	schemeBearer // of an API key or an access token
)

// pair is what stands in a body for Basic (RFC 6749 §2.3.1).
type pair struct {
	access string
	secret keystore.Secret
}

func formPair(form url.Values) pair {
	return pair{form.Get("client_id"), keystore.Secret(form.Get("client_secret"))}
}

func (p pair) given() bool { return p != pair{} }

// pairOf returns the caller of the token endpoint with its one method of
// authentication. Two, even with equal credentials, are refused (RFC 6749
// §2.3). Any scheme but Basic authenticates nobody here.
func pairOf(authorization []string, in pair) (client, error) {
	return clientOf(authorization, in, func(value string) (client, error) {
		if scheme, _, _ := strings.Cut(value, " "); !strings.EqualFold(scheme, "basic") {
			return client{}, nil
		}
		// Form-encoding the pair before changes nothing: it consists of
		// letters and digits. No prefix is in it.
		return authorized(keystore.DefaultPrefix, value, schemeBasic)
	})
}

// callerOf returns the caller of the other endpoints, who may also come with
// an API key or an access token as such.
func (e *Endpoints) callerOf(authorization []string, in pair) (client, error) {
	return clientOf(authorization, in, func(value string) (client, error) {
		tried := schemeBearer
		if scheme, _, _ := strings.Cut(value, " "); strings.EqualFold(scheme, "basic") {
			tried = schemeBasic
		}
		return authorized(e.keyPrefix, value, tried)
	})
}

func clientOf(authorization []string, in pair, parse func(string) (client, error)) (client, error) {
	switch {
	case len(authorization) > 1 || len(authorization) == 1 && in.given():
		return client{}, refusedTwoMethods
	case len(authorization) == 1:
		return parse(authorization[0])
	case in.given():
		return client{presented: keystore.Presented{
			Kind: keystore.CredentialKey, Access: keystore.AccessKey(in.access), Secret: in.secret.Reveal(),
		}}, nil
	default:
		return client{}, nil
	}
}

func authorized(prefix, value string, tried scheme) (client, error) {
	presented, err := keystore.ParseAuthorization(prefix, value)
	c := client{presented, tried}
	switch {
	case errors.Is(err, keystore.ErrMalformed):
		return c, refusedTwoMethods.because(err)
	case errors.Is(err, keystore.ErrNoCredential):
		return client{}, nil
	case err != nil:
		return c, c.denied(err)
	default:
		return c, nil
	}
}

// authenticate proves the client. Whatever a key's owner could be told
// elsewhere, here all denials are one. Who has failed too often with this key
// from this address is not heard, right or wrong; and a secret that is right
// reads like a wrong one in a network where its key may not be used.
func (e *Endpoints) authenticate(r *http.Request, c client, now time.Time) (keystore.Principal, error) {
	if c.presented.Kind == keystore.CredentialNone {
		return keystore.Principal{}, c.denied(keystore.ErrNoCredential)
	}
	try := newGuess(e.peer(r), c.presented.Access)
	guessing := c.presented.Kind == keystore.CredentialKey // nobody guesses a signature
	if guessing {
		if wait := e.guesses.wait(try, now); wait > 0 {
			return keystore.Principal{}, refusedTooMany.after(wait)
		}
	}
	principal, err := e.authenticator.Authenticate(r.Context(), c.presented, now)
	if err == nil && !principal.Record.Networks.Contain(e.peer(r)) {
		err = keystore.ErrNetwork // what was stolen from an allowed network is traded nowhere else
	}
	switch {
	case err == nil:
		return principal, nil
	case isOutage(err):
		return keystore.Principal{}, refusedUnavailable.because(err)
	case isDenial(err):
		if guessing {
			e.guesses.failed(try, now)
		}
		return keystore.Principal{}, refusedFor(principal, c.denied(err))
	default:
		return keystore.Principal{}, refusedInternally.because(err)
	}
}

// remotePeer is the peer of the connection.
func remotePeer(r *http.Request) netip.Addr {
	peer, _ := netip.ParseAddrPort(r.RemoteAddr)
	return peer.Addr()
}

// An outage is not a denial, and what is neither is not one either.
func isOutage(err error) bool {
	return errors.Is(err, keystore.ErrStale) || errors.Is(err, keystore.ErrUnavailable)
}

func isDenial(err error) bool {
	for _, denial := range [...]error{
		keystore.ErrNoCredential, keystore.ErrMalformed, keystore.ErrInvalid, keystore.ErrBlocked, keystore.ErrExpired,
		keystore.ErrDeactivated, keystore.ErrSuperseded, keystore.ErrTokenExpired, keystore.ErrTokenRevoked, keystore.ErrNetwork,
	} {
		if errors.Is(err, denial) {
			return true
		}
	}
	return false
}

// denied answers in the scheme that was tried (RFC 6749 §5.2, RFC 6750 §3).
func (c client) denied(cause error) refusal {
	switch c.tried {
	case schemeBasic:
		r := refusedClient.because(cause)
		r.challenge = `Basic realm="token", charset="UTF-8"`
		return r
	case schemeBearer:
		r := refusedBearer.because(cause)
		r.challenge = `Bearer realm="token", error="invalid_token"`
		return r
	default:
		return refusedClient.because(cause)
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
