package tokenissuer

import (
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/warderhq/warder/keystore"
)

// Another library, which knows nothing of ours but the JWKS, accepts our
// tokens and reads the same.
func TestIndependentVerification(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256, RS256} {
		t.Run(alg.String(), func(t *testing.T) {
			now := time.Now().Truncate(time.Second)
			n := newTestNode(t, nodeOptions{algorithm: alg})
			issuer := n.issuer(t, IssuerConfig{Audience: "https://api.example.com"})
			token := mint(t, issuer, testPrincipal("a:read b:write"), now)

			keys, err := jwk.Parse(n.keyring.current.Load().jwks)
			if err != nil {
				t.Fatal(err)
			}
			parsed, err := jwt.Parse([]byte(token), jwt.WithKeySet(keys), jwt.WithValidate(true))
			if err != nil {
				t.Fatalf("independent verification: %v", err)
			}
			want := map[string]any{
				"iss": testIssuer, "sub": "key_5xtzqv7bpa2kynqk4vxh3zj6aq", "client_id": "3fQx8vLm2TzRk9YpWc1Hd7",
				"org": "default", "gen": 3.0, "scope": "a:read b:write", "exp": now.Add(DefaultTTL).UTC(), "iat": now.UTC(),
			}
			for name, value := range want {
				if got, _ := parsed.Get(name); got != value {
					t.Errorf("claim %s: got %v (%T), want %v", name, got, got, value)
				}
			}
			if aud := parsed.Audience(); len(aud) != 1 || aud[0] != "https://api.example.com" {
				t.Errorf("aud: got %v", aud)
			}
			if len(parsed.JwtID()) != 22 {
				t.Errorf("jti: got %q", parsed.JwtID())
			}
			message, err := jws.Parse([]byte(token))
			if err != nil {
				t.Fatal(err)
			}
			if header := message.Signatures()[0].ProtectedHeaders(); header.Type() != "at+jwt" || header.Algorithm().String() != alg.String() {
				t.Errorf("header: typ %q, alg %q", header.Type(), header.Algorithm())
			}
			claims, err := issuer.Verify(token, now)
			if err != nil || claims != (keystore.TokenClaims{Key: "key_5xtzqv7bpa2kynqk4vxh3zj6aq", Generation: 3, Scopes: "a:read b:write"}) {
				t.Errorf("own verification: %+v, %v", claims, err)
			}
		})
	}
}

func TestMintNeverOutlivesTheCredential(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 700_000_000, time.UTC)
	at := func(d time.Duration) keystore.Instant { return keystore.InstantOf(now.Add(d)) }
	n := newTestNode(t, nodeOptions{now: now})
	issuer := n.issuer(t, IssuerConfig{TTL: time.Minute})
	for _, c := range []struct {
		name       string
		expires    keystore.Instant
		graceEnd   keystore.Instant
		generation keystore.Generation
		want       time.Duration // after the whole second of now; zero: refused
	}{
		{name: "ttl", generation: 3, want: time.Minute},
		{name: "key ends later", generation: 3, expires: at(time.Hour), want: time.Minute},
		{name: "key ends sooner, within a second", generation: 3, expires: at(10*time.Second + 200*time.Millisecond), want: 10 * time.Second},
		{name: "key ends within this second", generation: 3, expires: at(200 * time.Millisecond)},
		{name: "grace ends sooner", generation: 2, graceEnd: at(20 * time.Second), want: 20 * time.Second},
		{name: "key ends before grace", generation: 2, graceEnd: at(20 * time.Second), expires: at(10 * time.Second), want: 10 * time.Second},
		{name: "grace is over", generation: 2, graceEnd: at(-time.Second)},
		{name: "grace end is lost", generation: 2},
	} {
		p := testPrincipal("")
		p.Record.Previous = keystore.Pair{Generation: 2, AccessKey: "OldOldOldOldOldOldOldO"}
		p.Record.Expires, p.Record.GraceEnd, p.Generation = c.expires, c.graceEnd, c.generation
		m, err := issuer.Mint(p, "", now)
		if c.want == 0 {
			wantError(t, c.name, err, keystore.ErrExpired)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := m.Ends.Sub(now.Truncate(time.Second)); got != c.want || m.ExpiresIn() != int64(c.want/time.Second) {
			t.Errorf("%s: lives %s, says %d, want %s", c.name, got, m.ExpiresIn(), c.want)
		}
		if _, err := issuer.Verify(m.Token.Reveal(), m.Ends.Add(-time.Nanosecond)); err != nil {
			t.Errorf("%s: before its end: %v", c.name, err)
		}
		_, err = issuer.Verify(m.Token.Reveal(), m.Ends)
		wantError(t, c.name+": at its end", err, keystore.ErrTokenExpired)
	}
}

