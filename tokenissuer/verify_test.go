package tokenissuer

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// forger has a node, a good token of it, and the active key itself: what it
// signs is refused for its form alone.
type forger struct {
	*node
	issuer *Issuer
	now    time.Time
	token  string
	key    signingKey
}

func newForger(t testing.TB, alg Algorithm) *forger {
	t.Helper()
	f := &forger{node: newTestNode(t, nodeOptions{algorithm: alg}), now: time.Now()}
	f.issuer = f.node.issuer(t, IssuerConfig{})
	f.token = mint(t, f.issuer, testPrincipal("hello:read"), f.now)
	f.key = f.keyring.current.Load().active.signingKey
	return f
}

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func decode(t testing.TB, s string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sign puts a token together and signs it with the real key.
func (f *forger) sign(t testing.TB, header, payload string) string {
	t.Helper()
	message := header + "." + payload
	signature, err := f.key.alg.sign(f.key.private, []byte(message))
	if err != nil {
		t.Fatal(err)
	}
	return message + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func (f *forger) parts(t testing.TB) (header, payload, signature string) {
	t.Helper()
	parts := strings.Split(f.token, ".")
	if len(parts) != 3 {
		t.Fatal("a token has three segments")
	}
	return parts[0], parts[1], parts[2]
}

func (f *forger) refuse(t *testing.T, what, token string, want error) {
	t.Helper()
	claims, err := f.issuer.Verify(token, f.now)
	if err != want || claims != (keystore.TokenClaims{}) {
		t.Errorf("%s: got %+v, %v, want %v", what, claims, err, want)
	}
	if want != keystore.ErrTokenExpired && !errors.Is(err, keystore.ErrInvalid) {
		t.Errorf("%s: %v is not ErrInvalid", what, err)
	}
	f.keyring.memo.cache.Wait()
	if f.keyring.memo.find(token) != nil {
		t.Errorf("%s: the memo remembers it", what)
	}
}

// The key names the algorithm, and the header names nothing: not even one
// that our own key has signed.
func TestHeaderChoosesNothing(t *testing.T) {
	f := newForger(t, EdDSA)
	_, payload, signature := f.parts(t)
	public := f.key.private.Public().(ed25519.PublicKey)
	kid := f.key.kid
	for _, header := range []string{
		`{"alg":"none","kid":"` + kid + `","typ":"at+jwt"}`,
		`{"alg":"HS256","kid":"` + kid + `","typ":"at+jwt"}`,
		`{"alg":"ES256","kid":"` + kid + `","typ":"at+jwt"}`,
		`{"alg":"eddsa","kid":"` + kid + `","typ":"at+jwt"}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"JWT"}`,
		`{"alg":"EdDSA","kid":"` + kid + `"}`,
		`{"alg":"EdDSA","typ":"at+jwt"}`,
		`{"alg":"EdDSA","kid":"","typ":"at+jwt"}`,
		`{"alg":"EdDSA","kid":"../../dev/null","typ":"at+jwt"}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt","crit":["x"],"x":1}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt","crit":["b64"],"b64":false}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt","jku":"https://attacker.example/jwks"}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt","x5u":"https://attacker.example/x5u"}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt","x5c":["AAAA"]}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt","jwk":{"kty":"OKP","crv":"Ed25519","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt","cty":"JWT"}`,
		`{"alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt","zip":"DEF"}`,
		`{"alg":"EdDSA","kid":"` + kid + `","kid":"x","typ":"at+jwt"}`,
		`{"Alg":"EdDSA","kid":"` + kid + `","typ":"at+jwt"}`,
		`{"alg":"EdDSA", "kid":"` + kid + `","typ":"at+jwt"}`,
		`{"typ":"at+jwt","alg":"EdDSA","kid":"` + kid + `"}`,
		`{}`, ``, `null`, strings.Repeat("[", 2000),
	} {
		f.refuse(t, header, f.sign(t, encode(header), payload), errTokenHeader)
		f.refuse(t, header+" unsigned", encode(header)+"."+payload+".", errTokenHeader)
		f.refuse(t, header+" with the good signature", encode(header)+"."+payload+"."+signature, errTokenHeader)
	}
}

// HMAC keyed with the public key in every form an attacker can have it, under
// the good header too.
func TestHMACWithThePublicKey(t *testing.T) {
	f := newForger(t, RS256)
	header, payload, _ := f.parts(t)
	der, err := x509.MarshalPKIXPublicKey(f.key.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for _, secret := range [][]byte{der, text, f.keyring.current.Load().jwks, nil} {
		for _, h := range []string{header, encode(`{"alg":"HS256","kid":"` + f.key.kid + `","typ":"at+jwt"}`)} {
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(h + "." + payload))
			token := h + "." + payload + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
			if _, err := f.issuer.Verify(token, f.now); !errors.Is(err, keystore.ErrInvalid) {
				t.Errorf("HMAC under %q passes: %v", h, err)
			}
		}
	}
}

// A key of another ring, even one that calls itself by our kid.
func TestForeignKey(t *testing.T) {
	f, other := newForger(t, EdDSA), newForger(t, EdDSA)
	f.refuse(t, "a token of another ring", other.token, errTokenHeader)
	header, payload, _ := f.parts(t)
	f.refuse(t, "our header, another key's signature", other.sign(t, header, payload), errTokenSignature)
}

// One token has one spelling.
func TestOneSpelling(t *testing.T) {
	f := newForger(t, EdDSA)
	header, payload, signature := f.parts(t)
	last := signature[len(signature)-1]
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range 3 { // 86 characters hold 516 bits, 4 of them unused
		tail := alphabet[strings.IndexByte(alphabet, last)+1+i]
		f.refuse(t, "unused bits in the tail", header+"."+payload+"."+signature[:85]+string(tail), errTokenSignature)
	}
	for what, token := range map[string]string{
		"padding":              header + "." + payload + "." + signature + "==",
		"line end inside":      header + "." + payload + "." + signature[:40] + "\n" + signature[40:],
		"line ends instead":    header + "." + payload + "." + signature[:82] + "\r\n\r\n",
		"line end after":       header + "." + payload + "." + signature + "\n",
		"cut":                  header + "." + payload + "." + signature[:85],
		"standard alphabet":    header + "." + payload + "." + strings.NewReplacer("-", "+", "_", "/").Replace(signature[:85]) + "/",
		"no signature":         header + "." + payload + ".",
		"two segments":         header + "." + payload,
		"a fourth segment":     f.token + ".",
		"an empty one between": header + ".." + payload + "." + signature,
		"JWE":                  header + "." + payload + "." + signature + ".a.b",
	} {
		f.refuse(t, what, token, errTokenSignature)
	}
	for what, token := range map[string]string{
		"white space before": " " + f.token,
		"nothing":            "",
		"dots":               "..",
		"padded header":      header + "=." + payload + "." + signature,
		"header alone":       header[:10],
	} {
		f.refuse(t, what, token, errTokenHeader)
	}
	f.refuse(t, "a payload that is base64 with a line end", f.sign(t, header, payload[:10]+"\n"+payload[10:]), errTokenClaims)
	f.refuse(t, "a padded payload", f.sign(t, header, payload+"="), errTokenClaims)
	if _, err := f.issuer.Verify(f.token, f.now); err != nil {
		t.Errorf("the one spelling: %v", err)
	}
}

func TestEveryBitOfATokenCounts(t *testing.T) {
	for _, alg := range []Algorithm{EdDSA, ES256} {
		f := newForger(t, alg)
		for i := range len(f.token) {
			for _, c := range []byte{'A', 'B', '.', '=', ' '} {
				if f.token[i] == c {
					continue
				}
				changed := f.token[:i] + string(c) + f.token[i+1:]
				if _, err := f.issuer.Verify(changed, f.now); !errors.Is(err, keystore.ErrInvalid) {
					t.Fatalf("%s: passes with %q at %d: %v", alg, c, i, err)
				}
			}
		}
	}
}

// Our own key signs claims in another form: still not a token of ours.
func TestStrictClaims(t *testing.T) {
	f := newForger(t, EdDSA)
	header, payload, _ := f.parts(t)
	good := decode(t, payload)
	replaced := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%s is not in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	iat, exp := fmt.Sprint(f.now.Unix()), fmt.Sprint(f.now.Add(DefaultTTL).Unix())
	for what, claims := range map[string]string{
		"white space":             replaced(`,"sub"`, `, "sub"`),
		"unknown member":          replaced(`,"sub"`, `,"admin":true,"sub"`),
		"unknown member last":     replaced(`hello:read"}`, `hello:read","admin":true}`),
		"duplicate member":        replaced(`"gen":3`, `"gen":3,"gen":4`),
		"duplicate scope":         replaced(`"scope":"hello:read"`, `"scope":"hello:read","scope":"warder:admin"`),
		"case-folded":             replaced(`"scope"`, `"Scope"`),
		"folded kelvin sign":      replaced(`"iss"`, "\"i\u017fs\""),
		"escaped name":            replaced(`"sub"`, `"\u0073ub"`),
		"escaped value":           replaced(`"hello:read"`, `"hello\u003aread"`),
		"escaped slash":           replaced(`http://`, `http:\/\/`),
		"not ASCII":               replaced(`"default"`, `"défault"`),
		"control character":       replaced(`"default"`, "\"def\x00ault\""),
		"other order":             replaced(`"org":"default","gen":3`, `"gen":3,"org":"default"`),
		"missing member":          replaced(`"org":"default",`, ``),
		"missing jti":             replaced(`,"jti":`, `,"JTI":`),
		"aud as an array":         replaced(`"aud":"`+testIssuer+`"`, `"aud":["`+testIssuer+`"]`),
		"empty scope":             replaced(`"scope":"hello:read"`, `"scope":""`),
		"empty sub":               replaced(`"sub":"key_5xtzqv7bpa2kynqk4vxh3zj6aq"`, `"sub":""`),
		"generation zero":         replaced(`"gen":3`, `"gen":0`),
		"no generation":           replaced(`"gen":3`, `"gen":`),
		"leading zero":            replaced(`"gen":3`, `"gen":03`),
		"sign":                    replaced(`"gen":3`, `"gen":+3`),
		"negative":                replaced(`"gen":3`, `"gen":-3`),
		"fraction":                replaced(`"gen":3`, `"gen":3.0`),
		"exponent":                replaced(`"gen":3`, `"gen":3e0`),
		"string for a number":     replaced(`"gen":3`, `"gen":"3"`),
		"overflow of uint64":      replaced(`"gen":3`, `"gen":18446744073709551619`),
		"exp beyond the calendar": replaced(`"exp":`+exp, `"exp":253402300800`),
		"exp as a float":          replaced(`"exp":`+exp, `"exp":`+exp+`.5`),
		"no exp":                  replaced(`,"exp":`+exp, ``),
		"iat with exponent":       replaced(`"iat":`+iat, `"iat":1e9`),
		"text after":              good + " ",
		"second document":         good + good,
		"truncated":               good[:len(good)-1],
		"null":                    "null",
		"array":                   "[" + good + "]",
		"deep":                    strings.Repeat("[", 1500),
		"nothing":                 "",
		"another token inside":    f.token,
	} {
		f.refuse(t, what, f.sign(t, header, encode(claims)), errTokenClaims)
	}
	if _, err := f.issuer.Verify(f.sign(t, header, encode(good)), f.now); err != nil {
		t.Errorf("the good claims, signed again: %v", err)
	}
}

func TestClaimsOfAnotherIssuerAudienceAndTime(t *testing.T) {
	f := newForger(t, EdDSA)
	seconds := int64(time.Second)
	for _, c := range []struct {
		what      string
		verifier  IssuerConfig
		at        time.Time
		want      error
		otherTime bool
	}{
		{what: "now", at: f.now},
		{what: "other issuer", verifier: IssuerConfig{URL: "https://other.example", Audience: testIssuer}, at: f.now, want: errTokenIssuer},
		{what: "issuer with a slash", verifier: IssuerConfig{URL: testIssuer + "/", Audience: testIssuer}, at: f.now, want: errTokenIssuer},
		{what: "issuer in other case", verifier: IssuerConfig{URL: "http://LOCALHOST:8080", Audience: testIssuer}, at: f.now, want: errTokenIssuer},
		{what: "other audience", verifier: IssuerConfig{Audience: "https://api.example"}, at: f.now, want: errTokenAudience},
		{what: "last moment", at: time.Unix(f.now.Unix()+900, -1)},
		{what: "its end", at: time.Unix(f.now.Unix()+900, 0), want: keystore.ErrTokenExpired},
		{what: "long after", at: f.now.Add(100 * 365 * 24 * time.Hour), want: keystore.ErrTokenExpired},
		{what: "a clock behind by the skew", at: time.Unix(f.now.Unix()-int64(clockSkew)/seconds, 0)},
		{what: "a clock behind by more", at: time.Unix(f.now.Unix()-int64(clockSkew)/seconds-1, 0), want: errTokenEarly},
	} {
		verifier := f.node.issuer(t, c.verifier)
		for range 2 { // without and with the memo
			claims, err := verifier.Verify(f.token, c.at)
			if err != c.want || (err != nil) != (claims == keystore.TokenClaims{}) {
				t.Errorf("%s: got %+v, %v, want %v", c.what, claims, err, c.want)
			}
			f.keyring.memo.cache.Wait()
		}
	}
}

// A length limit first, then cuts: the cost of refusing does not grow with
// what is sent.
func TestAmplification(t *testing.T) {
	f := newForger(t, EdDSA)
	header, payload, _ := f.parts(t)
	f.refuse(t, "one byte too long", f.sign(t, header, payload+strings.Repeat("A", maxToken+1-len(f.token))), errTokenLength)
	for what, token := range map[string]string{
		"a million dots":                    strings.Repeat(".", 1_000_000),
		"the good header, then only dots":   header + strings.Repeat(".", maxToken-len(header)),
		"dots up to the limit":              strings.Repeat(".", maxToken),
		"a good header and a long payload":  header + "." + strings.Repeat("A", 3000) + "." + strings.Repeat("A", 86),
		"the good one with a bad signature": f.token[:len(f.token)-4] + "AAAA",
	} {
		const rounds = 100
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			if _, err := f.issuer.Verify(token, f.now); err == nil {
				t.Errorf("%s passes", what)
			}
		}
		runtime.ReadMemStats(&after)
		if n := (after.TotalAlloc - before.TotalAlloc) / rounds; n > 12<<10 { // the room for one token, at the worst
			t.Errorf("%s: refused with %d bytes of garbage", what, n)
		}
	}
}

// r and s of zero or of the order prove nothing (CVE-2022-21449), and of the
// two values of s that are both valid one is a token's.
func TestECDSASignatures(t *testing.T) {
	f := newForger(t, ES256)
	header, payload, signature := f.parts(t)
	raw := []byte(decode(t, signature))
	r, s := new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])
	spell := func(r, s *big.Int) string {
		out := make([]byte, 64)
		r.FillBytes(out[:32])
		s.FillBytes(out[32:])
		return header + "." + payload + "." + base64.RawURLEncoding.EncodeToString(out)
	}
	zero, one := new(big.Int), big.NewInt(1)
	for what, token := range map[string]string{
		"r and s zero":      spell(zero, zero),
		"r zero":            spell(zero, s),
		"s zero":            spell(r, zero),
		"r and s one":       spell(one, one),
		"r and s the order": spell(p256Order, p256Order),
		"r the order":       spell(p256Order, s),
		"s the order":       spell(r, p256Order),
		"the other s":       spell(r, new(big.Int).Sub(p256Order, s)),
		"r and s swapped":   spell(s, r),
	} {
		f.refuse(t, what, token, errTokenSignature)
	}
	if _, err := f.issuer.Verify(spell(r, s), f.now); err != nil {
		t.Errorf("the good pair: %v", err)
	}
	other := append(raw[:32:32], new(big.Int).Sub(p256Order, s).FillBytes(make([]byte, 32))...)
	key := f.keyring.current.Load().by(header)
	if key.verifier.Verify([]byte(header+"."+payload), other, key.public) != nil {
		t.Error("the other s is no second spelling: the test proves nothing")
	}
	for range 64 {
		token := mint(t, f.issuer, testPrincipal(""), f.now)
		if _, err := f.issuer.Verify(token, f.now); err != nil {
			t.Fatalf("one of our own: %v", err)
		}
	}
}

