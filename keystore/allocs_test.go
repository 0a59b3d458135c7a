//go:build !race

// Under the race detector a sync.Pool forgets at random, and pooled state is
// allocated again.

package keystore

import (
	"context"
	"net/netip"
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

// TestPermitAndSpendDoNotAllocate: nor does what a known caller is asked next.
func TestPermitAndSpendDoNotAllocate(t *testing.T) {
	n := newNode(t, 16, 0)
	n.rulebook.byID.Store(&map[string]*rules{"perm_a": {rules: []rule{{methods: []string{"GET"}, paths: patterns("/v1/*/x", "/v1/*")}}}})
	z := &Authorizer{Directory: &n.directory, Rulebook: &n.rulebook}
	rec := Record{ID: "key_a", Organization: DefaultOrganization, Permissions: "perm_a perm_b", Networks: "10.0.0.0/8 2001:db8::/32", Limit: Limit{1_000_000, 1_000_000, time.Second}}
	p := &Principal{Record: &rec, Meter: NewMeters().of(&rec)}
	access := Access{Method: "GET", Path: "/v1/a/b", From: netip.MustParseAddr("2001:db8::1")}
	now := time.Now()
	ask := func() {
		if err := z.Permit(p, access); err != nil {
			t.Fatal(err)
		}
		z.Spend(p, now)
		p.Meter.Pass(1, now)
		p.Meter.Refuse(OutcomeScope)
	}
	ask()
	if allocs := testing.AllocsPerRun(1000, ask); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func patterns(texts ...string) (out []PathPattern) {
	for _, text := range texts {
		p, _ := ParsePathPattern(text)
		out = append(out, p)
	}
	return out
}
