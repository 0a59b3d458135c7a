//go:build !race

// Under the race detector a sync.Pool forgets at random, and pooled state is
// allocated again.

package keystore

import (
	"context"
	"testing"
	"time"
)

func TestParsingDoesNotAllocate(t *testing.T) {
	c := newCredentials()
	apiKey := FormatAPIKey("wdr", c.NewAccessKey(), c.NewSecretKey()).Reveal()
	for _, header := range []string{
		"Token " + apiKey, "Bearer " + apiKey, "Bearer aaa.bbb.ccc", // good
		"", "Digest x", "Token wdr_", "Token " + apiKey[:70] + "000000", "Bearer a,b", "Bearer \x00", // bad ones are cheap, too
	} {
		if allocs := testing.AllocsPerRun(1000, func() { ParseAuthorization("wdr", header) }); allocs != 0 {
			t.Errorf("%.20q allocates %v times", header, allocs)
		}
	}
}

func TestDigestDoesNotAllocate(t *testing.T) {
	c := newCredentials()
	secret := c.NewSecretKey().Reveal()
	if allocs := testing.AllocsPerRun(1000, func() { c.Digest(secret) }); allocs != 0 {
		t.Errorf("a digest allocates %v times", allocs)
	}
}

// TestHitsDoNotAllocate: neither the decision nor what leads to it.
func TestHitsDoNotAllocate(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.storedKey(t, "")
	apiKey := FormatAPIKey(DefaultPrefix, rec.Current.AccessKey, secret).Reveal()
	n.tokens["a.b.c"] = TokenClaims{Key: rec.ID, Generation: 1}
	ctx, now := context.Background(), time.Now()
	for _, header := range []string{"Token " + apiKey, "Bearer " + apiKey, "Bearer a.b.c"} {
		decide := func() error {
			p, err := ParseAuthorization(DefaultPrefix, header)
			if err == nil {
				_, err = n.auth.Authenticate(ctx, p, now)
			}
			return err
		}
		if err := decide(); err != nil {
			t.Fatalf("%.12s: %v", header, err)
		}
		if allocs := testing.AllocsPerRun(1000, func() { decide() }); allocs != 0 {
			t.Errorf("%.12s: a hit allocates %v times", header, allocs)
		}
	}
}
