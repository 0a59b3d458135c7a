package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/tokenissuer"
)

// Issuer configures access tokens: who mints them and how long they live.
type Issuer struct {
	// The issuer identifier, byte for byte the "iss" of every token: the URL
	// under which clients reach the warder_issuer handler.
	URL string `json:"url,omitempty"`

	// How long an access token lives at most. Default: 15m.
	TokenTTL caddy.Duration `json:"token_ttl,omitempty"`

	// The "aud" of every token. Default: the URL.
	Audience string `json:"audience,omitempty"`

	// What else tokens can be asked for by the parameter "resource" (RFC
	// 8707): absolute URIs without fragment. Every gate of this app accepts
	// tokens for any of them, as those for the audience.
	Resources []string `json:"resources,omitempty"`

	// How signing keys made from now on sign: EdDSA (default), ES256, RS256.
	Algorithm string `json:"algorithm,omitempty"`

	issuer    *tokenissuer.Issuer
	algorithm tokenissuer.Algorithm
}

// provision checks the options and binds them to the store's keyring.
func (i *Issuer) provision(e *engine) (err error) {
	if i == nil {
		return nil
	}
	if i.URL, err = caddy.NewReplacer().ReplaceOrErr(i.URL, true, true); err != nil {
		return fmt.Errorf("url: %w", err)
	}
	i.algorithm = tokenissuer.EdDSA
	if i.Algorithm != "" {
		if i.algorithm, err = tokenissuer.ParseAlgorithm(i.Algorithm); err != nil {
			return fmt.Errorf("algorithm: %w", err)
		}
	}
	i.issuer, err = i.minting(e, time.Duration(i.TokenTTL))
	return err
}

// minting returns an issuer of tokens that live at most so long. Whichever
// mints a token, every gate of the app accepts it.
func (i *Issuer) minting(e *engine, ttl time.Duration) (*tokenissuer.Issuer, error) {
	return tokenissuer.NewIssuer(tokenissuer.IssuerConfig{
		Keyring: e.keyring, URL: i.URL, TTL: ttl, Audience: i.Audience, Resources: i.Resources,
	})
}

// start makes the algorithm the one of keys to come.
func (i *Issuer) start(e *engine) {
	if i != nil {
		e.rotation.SetAlgorithm(i.algorithm)
	}
}

// verifier returns what proves access tokens; without an issuer there are none.
func (i *Issuer) verifier() keystore.TokenVerifier {
	if i == nil {
		return noTokens{}
	}
	return i.issuer
}

// ownVerifier proves access tokens for the issuer's own audience alone.
func (i *Issuer) ownVerifier() keystore.TokenVerifier {
	if i == nil {
		return noTokens{}
	}
	return i.issuer.Own()
}

// noTokens proves nothing.
type noTokens struct{}

// Verify implements keystore.TokenVerifier.
func (noTokens) Verify(string, time.Time) (keystore.TokenClaims, error) {
	return keystore.TokenClaims{}, keystore.ErrInvalid
}