func TestMintRefuses(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	issuer := n.issuer(t, IssuerConfig{})
	_, err := issuer.Mint(keystore.Principal{}, "", now)
	wantError(t, "nobody", err, keystore.ErrInvalid)
	p := testPrincipal("")
	p.Generation = 0
	_, err = issuer.Mint(p, "", now)
	wantError(t, "no generation", err, keystore.ErrInvalid)

	p = testPrincipal("")
	p.Record.Organization = `a","gen":9,"x":"`
	if _, err = issuer.Mint(p, "", now); err == nil {
		t.Error("an organization that breaks out of its claim was minted")
	}
	long := keystore.Scopes(strings.Repeat("abcdefgh ", 400) + "z")
	_, err = issuer.Mint(testPrincipal(long), long, now)
	wantError(t, "scopes beyond a token", err, ErrTokenTooLong)

	empty, err := NewKeyring(KeyringConfig{Secret: keystore.NewStoreSecret(), MemoBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	lost, err := NewIssuer(IssuerConfig{Keyring: empty, URL: testIssuer})
	if err != nil {
		t.Fatal(err)
	}
	_, err = lost.Mint(testPrincipal(""), "", now)
	wantError(t, "minting without a ring", err, keystore.ErrUnavailable)
	_, err = lost.Verify("a.b.c", now)
	wantError(t, "verifying without a ring", err, keystore.ErrUnavailable)
}

// Whatever is minted is short enough to be looked at.
func TestLongestTokenVerifies(t *testing.T) {
	now := time.Now()
	for _, alg := range []Algorithm{EdDSA, RS256} {
		n := newTestNode(t, nodeOptions{algorithm: alg})
		issuer := n.issuer(t, IssuerConfig{})
		longest := ""
		for length := 1; length < maxToken; length++ {
			scope := keystore.Scopes(strings.Repeat("a", length))
			m, err := issuer.Mint(testPrincipal(scope), scope, now)
			if err != nil {
				wantError(t, "at the limit", err, ErrTokenTooLong)
				break
			}
			longest = m.Token.Reveal()
			if gap := maxToken - len(longest); gap > 16 {
				length += gap / 2
			}
		}
		if len(longest) < maxToken-3 || len(longest) > maxToken {
			t.Errorf("%s: the longest token has %d bytes, the limit is %d", alg, len(longest), maxToken)
		}
		if _, err := issuer.Verify(longest, now); err != nil {
			t.Errorf("%s: the longest token: %v", alg, err)
		}
	}
}

func TestNewIssuerRefuses(t *testing.T) {
	for _, cfg := range []IssuerConfig{
		{URL: ""}, {URL: "localhost:8080"}, {URL: "ftp://example.com"}, {URL: "https://"}, {URL: "https://u:p@example.com"},
		{URL: "https://example.com?x"}, {URL: "https://example.com?"}, {URL: "https://example.com#"}, {URL: "https://example.com/\"x"},
		{URL: "https://example.com/" + strings.Repeat("a", maxClaim)}, {URL: "https://exämple.com"},
		{URL: testIssuer, TTL: time.Millisecond}, {URL: testIssuer, TTL: 25 * time.Hour}, {URL: testIssuer, TTL: -time.Minute},
		{URL: testIssuer, Audience: `a"b`}, {URL: testIssuer, Audience: strings.Repeat("a", maxClaim+1)},
	} {
		if _, err := NewIssuer(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}
