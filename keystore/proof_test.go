package keystore

import (
	"context"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// present authenticates what an Authorization header carries.
func (n *node) present(header string, now time.Time) (Principal, error) {
	p, err := ParseAuthorization(DefaultPrefix, header)
	if err != nil {
		return Principal{}, err
	}
	return n.auth.Authenticate(context.Background(), p, now)
}

func tokenHeader(access AccessKey, secret Secret) string {
	return "Token " + FormatAPIKey(DefaultPrefix, access, secret).Reveal()
}

func basicHeader(access AccessKey, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(string(access)+":"+secret))
}

// provedKey returns a record in the view whose API key has been proved.
func (n *node) provedKey(t *testing.T) (Record, Secret) {
	t.Helper()
	rec, secret := n.storedKey(t, "")
	if _, err := n.authenticate(&rec, secret, time.Now()); err != nil {
		t.Fatalf("proving a key: %v", err)
	}
	return rec, secret
}

// edit stores rec as change leaves it, and has it applied.
func (n *node) edit(t *testing.T, rec *Record, change func(*Record)) {
	t.Helper()
	change(rec)
	n.store.put(t, rec)
	n.catchUp(t)
}

// TestFingerprint: CBC-MAC of the whole credential, under a key of its own for
// each process.
func TestFingerprint(t *testing.T) {
	c := newCredentials()
	access, secret := c.NewAccessKey(), c.NewSecretKey()
	apiKey := FormatAPIKey(DefaultPrefix, access, secret).Reveal()
	credential, pair := Presented{Secret: secret.Reveal(), apiKey: apiKey}, Presented{Secret: secret.Reveal()}
	text := make([]byte, 64)
	copy(text, secret.Reveal()+apiKey[len(apiKey)-6:]+DefaultPrefix)
	cipher.NewCBCEncrypter(c.fingerprints.cipher, make([]byte, 16)).CryptBlocks(text, text)
	want := fingerprint{binary.NativeEndian.Uint64(text[48:]), binary.NativeEndian.Uint64(text[56:])}
	alone := c.fingerprints.of(&pair)
	for range 3 { // whatever was fingerprinted before
		if got := c.fingerprints.of(&credential); got != want {
			t.Errorf("an API key has fingerprint %x, want %x", got, want)
		}
		if got := c.fingerprints.of(&pair); got != alone || got == want {
			t.Errorf("a pair has fingerprint %x, want %x", got, alone)
		}
	}
	if newCredentials().fingerprints.of(&credential) == want {
		t.Error("two processes make one fingerprint")
	}
	if m := c.fingerprints.messages.Get().(*message); *m != (message{}) {
		t.Error("a secret stays in memory")
	}
}

// TestPrefixesOfAnyLength: each is proved, and each but the longest remembered.
func TestPrefixesOfAnyLength(t *testing.T) {
	n := newNode(t, 16, 0)
	seen := map[fingerprint]string{}
	for length := 1; length <= maxPrefixLength; length++ {
		rec, secret := n.storedKey(t, "")
		prefix := "Acme567890123456"[:length]
		p, err := ParseAuthorization(prefix, "Token "+FormatAPIKey(prefix, rec.Current.AccessKey, secret).Reveal())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := n.auth.Authenticate(context.Background(), p, time.Now()); err != nil {
				t.Errorf("%s: %v", prefix, err)
			}
		}
		f := n.credentials.fingerprints.of(&p)
		if (f == fingerprint{}) != (length == maxPrefixLength) || seen[f] != "" {
			t.Errorf("%s has fingerprint %x as %q has", prefix, f, seen[f])
		}
		seen[f] = prefix
	}
}

func TestProofsDifferInAnyBit(t *testing.T) {
	var p proof
	p.keep(fingerprint{1, 2})
	if !p.of(fingerprint{1, 2}) {
		t.Error("a proof is not of what was kept")
	}
	for bit := range 64 {
		if p.of(fingerprint{1 ^ 1<<bit, 2}) || p.of(fingerprint{1, 2 ^ 1<<bit}) {
			t.Errorf("bit %d is not compared", bit)
		}
	}
}