// A ring with a key too weak, of another curve or under another's name does
// not open.
func TestKeyFitsItsAlgorithm(t *testing.T) {
	t.Setenv("GODEBUG", "rsa1024min=0") // or no such key can be made
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ed, err := newSigningKey(EdDSA)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		alg     Algorithm
		private crypto.Signer
	}{
		"1024 bits":          {RS256, weak},
		"Ed25519 as ES256":   {ES256, ed.private},
		"Ed25519 as RS256":   {RS256, ed.private},
		"Ed25519 as unknown": {AlgorithmUnknown, ed.private},
	} {
		if _, err := identify(c.alg, c.private); err == nil {
			t.Errorf("%s is taken for a signing key", what)
		}
	}
	der, err := ed.material()
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseSigningKey("another", "EdDSA", der)
	wantError(t, "another kid", err, keystore.ErrCorrupt)
	_, err = parseSigningKey(ed.kid, "none", der)
	wantError(t, "no algorithm", err, keystore.ErrCorrupt)
	_, err = parseSigningKey(ed.kid, "ES256", der)
	wantError(t, "another algorithm", err, keystore.ErrCorrupt)
	if _, err := parseSigningKey(ed.kid, "EdDSA", der); err != nil {
		t.Errorf("the key itself: %v", err)
	}
}

