package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Principal is who a request speaks for, once its credential has passed. The
// zero Principal is nobody.
type Principal struct {
	Record     *Record // shared: not to be changed
	Generation Generation
	Kind       CredentialKind
	Scopes     Scopes // of the key, or narrowed by the access token
}

// TokenClaims is what a verified access token says. Its signature and
// lifetime are proved; whether its key still lives is not its to say.
type TokenClaims struct {
	Key        KeyID
	Generation Generation
	Scopes     Scopes
}

// TokenVerifier proves access tokens. ErrInvalid for anything that is not one
// of ours, ErrTokenExpired for one that was.
type TokenVerifier interface {
	Verify(token string, now time.Time) (TokenClaims, error)
}

// Authenticator decides whether a presented credential passes. It asks the
// view and never, for a key that the view knows, the store.
type Authenticator struct {
	View        *View
	Credentials *Credentials
	Tokens      TokenVerifier
	// MaxStaleness is the age up to which the view is trusted. It does not
	// matter while this process is the store's only writer; otherwise zero
	// trusts nothing.
	MaxStaleness time.Duration
}

// Authenticate returns the principal that p proves at now. On ErrBlocked,
// ErrExpired, ErrDeactivated and ErrSuperseded the caller has proved that the
// credential is its own and the principal is who it would have been; on every
// other error the principal is nobody. ErrMalformed is for characters that no
// credential has. ErrStale and ErrUnavailable are no denial. For a key in the
// view it does not allocate.
func (a *Authenticator) Authenticate(ctx context.Context, p Presented, now time.Time) (Principal, error) {
	switch p.Kind {
	case CredentialKey:
		return a.authenticateKey(ctx, &p, now)
	case CredentialAccessToken:
		return a.authenticateToken(ctx, p, now)
	default:
		return Principal{}, ErrNoCredential
	}
}

func (a *Authenticator) authenticateKey(ctx context.Context, p *Presented, now time.Time) (Principal, error) {
	f := a.Credentials.fingerprints.of(p)
	if rec := a.recall(f, p.Access, now); rec != nil {
		return admitted(Principal{rec, rec.Current.Generation, CredentialKey, rec.Scopes}, now)
	}
	rec, gen, err := a.prove(ctx, p, now)
	if err != nil {
		return Principal{}, err
	}
	a.remember(f, rec, gen, now)
	return admitted(Principal{rec, gen, CredentialKey, rec.Scopes}, now)
}

// prove returns the record of a key and the generation that its secret proves.
// Else ErrInvalid or ErrMalformed, or that it cannot be said.
func (a *Authenticator) prove(ctx context.Context, p *Presented, now time.Time) (*Record, Generation, error) {
	if err := p.examine(); err != nil {
		return nil, 0, err
	}
	if err := a.View.Await(ctx, now, a.MaxStaleness); err != nil {
		return nil, 0, err
	}
	rec, known := a.View.Cached(LookupID(p.Access), now)
	if !known {
		if !a.Credentials.Genuine(p.Access) {
			return nil, 0, ErrInvalid // made up: costs no look-up and no memory
		}
		var err error
		if rec, err = a.View.Load(ctx, LookupID(p.Access)); err != nil {
			return nil, 0, fmt.Errorf("looking up access key %s: %w", p.Access, err)
		}
	}
	// An absent record takes the same way as a wrong secret, so that neither
	// text nor time tells them apart.
	gen := rec.GenerationOf(p.Access, a.Credentials.Digest(p.Secret))
	if gen == 0 {
		return nil, 0, ErrInvalid
	}
	return rec, gen, nil
}

func (a *Authenticator) authenticateToken(ctx context.Context, p Presented, now time.Time) (Principal, error) {
	if err := a.View.Await(ctx, now, a.MaxStaleness); err != nil {
		return Principal{}, err // the signing keys, too, are only as fresh as the lease
	}
	claims, err := a.Tokens.Verify(p.Token, now)
	if errors.Is(err, ErrInvalid) && !isOneCredential(p.Token) {
		return Principal{}, ErrMalformed
	}
	if err != nil {
		return Principal{}, err
	}
	rec, err := a.View.Record(ctx, LookupID(claims.Key), now)
	if err != nil {
		return Principal{}, fmt.Errorf("looking up key %s of an access token: %w", claims.Key, err)
	}
	// The key may have lost scopes since the token was minted.
	scopes := claims.Scopes.Intersect(rec.Scopes)
	return admitted(Principal{rec, claims.Generation, CredentialAccessToken, scopes}, now)
}

// admitted returns p with the verdict on it; ErrInvalid leaves nobody.
func admitted(p Principal, now time.Time) (Principal, error) {
	err := p.Record.Admit(p.Generation, now)
	if err == ErrInvalid {
		return Principal{}, err
	}
	return p, err
}