// TestProofIsRemembered: what was proved once is not digested again. The
// test spoils the digest in the view to see it.
func TestProofIsRemembered(t *testing.T) {
	n := newNode(t, 16, 0)
	for name, header := range map[string]func(AccessKey, Secret) string{
		"API key": tokenHeader,
		"pair":    func(access AccessKey, secret Secret) string { return basicHeader(access, secret.Reveal()) },
	} {
		rec, secret := n.storedKey(t, "")
		credential := header(rec.Current.AccessKey, secret)
		if _, err := n.present(credential, time.Now()); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		n.warm(t, LookupID(rec.Current.AccessKey)).Current.Digest[0] ^= 1
		if p, err := n.present(credential, time.Now()); err != nil || p.Record.ID != rec.ID || p.Generation != 1 || p.Kind != CredentialKey {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// TestProofIsOfOneCredential: beside one that is proved, and for which the
// view therefore knows the answer, every other one is looked at in full.
func TestProofIsOfOneCredential(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.provedKey(t)
	other, otherSecret := n.provedKey(t)
	apiKey := FormatAPIKey(DefaultPrefix, rec.Current.AccessKey, secret).Reveal()
	changed := func(place int, to string) string { return apiKey[:place] + to + apiKey[place+len(to):] }
	prefixed := FormatAPIKey("abc", rec.Current.AccessKey, secret).Reveal()
	for name, c := range map[string]struct {
		header string
		want   error
	}{
		"wrong checksum":            {"Token " + changed(len(apiKey)-1, string('0'+('1'-apiKey[len(apiKey)-1])&1)), ErrInvalid},
		"checksum not base62":       {"Token " + changed(len(apiKey)-6, "-"), ErrInvalid},
		"checksum of zeros":         {"Token " + changed(len(apiKey)-6, "\x00\x00\x00\x00\x00\x00"), ErrMalformed},
		"secret not base62":         {"Token " + changed(40, "-"), ErrInvalid},
		"secret with a comma":       {"Token " + changed(40, ","), ErrMalformed},
		"access key not base62":     {"Token " + changed(10, "-"), ErrInvalid},
		"checksum of a prefix":      {"Token wdr" + prefixed[3:], ErrInvalid},
		"another key's secret":      {tokenHeader(rec.Current.AccessKey, otherSecret), ErrInvalid},
		"another key's access key":  {tokenHeader(other.Current.AccessKey, secret), ErrInvalid},
		"a secret that never was":   {tokenHeader(rec.Current.AccessKey, n.credentials.NewSecretKey()), ErrInvalid},
		"the pair":                  {basicHeader(rec.Current.AccessKey, secret.Reveal()), nil},
		"the pair with a wrong end": {basicHeader(rec.Current.AccessKey, secret.Reveal()[:42]+"-"), ErrInvalid},
		"itself":                    {"Bearer " + apiKey, nil},
	} {
		for range 2 { // the first may be what is remembered at the second
			if _, err := n.present(c.header, time.Now()); err != c.want {
				t.Errorf("%s: %v, want %v", name, err, c.want)
			}
		}
	}
}

// TestProofOfAPairIsNoProofOfAnAPIKey: nor of anything longer that begins
// alike. The token endpoint reads pairs of any length.
func TestProofOfAPairIsNoProofOfAnAPIKey(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.storedKey(t, "")
	if _, err := n.present(basicHeader(rec.Current.AccessKey, secret.Reveal()), time.Now()); err != nil {
		t.Fatal(err)
	}
	zeros := FormatAPIKey(DefaultPrefix, rec.Current.AccessKey, secret).Reveal()
	zeros = zeros[:len(zeros)-checksumLength] + strings.Repeat("\x00", checksumLength)
	if _, err := n.present("Token "+zeros, time.Now()); err != ErrMalformed {
		t.Errorf("a checksum of zeros: %v", err)
	}
	for _, tail := range []string{"x", "\x00", strings.Repeat("\x00", 37), strings.Repeat("x", 100)} {
		p := Presented{Kind: CredentialKey, Access: rec.Current.AccessKey, Secret: secret.Reveal() + tail}
		if _, err := n.auth.Authenticate(context.Background(), p, time.Now()); err != ErrInvalid {
			t.Errorf("a secret and %q: %v", tail, err)
		}
	}
}

// TestProofIsOfOnePrefix: under another prefix the same checksum is wrong.
func TestProofIsOfOnePrefix(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.provedKey(t)
	apiKey := FormatAPIKey(DefaultPrefix, rec.Current.AccessKey, secret).Reveal()
	p, err := ParseAuthorization("abc", "Token abc"+apiKey[len(DefaultPrefix):])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.auth.Authenticate(context.Background(), p, time.Now()); err != ErrInvalid {
		t.Errorf("with the checksum of another prefix: %v", err)
	}
}

// TestNothingProvesNothing: where no proof is kept, a credential without a
// fingerprint is not taken for it.
func TestNothingProvesNothing(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.storedKey(t, "")
	n.see(t, LookupID(rec.Current.AccessKey))
	for _, secret := range []string{"", "x", strings.Repeat("x", 44)} {
		p := Presented{Kind: CredentialKey, Access: rec.Current.AccessKey, Secret: secret}
		if _, err := n.auth.Authenticate(context.Background(), p, time.Now()); err != ErrInvalid {
			t.Errorf("%q: %v", secret, err)
		}
	}
}

// TestProofDiesWithItsRecord: after each change the proved credential is what
// the record now says of it, in the view and read anew.
func TestProofDiesWithItsRecord(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		change     func(*Record)
		generation Generation
		want       error
	}{
		"rotated within grace":   {func(r *Record) { r.Rotate(Digest{1}, time.Hour, now) }, 1, nil},
		"rotated with force":     {func(r *Record) { r.Rotate(Digest{1}, 0, now) }, 1, ErrSuperseded},
		"rotated twice":          {func(r *Record) { r.Rotate(Digest{1}, 0, now); r.Rotate(Digest{2}, 0, now) }, 0, ErrInvalid},
		"regenerated":            {func(r *Record) { r.Regenerate("another", Digest{1}, 0) }, 1, ErrSuperseded},
		"blocked":                {func(r *Record) { r.SetBlocked(true) }, 1, ErrBlocked},
		"deactivated":            {func(r *Record) { r.SetDeactivated(true) }, 1, ErrDeactivated},
		"expired":                {func(r *Record) { r.Expire(now) }, 1, ErrExpired},
		"its digest is another":  {func(r *Record) { r.Current.Digest[0] ^= 1 }, 0, ErrInvalid},
		"renamed, nothing of it": {func(r *Record) { r.Name = "renamed" }, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, 16, 0)
			rec, secret := n.provedKey(t)
			credential := tokenHeader(rec.Current.AccessKey, secret)
			n.edit(t, &rec, c.change)
			for _, state := range []string{"first", "again"} {
				if p, err := n.present(credential, now); err != c.want || p.Generation != c.generation {
					t.Errorf("%s: generation %d, %v; want %d, %v", state, p.Generation, err, c.generation, c.want)
				}
			}
		})
	}
	t.Run("deleted", func(t *testing.T) {
		n := newNode(t, 16, 0)
		rec, secret := n.provedKey(t)
		n.store.remove(t, rec.ID)
		n.catchUp(t)
		if p, err := n.authenticate(&rec, secret, now); err != ErrInvalid || p.Record != nil {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestProofDecidesNothing: the clock and the lease do, on every request.
func TestProofDecidesNothing(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.provedKey(t)
	now := time.Now()
	n.edit(t, &rec, func(r *Record) { r.Expires = InstantOf(now.Add(time.Hour)) })
	for after, want := range map[time.Duration]error{time.Minute: nil, time.Hour: ErrExpired, 2 * time.Hour: ErrExpired} {
		if _, err := n.authenticate(&rec, secret, now.Add(after)); err != want {
			t.Errorf("after %s: %v, want %v", after, err, want)
		}
	}
	n.lease.Suspend()
	gone, cancel := context.WithCancel(context.Background())
	cancel() // nobody waits for a round
	p, _ := ParseAuthorization(DefaultPrefix, tokenHeader(rec.Current.AccessKey, secret))
	if _, err := n.auth.Authenticate(gone, p, now); err != ErrStale {
		t.Errorf("without a lease: %v", err)
	}
}

// TestPreviousSecretIsNotRemembered: it would be taken for the current one,
// and outlive its grace period.
func TestPreviousSecretIsNotRemembered(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.provedKey(t)
	now := time.Now()
	n.edit(t, &rec, func(r *Record) { r.Rotate(Digest{1}, time.Hour, now) })
	for range 2 {
		if p, err := n.authenticate(&rec, secret, now); err != nil || p.Generation != 1 {
			t.Errorf("within grace: generation %d, %v", p.Generation, err)
		}
	}
	if _, err := n.authenticate(&rec, secret, now.Add(time.Hour)); err != ErrSuperseded {
		t.Errorf("after the grace period: %v", err)
	}
}

// TestProofIsOfThePair: an old access key still leads to the record, and does
// not go with the new secret.
func TestProofIsOfThePair(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, _ := n.provedKey(t)
	old, access, secret := rec.Current.AccessKey, n.credentials.NewAccessKey(), n.credentials.NewSecretKey()
	n.edit(t, &rec, func(r *Record) { r.Regenerate(access, n.credentials.Digest(secret.Reveal()), 0) })
	for range 2 {
		if _, err := n.present(basicHeader(access, secret.Reveal()), time.Now()); err != nil {
			t.Errorf("the new pair: %v", err)
		}
		for _, header := range []string{tokenHeader(old, secret), basicHeader(old, secret.Reveal())} {
			if _, err := n.present(header, time.Now()); err != ErrInvalid {
				t.Errorf("%.5s, the new secret with the old access key: %v", header, err)
			}
		}
	}
}

// TestLateProofIsNotKept: a secret was proved, and before that is remembered
// the record changes, even without a new generation.
func TestLateProofIsNotKept(t *testing.T) {
	n := newNode(t, 16, 0)
	rec, secret := n.storedKey(t, "")
	n.see(t, LookupID(rec.Current.AccessKey))
	seen, _ := n.view.cached(LookupID(rec.Current.AccessKey), time.Now())
	credential := tokenHeader(rec.Current.AccessKey, secret)
	p, _ := ParseAuthorization(DefaultPrefix, credential)
	n.edit(t, &rec, func(r *Record) { r.Current.Digest[0] ^= 1 })
	n.auth.remember(n.credentials.fingerprints.of(&p), seen, 1)
	if _, err := n.present(credential, time.Now()); err != ErrInvalid {
		t.Errorf("a proof made of an older record: %v", err)
	}
}

// TestNoProofOutlivesItsRecord: while a secret is replaced again and again,
// and each is presented as fast as can be, none passes once its successor has
// been applied.
func TestNoProofOutlivesItsRecord(t *testing.T) {
	const readers, cycles = 8, 2000
	n := newNode(t, 16, 0)
	rec, secret := n.storedKey(t, "")
	credentials := make([]atomic.Pointer[string], cycles+1)
	publish := func(cycle int, secret Secret) {
		header := tokenHeader(rec.Current.AccessKey, secret)
		credentials[cycle].Store(&header)
	}
	publish(0, secret)
	var applied, passed, alive atomic.Int64
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			for {
				cycle := applied.Load()
				if cycle > 0 {
					if _, err := n.present(*credentials[cycle-1].Load(), time.Now()); err == nil {
						passed.Add(1)
					}
				}
				_, err := n.present(*credentials[cycle].Load(), time.Now())
				switch {
				case err == nil:
					alive.Add(1)
				case !errors.Is(err, ErrSuperseded) && !errors.Is(err, ErrInvalid): // it was replaced meanwhile
					t.Errorf("the newest secret: %v", err)
					return
				}
				if cycle == cycles {
					return
				}
			}
		})
	}
	for cycle := 1; cycle <= cycles; cycle++ {
		next := n.credentials.NewSecretKey()
		publish(cycle, next)
		n.edit(t, &rec, func(r *Record) { r.Rotate(n.credentials.Digest(next.Reveal()), 0, time.Now()) })
		applied.Store(int64(cycle))
	}
	group.Wait()
	if passed.Load() != 0 || alive.Load() == 0 {
		t.Errorf("%d superseded secrets passed, %d live ones", passed.Load(), alive.Load())
	}
}