// What a token says is what was minted, for every value a claim can have.
func FuzzClaims(f *testing.F) {
	f.Add("http://localhost:8080", "key_abc", "aud", "3fQx8vLm2TzRk9YpWc1Hd7", int64(1), int64(2), "jti", "default", uint64(1), "a b")
	f.Add("i", "s", "a,b,a,https://c.example", "c", int64(0), int64(1), "j", "", uint64(1), "")
	f.Add("i", "s", "a", "", int64(0), int64(maxSeconds), "j", "", uint64(1<<63), "")
	f.Add(`"`, `\`, "\x00", "ü", int64(-1), int64(maxSeconds+1), "", "}", uint64(0), `","gen":9`)
	f.Fuzz(func(t *testing.T, iss, sub, aud, client string, iat, exp int64, jti, org string, gen uint64, scope string) {
		c := claims{iss, sub, newAudience(strings.Split(aud, ",")...), client, iat, exp, jti, org, gen, scope}
		if !c.wellFormed() {
			return
		}
		got, ok := decodeClaims(string(c.append(nil)))
		if !ok || got != c {
			t.Errorf("%+v became %+v, %v", c, got, ok)
		}
	})
}

// Nothing but the exact bytes of the good token passes.
func FuzzVerify(f *testing.F) {
	forger := newForger(f, EdDSA)
	header, payload, signature := forger.parts(f)
	f.Add(forger.token)
	f.Add(header + "." + payload + ".")
	f.Add(encode(`{"alg":"none"}`) + "." + payload + ".")
	f.Add(header + "." + encode("{}") + "." + signature)
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		// Under our own header, and under our own signature over whatever
		// payload: the claims' decoder meets it too.
		_, rest, _ := strings.Cut(token, ".")
		for _, variant := range []string{token, header + "." + rest} {
			_, err := forger.issuer.Verify(variant, forger.now)
			if (err == nil) != (variant == forger.token) {
				t.Errorf("%q: %v", variant, err)
			}
		}
		signed := forger.sign(t, header, encode(token))
		if _, err := forger.issuer.Verify(signed, forger.now); err == nil {
			c, ok := decodeClaims(token)
			if !ok || string(c.append(nil)) != token {
				t.Errorf("%q passes in another spelling", token)
			}
		} else if !errors.Is(err, keystore.ErrInvalid) && !errors.Is(err, keystore.ErrTokenExpired) {
			t.Errorf("%q: %v", token, err)
		}
	})
}
