package tokenissuer

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"

	"github.com/warderhq/warder/keystore"
)

// signingKey is a private key. It cannot be printed or marshalled: only
// material says what it is, and only the sealing of the ring asks.
type signingKey struct {
	kid     string // thumbprint of the public key (RFC 7638): it names this key and no other
	alg     Algorithm
	private crypto.Signer
}

// Format hides the key from every verb.
func (k signingKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[signing key "+k.kid+"]") }

// MarshalText hides the key from encoders.
func (k signingKey) MarshalText() ([]byte, error) { return []byte("[signing key]"), nil }

// newSigningKey makes a key. With RS256 this takes a while: never inside a
// transaction.
func newSigningKey(alg Algorithm) (signingKey, error) {
	private, err := alg.generate()
	if err != nil {
		return signingKey{}, fmt.Errorf("making a signing key: %w", err)
	}
	return identify(alg, private)
}

func identify(alg Algorithm, private crypto.Signer) (signingKey, error) {
	if !alg.fits(private) {
		return signingKey{}, fmt.Errorf("a %T of this size does not sign with %s", private, alg)
	}
	public, err := jwk.FromRaw(private.Public())
	if err != nil {
		return signingKey{}, fmt.Errorf("describing a signing key: %w", err)
	}
	thumbprint, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return signingKey{}, fmt.Errorf("naming a signing key: %w", err)
	}
	return signingKey{base64.RawURLEncoding.EncodeToString(thumbprint), alg, private}, nil
}

// material returns the private key in PKCS #8, to be sealed.
func (k signingKey) material() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		return nil, fmt.Errorf("encoding signing key %s: %w", k.kid, err)
	}
	return der, nil
}

// parseSigningKey reverses material. A key that is not the one it is said to
// be is ErrCorrupt.
func parseSigningKey(kid, alg string, der []byte) (signingKey, error) {
	algorithm, err := ParseAlgorithm(alg)
	if err != nil {
		return signingKey{}, fmt.Errorf("reading signing key %s: %w", kid, keystore.ErrCorrupt)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	private, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return signingKey{}, fmt.Errorf("reading signing key %s: %w", kid, keystore.ErrCorrupt)
	}
	key, err := identify(algorithm, private)
	if err != nil || key.kid != kid {
		return signingKey{}, fmt.Errorf("signing key %s is another one: %w", kid, keystore.ErrCorrupt)
	}
	return key, nil
}

// verifyingKey is the public half with everything that is fixed for it: its
// tokens have one header, byte for byte, and signatures of one length.
type verifyingKey struct {
	kid       string
	alg       Algorithm
	header    string // the encoded first segment of its tokens
	public    any
	verifier  jws.Verifier
	signature int // length in bytes
}

func (k signingKey) verifying() (*verifyingKey, error) {
	verifier, err := jws.NewVerifier(jwa.SignatureAlgorithm(k.alg.String()))
	if err != nil {
		return nil, fmt.Errorf("preparing to verify with %s: %w", k.alg, err)
	}
	public := k.private.Public()
	header := `{"alg":"` + k.alg.String() + `","kid":"` + k.kid + `","typ":"at+jwt"}` // RFC 9068 §2.1
	return &verifyingKey{
		kid: k.kid, alg: k.alg, public: public, verifier: verifier, signature: signatureSize(public),
		header: base64.RawURLEncoding.EncodeToString([]byte(header)),
	}, nil
}

// proves reports whether signature is this key's over message.
func (k *verifyingKey) proves(message, signature []byte) bool {
	if k.alg == ES256 && !soundECDSA(signature) {
		return false
	}
	return k.verifier.Verify(message, signature, k.public) == nil
}

// published returns the key as the JWKS shows it (RFC 7517).
func (k *verifyingKey) published() (jwk.Key, error) {
	key, err := jwk.FromRaw(k.public)
	if err != nil {
		return nil, fmt.Errorf("publishing signing key %s: %w", k.kid, err)
	}
	for name, value := range map[string]any{
		jwk.KeyIDKey:     k.kid,
		jwk.AlgorithmKey: jwa.SignatureAlgorithm(k.alg.String()),
		jwk.KeyUsageKey:  jwk.ForSignature,
	} {
		if err := key.Set(name, value); err != nil {
			return nil, fmt.Errorf("publishing signing key %s: %w", k.kid, err)
		}
	}
	return key, nil
}
