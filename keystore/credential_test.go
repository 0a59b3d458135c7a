package keystore

import (
	"bytes"
	"encoding/base64"
	"math/big"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

func newCredentials() *Credentials { return NewCredentials(NewStoreSecret()) }

func TestAPIKeyFormat(t *testing.T) {
	c := newCredentials()
	for prefix, shape := range map[string]*regexp.Regexp{
		"wdr":              regexp.MustCompile(`^wdr_[0-9A-Za-z]{22}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}$`),
		"x":                regexp.MustCompile(`^x_[0-9A-Za-z]{22}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}$`),
		"Acme567890123456": regexp.MustCompile(`^Acme567890123456_[0-9A-Za-z]{22}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}$`),
	} {
		for range 200 {
			access, secret := c.NewAccessKey(), c.NewSecretKey()
			key := FormatAPIKey(prefix, access, secret).Reveal()
			if !shape.MatchString(key) {
				t.Fatalf("%s does not look like %s", key, shape)
			}
			body, sum := key[:len(key)-6], key[len(key)-6:]
			if want := checksumByHand(body); sum != want {
				t.Fatalf("checksum of %s is %s, want %s", body, sum, want)
			}
			if a, s, ok := parseAPIKey(prefix, key); !ok || a != access || s != secret.Reveal() {
				t.Fatalf("parsing %s gives %q, %q, %t", key, a, s, ok)
			}
		}
	}
}

// parseAPIKey is all that is asked of an API key before anything is known of
// its owner.
func parseAPIKey(prefix, s string) (access AccessKey, secret string, ok bool) {
	access, secret, ok = splitAPIKey(prefix, s)
	return access, secret, ok && spelled(s, access, secret)
}

// checksumByHand is what a secret scanner would do: CRC-32 (IEEE) bit by bit,
// in six digits to the base of 62.
func checksumByHand(body string) string {
	crc := ^uint32(0)
	for _, b := range []byte(body) {
		crc ^= uint32(b)
		for range 8 {
			crc = crc>>1 ^ 0xEDB88320&-(crc&1)
		}
	}
	digits := new(big.Int).SetUint64(uint64(^crc)).Text(62)
	return strings.Repeat("0", 6-len(digits)) + digits
}

func TestChecksumOfAKnownText(t *testing.T) {
	// The check value of CRC-32/ISO-HDLC.
	if checksum("123456789") != 0xCBF43926 || checksumByHand("123456789") != base62(0xCBF43926, 6) {
		t.Error("this is not CRC-32 (IEEE)")
	}
}

func TestParseAPIKeyRefuses(t *testing.T) {
	c := newCredentials()
	key := FormatAPIKey("wdr", c.NewAccessKey(), c.NewSecretKey()).Reveal()
	resum := func(body string) string { return body + checksumByHand(body) }
	body := key[:len(key)-6]
	for name, bad := range map[string]string{
		"nothing":             "",
		"a digit less":        key[:len(key)-1],
		"a digit more":        key + "0",
		"another prefix":      resum("wdx" + body[3:]),
		"upper-case prefix":   resum("WDR" + body[3:]),
		"no first underscore": resum(strings.Replace(body, "_", "0", 1)),
		"no underscore":       resum(body[:26] + "0" + body[27:]),
		"access key not 62":   resum(body[:10] + "-" + body[11:]),
		"secret not 62":       resum(body[:40] + "/" + body[41:]),
		"a control character": resum(body[:40] + "\n" + body[41:]),
		"not ASCII":           resum(body[:40] + "ä" + body[42:]),
		"overflowing sum":     body + "ZZZZZZ",
	} {
		if _, _, ok := parseAPIKey("wdr", bad); ok {
			t.Errorf("%s: %q is accepted", name, bad)
		}
	}
	for i := range len(key) {
		for _, other := range []byte("0aZ_-") {
			if changed := key[:i] + string(other) + key[i+1:]; other != key[i] {
				if _, _, ok := parseAPIKey("wdr", changed); ok {
					t.Errorf("%q with %q at %d is accepted", key, other, i)
				}
			}
		}
	}
}

func TestValidPrefix(t *testing.T) {
	for prefix, want := range map[string]bool{
		"wdr": true, "W": true, "0123456789abcdef": true, "0123456789abcdefg": false, "": false, "a_b": false, "a-b": false, "ä": false, "a b": false,
	} {
		if ValidPrefix(prefix) != want {
			t.Errorf("ValidPrefix(%q) = %t", prefix, !want)
		}
	}
}

func TestGenuine(t *testing.T) {
	c, other := newCredentials(), newCredentials()
	seen := map[AccessKey]bool{}
	for range 1000 {
		access := c.NewAccessKey()
		if !c.Genuine(access) {
			t.Fatalf("%s is not genuine to its maker", access)
		}
		if other.Genuine(access) {
			t.Fatalf("%s is genuine to another store", access)
		}
		seen[access] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d different access keys of 1000", len(seen))
	}
}

func TestMadeUpAccessKeysAreRefused(t *testing.T) {
	c := newCredentials()
	digits := []byte(base62Digits)
	for range 100_000 {
		made := make([]byte, accessKeyLength)
		for i := range made {
			made[i] = digits[rand.IntN(len(digits))]
		}
		made[0] = '0' // so that the number always fits into 128 bits
		if c.Genuine(AccessKey(made)) {
			t.Fatalf("made-up %s is genuine", made)
		}
	}
}

func TestAccessKeyBitFlips(t *testing.T) {
	c := newCredentials()
	access := c.NewAccessKey()
	n, _ := new(big.Int).SetString(string(access), 62)
	for bit := range 128 {
		flipped := new(big.Int).SetBit(n, bit, 1-n.Bit(bit)).Text(62)
		flipped = strings.Repeat("0", accessKeyLength-len(flipped)) + flipped
		if c.Genuine(AccessKey(flipped)) {
			t.Errorf("%s is genuine with bit %d flipped", flipped, bit)
		}
	}
}

// TestAccessKeyHasOneSpelling: a number of more than 128 bits must not be cut
// down to a genuine one.
func TestAccessKeyHasOneSpelling(t *testing.T) {
	c := newCredentials()
	modulus := new(big.Int).Lsh(big.NewInt(1), 128)
	spelled := 0
	for range 100 {
		access := c.NewAccessKey()
		n, _ := new(big.Int).SetString(string(access), 62)
		if text := n.Add(n, modulus).Text(62); len(text) == accessKeyLength {
			spelled++
			if c.Genuine(AccessKey(text)) {
				t.Fatalf("%s is genuine as %s, too", access, text)
			}
		}
	}
	if spelled == 0 {
		t.Error("no overflowing spelling was tried")
	}
	for _, bad := range []AccessKey{"", "0", "ZZZZZZZZZZZZZZZZZZZZZZ", AccessKey(strings.Repeat("+", 22)), "-000000000000000000001", AccessKey("0" + string(c.NewAccessKey()))} {
		if c.Genuine(bad) {
			t.Errorf("%q is genuine", bad)
		}
	}
}

func TestDigest(t *testing.T) {
	c, other := newCredentials(), newCredentials()
	secret := c.NewSecretKey().Reveal()
	d := c.Digest(secret)
	if d == (Digest{}) || d != c.Digest(secret) {
		t.Error("a secret has no stable digest")
	}
	if d == other.Digest(secret) {
		t.Error("two stores digest alike: the pepper is not used")
	}
	if d == c.Digest(c.NewSecretKey().Reveal()) {
		t.Error("two secrets have one digest")
	}
	for _, odd := range []string{"", secret[1:], secret + "0"} {
		if c.Digest(odd) != (Digest{}) {
			t.Errorf("%d bytes have a digest", len(odd))
		}
	}
}

func TestParseAuthorization(t *testing.T) {
	c := newCredentials()
	access, secret := c.NewAccessKey(), c.NewSecretKey()
	apiKey := FormatAPIKey("wdr", access, secret).Reveal()
	pair := string(access) + ":" + secret.Reveal()
	basic := base64.StdEncoding.EncodeToString([]byte(pair))
	const jwt = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJrZXlfYSJ9.c2lnbmF0dXJl"
	key := Presented{Kind: CredentialKey, Access: access, Secret: secret.Reveal(), apiKey: apiKey}
	ofPair := Presented{Kind: CredentialKey, Access: access, Secret: secret.Reveal()}
	token := Presented{Kind: CredentialAccessToken, Token: jwt}

	for name, c := range map[string]struct {
		value string
		want  Presented
		err   error
	}{
		"Token":                  {"Token " + apiKey, key, nil},
		"token in any case":      {"tOKEN " + apiKey, key, nil},
		"Bearer with an API key": {"Bearer " + apiKey, key, nil},
		"Bearer with a token":    {"Bearer " + jwt, token, nil},
		"bearer in any case":     {"BEARER " + jwt, token, nil},
		"Basic":                  {"Basic " + basic, ofPair, nil},
		"basic in any case":      {"bAsIc " + basic, ofPair, nil},

		"nothing":                    {"", Presented{}, ErrNoCredential},
		"another scheme":             {"Digest username=x", Presented{}, ErrNoCredential},
		"another scheme alone":       {"Negotiate", Presented{}, ErrNoCredential},
		"a bare API key":             {apiKey, Presented{}, ErrNoCredential},
		"a scheme that begins alike": {"Bearerx " + apiKey, Presented{}, ErrNoCredential},
		"a scheme that folds alike":  {"To\u212Aen " + apiKey, Presented{}, ErrMalformed},

		"Token with a token":     {"Token " + jwt, Presented{}, ErrInvalid},
		"no dots":                {"Bearer abc", Presented{Kind: CredentialImported, Token: "abc"}, nil},
		"one dot":                {"Bearer a.b", Presented{Kind: CredentialImported, Token: "a.b"}, nil},
		"three dots":             {"Bearer a.b.c.d", Presented{Kind: CredentialImported, Token: "a.b.c.d"}, nil},
		"four dots":              {"Bearer a.b.c.d.e", Presented{Kind: CredentialImported, Token: "a.b.c.d.e"}, nil},
		"native but no token":    {"Bearer wdr_a.b.c", Presented{}, ErrInvalid},
		"another prefix":         {"Token x" + apiKey[1:], Presented{Kind: CredentialImported, Token: "x" + apiKey[1:]}, nil},
		"bad checksum":           {"Token " + apiKey[:len(apiKey)-6] + "000000", Presented{}, ErrInvalid},
		"exactly too long":       {"Bearer a.b." + strings.Repeat("c", MaximumCredential), Presented{}, ErrInvalid},
		"a byte too long":        {"Bearer a.b." + strings.Repeat("c", MaximumCredential-10), Presented{}, ErrInvalid},
		"as long as may be":      {"Bearer a.b." + strings.Repeat("c", MaximumCredential-11), Presented{Kind: CredentialAccessToken, Token: "a.b." + strings.Repeat("c", MaximumCredential-11)}, nil},
		"a megabyte of nonsense": {"Basic " + strings.Repeat("=", 1<<20), Presented{}, ErrInvalid},

		"a scheme without a credential": {"Bearer", Presented{}, ErrMalformed},
		"a scheme and a space":          {"Bearer ", Presented{}, ErrMalformed},
		"two spaces":                    {"Token  " + apiKey, Presented{}, ErrMalformed},
		"a tab":                         {"Token\t" + apiKey, Presented{}, ErrMalformed},
		"a scheme with a comma":         {"Digest,Bearer " + jwt, Presented{}, ErrMalformed},
		"a space before":                {" Token " + apiKey, Presented{}, ErrMalformed},
		"a space after":                 {"Token " + apiKey + " ", Presented{}, ErrMalformed},
		"a parameter after":             {"Token " + apiKey + " x", Presented{}, ErrMalformed},
		"joined":                        {"Token " + apiKey + ", Token " + apiKey, Presented{}, ErrMalformed},
		"joined without a space":        {"Token " + apiKey + ",Bearer", Presented{}, ErrMalformed},
		"Bearer joined":                 {"Bearer " + jwt + "," + jwt, Presented{}, ErrMalformed},
		"Basic joined":                  {"Basic " + basic + ",x", Presented{}, ErrMalformed},
		"a trailing comma":              {"Token " + apiKey + ",", Presented{}, ErrMalformed},
		"NUL":                           {"Token " + apiKey + "\x00", Presented{}, ErrMalformed},
		"NUL inside":                    {"Bearer a.\x00.c", Presented{}, ErrMalformed},
		"folding":                       {"Token\r\n " + apiKey, Presented{}, ErrMalformed},
		"folding inside":                {"Bearer a.b\r\n .c", Presented{}, ErrMalformed},
		"not ASCII":                     {"Bearer a.b.ä", Presented{}, ErrMalformed},
		"DEL":                           {"Bearer a.b.c\x7f", Presented{}, ErrMalformed},
		"a no-break space":              {"Token\u00a0" + apiKey, Presented{}, ErrMalformed},

		"Basic in two spaces":     {"Basic  " + basic, Presented{}, ErrMalformed},
		"Basic with padding":      {"Basic " + basic + "=", Presented{}, ErrInvalid},
		"Basic of a shorter pair": {"Basic " + base64.StdEncoding.EncodeToString([]byte(pair[:65])), Presented{}, ErrInvalid},
		"Basic with a long user":  {"Basic " + base64.StdEncoding.EncodeToString([]byte("0"+pair)), Presented{}, ErrInvalid},
		"Basic URL alphabet":      {"Basic " + base64.URLEncoding.EncodeToString([]byte(pair[:63]+"???")), Presented{}, ErrInvalid},
		"Basic without a colon":   {"Basic " + base64.StdEncoding.EncodeToString([]byte(strings.Replace(pair, ":", "0", 1))), Presented{}, ErrInvalid},
		"Basic, colon elsewhere":  {"Basic " + base64.StdEncoding.EncodeToString([]byte(secret.Reveal()+":"+string(access))), Presented{}, ErrInvalid},
		"Basic, two colons":       {"Basic " + base64.StdEncoding.EncodeToString([]byte(pair[:40]+":"+pair[41:])), Presented{}, ErrInvalid},
		"Basic, folded":           {"Basic " + basic[:40] + "\n" + basic[40:], Presented{}, ErrMalformed},
		"Basic, lenient newline":  {"Basic " + basic[:86] + "\r\n", Presented{}, ErrMalformed},
		"Basic, lenient tail":     {"Basic " + lenientTail(pair), Presented{}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readAuthorization(c.value)
			if got != c.want || err != c.err {
				t.Errorf("ParseAuthorization(%q) = %#v, %v; want %#v, %v", c.value[:min(90, len(c.value))], got, err, c.want, c.err)
			}
		})
	}
}

