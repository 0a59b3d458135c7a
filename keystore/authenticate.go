package keystore

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// Principal is who a request speaks for, once its credential has passed. The
// zero Principal is nobody.
type Principal struct {
	Record     *Record // shared: not to be changed
	Meter      *Meter  // of the key, on this node
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
	Settings    *Settings // nil: no credential is an imported one
	// Freshness says up to which age the view is trusted. It does not matter
	// while this process is the store's only writer.
	Freshness Freshness
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
	case CredentialImported:
		return a.authenticateImported(ctx, p, now)
	default:
		return Principal{}, ErrNoCredential
	}
}

func (a *Authenticator) authenticateKey(ctx context.Context, p *Presented, now time.Time) (Principal, error) {
	f := a.Credentials.fingerprints.of(p)
	if e := a.recall(f, p.Access, now); e != nil && p.Trace == nil { // a trace takes the long way
		return admitted(e.principal(e.rec.Current.Generation, CredentialKey, e.rec.Scopes), nil, now)
	}
	e, gen, err := a.prove(ctx, p, now)
	if err != nil {
		return Principal{}, err
	}
	a.remember(f, e, gen)
	return admitted(e.principal(gen, CredentialKey, e.rec.Scopes), p.Trace, now)
}

// prove returns what is known of a key, and the generation that its secret
// proves. Else ErrInvalid or ErrMalformed, or that it cannot be said.
func (a *Authenticator) prove(ctx context.Context, p *Presented, now time.Time) (*entry, Generation, error) {
	p.Trace.At(CheckSpelling)
	if err := p.examine(); err != nil {
		return nil, 0, err
	}
	p.Trace.At(CheckNode)
	if err := a.View.Await(ctx, now, a.Freshness); err != nil {
		return nil, 0, err
	}
	p.Trace.At(CheckGenuine) // what the view knows is
	e, known := a.View.cached(LookupID(p.Access), now)
	if !known {
		if !a.Credentials.Genuine(p.Access) {
			return nil, 0, ErrInvalid // made up: costs no look-up and no memory
		}
		p.Trace.At(CheckKnown)
		var err error
		if e, err = a.View.load(ctx, LookupID(p.Access)); err != nil {
			return nil, 0, fmt.Errorf("looking up access key %s: %w", p.Access, err)
		}
	}
	// An absent record takes the same way as a wrong secret, so that neither
	// text nor time tells them apart.
	p.Trace.found(&e.rec)
	gen := e.rec.GenerationOf(p.Access, a.Credentials.Digest(p.Secret))
	if gen == 0 {
		return nil, 0, ErrInvalid
	}
	return e, gen, nil
}

// authenticateImported looks for the credential of another system, if the
// store holds any. Such look-ups are bounded in number: nothing tells a
// made-up one from a good one before the store has been asked.
func (a *Authenticator) authenticateImported(ctx context.Context, p Presented, now time.Time) (Principal, error) {
	p.Trace.At(CheckNode)
	if err := a.View.Await(ctx, now, a.Freshness); err != nil {
		return Principal{}, err
	}
	p.Trace.At(CheckKnown)
	if a.Settings == nil || !a.Settings.HoldsImported() || len(p.Token) < MinimumImported {
		return Principal{}, ErrInvalid
	}
	pair := a.Credentials.ImportedPair(0, sha256.Sum256(inPlace(p.Token)))
	e, known := a.View.cached(LookupID(pair.AccessKey), now)
	if !known {
		var err error
		if e, err = a.View.loadImported(ctx, LookupID(pair.AccessKey)); err != nil {
			return Principal{}, fmt.Errorf("looking up an imported credential: %w", err)
		}
	}
	gen := e.rec.GenerationOf(pair.AccessKey, pair.Digest)
	if gen == 0 {
		return Principal{}, ErrInvalid
	}
	return admitted(e.principal(gen, CredentialImported, e.rec.Scopes), p.Trace, now)
}

func (a *Authenticator) authenticateToken(ctx context.Context, p Presented, now time.Time) (Principal, error) {
	p.Trace.At(CheckNode)
	if err := a.View.Await(ctx, now, a.Freshness); err != nil {
		return Principal{}, err // the signing keys, too, are only as fresh as the lease
	}
	claims, err := a.Tokens.Verify(p.Token, now)
	p.Trace.through(CheckSigningKey, CheckRevocation, err)
	if errors.Is(err, ErrInvalid) && !isOneCredential(p.Token) {
		return Principal{}, ErrMalformed
	}
	if err != nil {
		return Principal{}, err
	}
	p.Trace.At(CheckKnown)
	e, known := a.View.cached(LookupID(claims.Key), now)
	if !known {
		if e, err = a.View.load(ctx, LookupID(claims.Key)); err != nil {
			return Principal{}, fmt.Errorf("looking up key %s of an access token: %w", claims.Key, err)
		}
	}
	// The key may have lost scopes since the token was minted.
	scopes := claims.Scopes.Intersect(e.rec.Scopes)
	return admitted(e.principal(claims.Generation, CredentialAccessToken, scopes), p.Trace, now)
}

func (e *entry) principal(gen Generation, kind CredentialKind, scopes Scopes) Principal {
	return Principal{Record: &e.rec, Meter: e.meter, Generation: gen, Kind: kind, Scopes: scopes}
}

// admitted returns p with the verdict on it; ErrInvalid leaves nobody.
func admitted(p Principal, t *Trace, now time.Time) (Principal, error) {
	err := p.Record.Admit(p.Generation, now)
	if err == ErrInvalid {
		return Principal{}, err
	}
	t.through(CheckBlocked, CheckGeneration, err)
	return p, err
}
