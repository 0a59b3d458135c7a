package tokenissuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// Algorithm is how a signing key signs. It belongs to the key for good: no
// token chooses it, and changing the policy touches no existing key.
type Algorithm uint8

// The zero Algorithm is none; no key has it.
const (
	AlgorithmUnknown Algorithm = iota
	EdDSA                      // Ed25519 (RFC 8037), the default
	ES256                      // ECDSA on P-256 with SHA-256 (RFC 7518 §3.4)
	RS256                      // RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3)
)

var algorithmNames = [...]string{AlgorithmUnknown: "unknown", EdDSA: "EdDSA", ES256: "ES256", RS256: "RS256"}

// String returns the name of RFC 7518 and RFC 8037.
func (a Algorithm) String() string {
	if int(a) < len(algorithmNames) {
		return algorithmNames[a]
	}
	return algorithmNames[AlgorithmUnknown]
}

// ParseAlgorithm is the inverse of String for the algorithms a key can have.
func ParseAlgorithm(s string) (Algorithm, error) {
	for a := EdDSA; int(a) < len(algorithmNames); a++ {
		if algorithmNames[a] == s {
			return a, nil
		}
	}
	return AlgorithmUnknown, fmt.Errorf("unknown signature algorithm %q: one of EdDSA, ES256, RS256", s)
}

// rsaBits is the size of new RSA keys; the bounds hold for every key (RFC 7518
// §3.3).
const (
	rsaBits        = 3072
	minimumRSABits = 2048
	maximumRSABits = 8 * maxSignature
)

// generate returns a fresh private key.
func (a Algorithm) generate() (crypto.Signer, error) {
	switch a {
	case EdDSA:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	default:
		return nil, fmt.Errorf("no key can have the algorithm %s", a)
	}
}

// fits reports whether private is a key that may sign with a.
func (a Algorithm) fits(private crypto.Signer) bool {
	switch key := private.(type) {
	case ed25519.PrivateKey:
		return a == EdDSA
	case *ecdsa.PrivateKey:
		return a == ES256 && key.Curve == elliptic.P256()
	case *rsa.PrivateKey:
		return a == RS256 && key.N.BitLen() >= minimumRSABits && key.N.BitLen() <= maximumRSABits
	default:
		return false
	}
}

// signatureSize returns the only length in bytes that a signature by the key
// can have.
func signatureSize(public crypto.PublicKey) int {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return ed25519.SignatureSize
	case *ecdsa.PublicKey:
		return 2 * coordinateSize
	case *rsa.PublicKey:
		return key.Size()
	default:
		return 0
	}
}

// sign returns the signature of RFC 7515 over message, in its one spelling.
func (a Algorithm) sign(private crypto.Signer, message []byte) ([]byte, error) {
	signer, err := jws.NewSigner(jwa.SignatureAlgorithm(a.String()))
	if err != nil {
		return nil, fmt.Errorf("preparing to sign with %s: %w", a, err)
	}
	signature, err := signer.Sign(message, private)
	if err != nil {
		return nil, fmt.Errorf("signing with %s: %w", a, err)
	}
	if a == ES256 {
		lowerS(signature)
	}
	return signature, nil
}

// coordinateSize is the length of r and of s of ES256 (RFC 7518 §3.4).
const coordinateSize = 32

var (
	p256Order     = elliptic.P256().Params().N
	p256HalfOrder = new(big.Int).Rsh(p256Order, 1)
)

// lowerS takes the smaller of the two values of s that are both valid in
// ECDSA, so that a signature has one spelling.
func lowerS(signature []byte) {
	s := new(big.Int).SetBytes(signature[coordinateSize:])
	if s.Cmp(p256HalfOrder) > 0 {
		s.Sub(p256Order, s).FillBytes(signature[coordinateSize:])
	}
}

// soundECDSA refuses r and s of zero and beyond the order, with which broken
// verifiers accept everything, and the greater s, which is a second spelling
// of the same signature.
func soundECDSA(signature []byte) bool {
	if len(signature) != 2*coordinateSize {
		return false
	}
	r := new(big.Int).SetBytes(signature[:coordinateSize])
	s := new(big.Int).SetBytes(signature[coordinateSize:])
	return r.Sign() > 0 && r.Cmp(p256Order) < 0 && s.Sign() > 0 && s.Cmp(p256HalfOrder) <= 0
}
