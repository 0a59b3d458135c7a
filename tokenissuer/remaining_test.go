package tokenissuer

import (
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func TestEnds(t *testing.T) {
	now := time.Now()
	issuer := newTestNode(t, nodeOptions{now: now}).issuer(t, IssuerConfig{TTL: time.Hour})
	minted, err := issuer.Mint(testPrincipal("a"), "a", now)
	if err != nil {
		t.Fatal(err)
	}
	token := minted.Token.Reveal()
	if ends, err := issuer.Ends(token, now); err != nil || !ends.Equal(minted.Ends) {
		t.Errorf("ends %s, %v, want %s", ends, err, minted.Ends)
	}
	_, err = issuer.Ends(token, now.Add(time.Hour))
	wantError(t, "an expired token", err, keystore.ErrTokenExpired)
	_, err = issuer.Ends(token+"A", now)
	wantError(t, "a forged token", err, keystore.ErrInvalid)
}
