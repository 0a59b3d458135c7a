package keystore

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

// FuzzAPIKey: whatever is accepted is exactly what formatting its halves
// gives, so that one key has one spelling.
func FuzzAPIKey(f *testing.F) {
	f.Add("wdr", "wdr_0000000000000000000000_0000000000000000000000000000000000000000000000000")
	f.Fuzz(func(t *testing.T, prefix, text string) {
		access, secret, ok := parseAPIKey(prefix, text)
		if !ok {
			return
		}
		if !wellFormedPair(string(access), secret) {
			t.Errorf("%q gives the pair %q, %q", text, access, secret)
		}
		if again := FormatAPIKey(prefix, access, Secret(secret)).Reveal(); again != text {
			t.Errorf("%q is another spelling of %q", text, again)
		}
	})
}

// FuzzAuthorization: every answer is one of the four, what is accepted holds
// no more than its kind, and nothing that two parsers could read differently
// is accepted.
func FuzzAuthorization(f *testing.F) {
	f.Add("Bearer a.b.c")
	f.Fuzz(func(t *testing.T, header string) {
		p, err := readAuthorization(header)
		switch err {
		case nil:
			accepted(t, header, p)
		case ErrNoCredential, ErrMalformed, ErrInvalid:
			if p != (Presented{}) {
				t.Errorf("%q is refused and yet presents %#v", header, p)
			}
		default:
			t.Errorf("%q: %v", header, err)
		}
	})
}

// readAuthorization is what becomes of a header before anything is known of
// its owner: parsed, and, if it seems to be a key or a token, found not to be
// one.
func readAuthorization(header string) (Presented, error) {
	p, err := ParseAuthorization(DefaultPrefix, header)
	if err != nil {
		return p, err
	}
	if p.Kind == CredentialKey {
		if err := p.examine(); err != nil {
			return Presented{}, err
		}
		return p, nil
	}
	lease := new(Lease)
	lease.RenewEndless()
	a := Authenticator{View: NewView(nil, lease, 1), Tokens: noTokens{}}
	if _, err := a.Authenticate(context.Background(), p, time.Now()); err == ErrMalformed {
		return Presented{}, err
	}
	return p, nil
}

// noTokens knows no token.
type noTokens struct{}

func (noTokens) Verify(string, time.Time) (TokenClaims, error) { return TokenClaims{}, ErrInvalid }

func accepted(t *testing.T, header string, p Presented) {
	t.Helper()
	scheme, text, _ := strings.Cut(header, " ")
	if len(header) > MaximumCredential || strings.ContainsAny(text, " ,\t\r\n\x00") {
		t.Errorf("%q is accepted", header)
	}
	switch scheme := strings.ToLower(scheme); {
	case p.Kind == CredentialAccessToken && scheme == "bearer":
		if p.Token != text || p.Access != "" || p.Secret != "" || strings.Count(text, ".") != 2 {
			t.Errorf("%q presents %q", header, p.Token)
		}
	case p.Kind == CredentialImported && (scheme == "bearer" || scheme == "token"):
		if p.Token != text || p.Access != "" || p.Secret != "" || strings.Count(text, ".") == 2 || strings.HasPrefix(text, DefaultPrefix+"_") {
			t.Errorf("%q presents %q", header, p.Token)
		}
	case p.Kind == CredentialKey && (scheme == "bearer" || scheme == "token"):
		if FormatAPIKey(DefaultPrefix, p.Access, Secret(p.Secret)).Reveal() != text || p.Token != "" {
			t.Errorf("%q presents %q, %q", header, p.Access, p.Secret)
		}
	case p.Kind == CredentialKey && scheme == "basic":
		if base64.StdEncoding.EncodeToString([]byte(string(p.Access)+":"+p.Secret)) != text || p.Token != "" {
			t.Errorf("%q presents %q, %q", header, p.Access, p.Secret)
		}
	default:
		t.Errorf("%q presents kind %s", header, p.Kind)
	}
}
