package tokenissuer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func TestAudience(t *testing.T) {
	for want, names := range map[string][]string{
		`"a"`:                 {"a"},
		`"a]"`:                {"a]", "a]"},
		`["[a","b]"]`:         {"b]", "[a"},
		`["a","b","c"]`:       {"c", "a", "b", "a"},
		`["a,b","https://x"]`: {"https://x", "a,b"},
	} {
		got := newAudience(names...)
		if string(got) != want || !got.wellFormed() || !json.Valid([]byte(got)) {
			t.Errorf("%q became %s, well-formed %v", names, got, got.wellFormed())
		}
		set := slices.Compact(slices.Sorted(slices.Values(names)))
		if back := slices.Collect(got.names()); !slices.Equal(back, set) {
			t.Errorf("%s has the names %q", got, back)
		}
	}
	for _, bad := range []audience{
		``, `"`, `""`, `[]`, `[""]`, `["a"]`, `["b","a"]`, `["a","a"]`, `["a", "b"]`, `["a","b"`, `"a","b"`, `["a","b"]]`, `[["a","b"]`,
		`["","a"]`, `xax`, `"a`, `a"`, `{"a":"b"}`, `["a\"","b"]`, `1`,
	} {
		if bad.wellFormed() {
			t.Errorf("%s is well-formed", bad)
		}
	}
}

// A token passes where its audience is one of those that are configured, and
// each request asks the configuration of today.
func TestResources(t *testing.T) {
	now := time.Now()
	n := newTestNode(t, nodeOptions{})
	const a, b, c = "https://a.example/", "https://b.example/v1?x=y", "urn:example:c"
	issuer := n.issuer(t, IssuerConfig{Resources: []string{b, a, c}})
	onlyA := n.issuer(t, IssuerConfig{Resources: []string{a}})
	none := n.issuer(t, IssuerConfig{})
	named := n.issuer(t, IssuerConfig{Audience: a})
	for _, row := range []struct {
		ask      []string
		aud      string
		accepted [4]bool
	}{
		{nil, `"` + testIssuer + `"`, [4]bool{true, true, true, false}},
		{[]string{testIssuer}, `"` + testIssuer + `"`, [4]bool{true, true, true, false}},
		{[]string{a}, `"` + a + `"`, [4]bool{true, true, false, true}},
		{[]string{b, b}, `"` + b + `"`, [4]bool{true, false, false, false}},
		{[]string{b, a}, `["` + a + `","` + b + `"]`, [4]bool{true, true, false, true}},
		{[]string{c, testIssuer}, `["` + testIssuer + `","` + c + `"]`, [4]bool{true, true, true, false}},
	} {
		m, err := issuer.Mint(testPrincipal("s"), "s", now, row.ask...)
		if err != nil {
			t.Fatal(err)
		}
		token := m.Token.Reveal()
		if got := string(claimsOf(t, issuer, token).audience); got != row.aud {
			t.Errorf("%q: aud %s, want %s", row.ask, got, row.aud)
		}
		for range 2 { // without and with the memo
			for i, verifier := range []*Issuer{issuer, onlyA, none, named} {
				if _, err := verifier.Verify(token, now); (err == nil) != row.accepted[i] {
					t.Errorf("%q at issuer %d: %v", row.ask, i, err)
				}
			}
			if _, err := issuer.Own().Verify(token, now); (err == nil) != row.accepted[2] {
				t.Errorf("%q as its own: %v", row.ask, err)
			}
			n.keyring.memo.cache.Wait()
		}
	}
	for _, ask := range [][]string{
		{"https://d.example"}, {a, "https://d.example"}, {strings.TrimSuffix(a, "/")}, {strings.ToUpper(a)}, {a + "#f"}, {"/relative"}, {""},
	} {
		_, err := issuer.Mint(testPrincipal("s"), "s", now, ask...)
		wantError(t, strings.Join(ask, " "), err, ErrTarget)
	}
	if _, err := n.issuer(t, IssuerConfig{Audience: "my api"}).Mint(testPrincipal("s"), "s", now, "my api"); err == nil {
		t.Error("a resource that is no URI was minted")
	}
}

func TestNewIssuerRefusesResources(t *testing.T) {
	n := newTestNode(t, nodeOptions{})
	many := make([]string, maxResources+1)
	for i := range many {
		many[i] = "https://example.com/" + strings.Repeat("a", i)
	}
	for _, resources := range [][]string{
		{""}, {"example.com"}, {"/path"}, {"//host/path"}, {"https://a.example#"}, {"https://a.example#f"}, {"https://a example"},
		{`https://a.example/"`}, {"https:"}, {"https://exämple.com"}, {"https://a.example", "https://a.example"},
		{"https://a.example/" + strings.Repeat("a", maxClaim)}, many,
	} {
		if _, err := NewIssuer(IssuerConfig{Keyring: n.keyring, URL: testIssuer, Resources: resources}); err == nil {
			t.Errorf("%q were accepted", resources)
		}
	}
}

// A proof that is kept does not keep the payload that it was read from.
func TestProofOwnsItsAudience(t *testing.T) {
	issuer := newTestNode(t, nodeOptions{}).issuer(t, IssuerConfig{Resources: []string{"https://a.example"}})
	for _, read := range []audience{issuer.own[:len(issuer.own)-1] + `"`, newAudience("https://a.example")} {
		c := claims{audience: read}
		issuer.share(&c)
		if c.audience != read || unsafe.StringData(string(c.audience)) == unsafe.StringData(string(read)) {
			t.Errorf("%s still points into what was read", read)
		}
	}
}
