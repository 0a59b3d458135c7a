package tokenissuer

import (
	"crypto/ed25519"
	"testing"
	"time"
)

// The floor: what signing and verifying cost by themselves, on as many bytes
// as an access token has.

func BenchmarkFloorSign(b *testing.B) {
	_, private, message := floor(b)
	b.ReportAllocs()
	for b.Loop() {
		ed25519.Sign(private, message)
	}
}

func BenchmarkFloorVerify(b *testing.B) {
	public, private, message := floor(b)
	signature := ed25519.Sign(private, message)
	b.ReportAllocs()
	for b.Loop() {
		if !ed25519.Verify(public, message, signature) {
			b.Fatal("the floor does not hold")
		}
	}
}

func floor(b *testing.B) (ed25519.PublicKey, ed25519.PrivateKey, []byte) {
	b.Helper()
	n := newTestNode(b, nodeOptions{})
	token := mint(b, n.issuer(b, IssuerConfig{}), testPrincipal("hello:read"), time.Now())
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	return public, private, []byte(token[:len(token)-87])
}

func BenchmarkMint(b *testing.B) {
	n := newTestNode(b, nodeOptions{})
	issuer := n.issuer(b, IssuerConfig{})
	p, now := testPrincipal("hello:read"), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := issuer.Mint(p, p.Scopes, now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTokenMiss verifies tokens that were never seen, and remembers them.
func BenchmarkTokenMiss(b *testing.B) {
	n := newTestNode(b, nodeOptions{})
	issuer := n.issuer(b, IssuerConfig{})
	p, now := testPrincipal("hello:read"), time.Now()
	tokens := make([]string, b.N)
	for i := range tokens {
		tokens[i] = mint(b, issuer, p, now)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, token := range tokens {
		if _, err := issuer.Verify(token, now); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTokenHit verifies a token that was seen before: the memo's part of
// a decision.
func BenchmarkTokenHit(b *testing.B) {
	n := newTestNode(b, nodeOptions{})
	issuer := n.issuer(b, IssuerConfig{})
	now := time.Now()
	token := remembered(b, issuer, testPrincipal("hello:read"), now)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := issuer.Verify(token, now); err != nil {
			b.Fatal(err)
		}
	}
}