// lenientTail spells 65 bytes in the length of 66: one padding character,
// with bits set that a lenient decoder drops.
func lenientTail(pair string) string {
	text := []byte(base64.StdEncoding.EncodeToString([]byte(pair[:65])))
	text[len(text)-2]++
	return string(text)
}

// TestEveryCharacterIsSeen puts each byte at each place of a text: a scan by
// eight must not miss one, nor take it for its neighbour.
func TestEveryCharacterIsSeen(t *testing.T) {
	for size := 1; size <= 20; size++ {
		seenAtEachPlace(t, []byte("abcdefghijklmnopqrst")[:size])
	}
	if isOneCredential("") {
		t.Error("nothing is one credential")
	}
}

func seenAtEachPlace(t *testing.T, base []byte) {
	t.Helper()
	for place := range base {
		for b := range 256 {
			text := bytes.Clone(base)
			text[place] = byte(b)
			if got, want := isVisible(string(text)), b > ' ' && b <= '~'; got != want {
				t.Errorf("byte %#x at %d: visible = %t", b, place, got)
			}
			if got, want := isBase62(string(text)), strings.IndexByte(base62Digits, byte(b)) >= 0; got != want {
				t.Errorf("byte %#x at %d: base62 = %t", b, place, got)
			}
			if got, want := isOneCredential(string(text)), b > ' ' && b <= '~' && b != ','; got != want {
				t.Errorf("byte %#x at %d: one credential = %t", b, place, got)
			}
		}
	}
}

func TestParseCredential(t *testing.T) {
	c := newCredentials()
	access, secret := c.NewAccessKey(), c.NewSecretKey()
	apiKey := FormatAPIKey("wdr", access, secret).Reveal()
	for value, want := range map[string]struct {
		kind CredentialKind
		err  error
	}{
		apiKey:                {CredentialKey, nil},
		"a.b.c":               {CredentialAccessToken, nil},
		"":                    {CredentialNone, ErrNoCredential},
		"Token " + apiKey:     {CredentialNone, ErrMalformed},
		apiKey + "," + apiKey: {CredentialNone, ErrMalformed},
		apiKey + " ":          {CredentialNone, ErrMalformed},
		apiKey[1:]:            {CredentialImported, nil},
		"a.b." + strings.Repeat("c", MaximumCredential): {CredentialNone, ErrInvalid},
	} {
		if got, err := ParseCredential("wdr", value); got.Kind != want.kind || err != want.err {
			t.Errorf("ParseCredential(%.80q) = %v, %v", value, got.Kind, err)
		}
	}
}
