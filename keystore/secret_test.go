package keystore

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// TestSecretsCannotPrint hands everything that holds a secret to everything
// that prints.
func TestSecretsCannotPrint(t *testing.T) {
	const text = "hunter2hunter2"
	master, store := MasterKey{}, NewStoreSecret()
	copy(master.key[:], text)
	copy(store.root()[:], text)
	apiKey := Secret("wdr_" + text)
	for name, value := range map[string]any{
		"Secret":        Secret(text),
		"*Secret":       ref(Secret(text)),
		"MasterKey":     master,
		"*MasterKey":    &master,
		"StoreSecret":   store,
		"*StoreSecret":  &store,
		"Presented":     Presented{Kind: CredentialKey, Access: "a", Secret: text, Token: text},
		"*Presented":    &Presented{Kind: CredentialAccessToken, Secret: text, Token: text},
		"Issued":        Issued{APIKey: apiKey, SecretKey: Secret(text)},
		"*Issued":       &Issued{APIKey: apiKey, SecretKey: Secret(text)},
		"Once":          Once{Key: Secret(text)},
		"*Once":         &Once{Key: Secret(text)},
		"in a slice":    []Secret{Secret(text)},
		"in a map":      map[string]Presented{"key": {Secret: text}},
		"in a struct":   struct{ Key MasterKey }{master},
		"unexported":    struct{ store StoreSecret }{store},
		"in an any":     []any{Secret(text), Presented{Token: text}},
		"*Replays":      NewReplays(store),
		"Replays":       struct{ R *Replays }{NewReplays(store)},
		"*Credentials":  NewCredentials(store),
		"an error":      fmt.Errorf("reading %v: %w", Secret(text), errFault),
		"another error": errors.Join(fmt.Errorf("%x and %#v", Secret(text), Presented{Token: text}), errFault),
	} {
		for how, out := range printed(t, value) {
			for _, leak := range leaks(text) {
				if strings.Contains(out, leak) {
					t.Errorf("%s with %s prints its secret: %.200s", name, how, out)
				}
			}
		}
	}
}

func ref[T any](v T) *T { return &v }

// leaks are the ways to write text by mistake.
func leaks(text string) []string {
	b := []byte(text)
	return []string{
		text, fmt.Sprintf("%x", b), fmt.Sprintf("%X", b), strings.Trim(fmt.Sprint(b), "[]"), fmt.Sprintf("% x", b),
		base64.RawStdEncoding.EncodeToString(b)[:16], strings.ReplaceAll(strings.Trim(fmt.Sprint(b), "[]"), " ", ","),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", b), "[]byte{"), "}"),
	}
}

func printed(t *testing.T, value any) map[string]string {
	t.Helper()
	out := map[string]string{"fmt.Sprint": fmt.Sprint(value), "fmt.Errorf": fmt.Errorf("doing: %v", value).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%c", "%U", "%t", "%e", "%20s", "%z"} {
		out[verb] = fmt.Sprintf(verb, value)
	}
	if encoded, err := json.Marshal(value); err == nil {
		out["json"] = string(encoded)
	}
	var text, slogged, zapped bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "v", value)
	slog.New(slog.NewJSONHandler(&slogged, nil)).Info("m", "v", value)
	log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&zapped), zap.DebugLevel))
	log.Info("m", zap.Any("any", value), zap.Reflect("reflect", value))
	log.Sugar().Infow("m", "v", value)
	out["slog text"], out["slog json"], out["zap"] = text.String(), slogged.String(), zapped.String()
	return out
}

func TestSecretsRevealOnPurpose(t *testing.T) {
	if Secret("x").Reveal() != "x" {
		t.Error("a secret cannot be revealed")
	}
	k := NewMasterKey()
	if again, err := ParseMasterKey(k.Text()); err != nil || again != k {
		t.Errorf("a master key does not survive its own text: %v", err)
	}
}

func TestParseMasterKey(t *testing.T) {
	good := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))
	for name, text := range map[string]string{
		"empty": "", "short": good[:40] + "==", "long": good[:40] + "AAAAAAAA", "white space": " " + good, "newline": good + "\n", "newline inside": good[:20] + "\n" + good[20:],
		"URL alphabet": strings.Repeat("-", 43) + "=", "no padding": good[:43], "lenient tail": good[:42] + "5=", "hex": strings.Repeat("ab", 32), "zeros": strings.Repeat("A", 43) + "=",
	} {
		if _, err := ParseMasterKey(Secret(text)); err == nil {
			t.Errorf("%s: %q is accepted", name, text)
		} else if text != "" && strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
	if _, err := ParseMasterKey(Secret(good)); err != nil {
		t.Errorf("a good key: %v", err)
	}
}

func TestSealing(t *testing.T) {
	k := NewMasterKey()
	sealed, err := k.Seal("row/1", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := k.Open("row/1", sealed); err != nil || string(plain) != "plain" {
		t.Errorf("Open = %q, %v", plain, err)
	}
	if again, _ := k.Seal("row/1", []byte("plain")); bytes.Equal(again, sealed) {
		t.Error("sealing twice gives the same bytes: the nonce is not fresh")
	}
	if _, err := k.Open("row/2", sealed); !errors.Is(err, ErrWrongMasterKey) {
		t.Errorf("a moved row: %v", err)
	}
	if _, err := NewMasterKey().Open("row/1", sealed); !errors.Is(err, ErrWrongMasterKey) {
		t.Errorf("another key: %v", err)
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if _, err := k.Open("row/1", damaged); err == nil {
			t.Errorf("opens with byte %d damaged", i)
		}
	}
	for n := range sealed {
		if _, err := k.Open("row/1", sealed[:n]); err == nil {
			t.Errorf("opens when cut to %d bytes", n)
		}
	}
	if _, err := (MasterKey{}).Seal("row/1", nil); err == nil {
		t.Error("the zero key seals")
	}
	if _, err := (MasterKey{}).Open("row/1", seal(make([]byte, 32), "row/1", nil)); err == nil {
		t.Error("the zero key opens")
	}
}

func TestDerive(t *testing.T) {
	s := NewStoreSecret()
	seen := map[string]string{}
	for _, purpose := range []string{purposePepper, purposeAccessKey, purposeIdempotency, purposeCheck} {
		key := string(s.Derive(purpose))
		if other, taken := seen[key]; taken || len(key) != 32 {
			t.Errorf("%q and %q give one key of %d bytes", purpose, other, len(key))
		}
		seen[key] = purpose
	}
	sealed := s.Seal("purpose", "row", []byte("plain"))
	if plain, err := s.Open("purpose", "row", sealed); err != nil || string(plain) != "plain" {
		t.Errorf("Open = %q, %v", plain, err)
	}
	if _, err := s.Open("other", "row", sealed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another purpose: %v", err)
	}
	if _, err := s.Open("purpose", "other", sealed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another row: %v", err)
	}
	if _, err := NewStoreSecret().Open("purpose", "row", sealed); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another store: %v", err)
	}
}

func TestOpenStoreSecret(t *testing.T) {
	k, secret := NewMasterKey(), NewStoreSecret()
	row, err := SealStoreSecret(k, secret)
	if err != nil {
		t.Fatal(err)
	}
	damaged, newer, short := row, row, row
	damaged.Sealed = bytes.Clone(row.Sealed)
	damaged.Sealed[20] ^= 1
	newer.Version++
	short.Sealed, _ = k.Seal(sealedSecretContext, secret.root()[:31])
	moved := row
	moved.Sealed, _ = k.Seal("signing_ring/1", secret.root()[:])
	for name, c := range map[string]struct {
		key  MasterKey
		row  SealedSecret
		want error
	}{
		"right":                  {k, row, nil},
		"another key":            {NewMasterKey(), row, ErrWrongMasterKey},
		"no key":                 {MasterKey{}, row, ErrWrongMasterKey},
		"a damaged row":          {k, damaged, ErrCorrupt},
		"a moved row":            {k, moved, ErrCorrupt},
		"a short row":            {k, short, ErrCorrupt},
		"an empty row":           {k, SealedSecret{Version: 1, Check: row.Check}, ErrCorrupt},
		"no check":               {k, SealedSecret{Version: 1, Sealed: row.Sealed}, ErrWrongMasterKey},
		"newer":                  {k, newer, ErrNewerSchema},
		"newer, and another key": {NewMasterKey(), newer, ErrNewerSchema},
		"the zero row":           {k, SealedSecret{}, ErrNewerSchema},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := OpenStoreSecret(c.key, c.row)
			if !errors.Is(err, c.want) || (c.want != ErrWrongMasterKey && errors.Is(err, ErrWrongMasterKey)) {
				t.Errorf("error = %v, want %v", err, c.want)
			}
			if (err == nil) != same(got, secret) || (err != nil && got.root != nil) {
				t.Error("the secret is not what was sealed")
			}
		})
	}
	if bytes.Contains(row.Check, k.key[:8]) {
		t.Error("the check value shows the master key")
	}
	if _, err := SealStoreSecret(MasterKey{}, secret); err == nil {
		t.Error("the zero key seals a store secret")
	}
}

func same(a, b StoreSecret) bool {
	return a.root != nil && b.root != nil && bytes.Equal(a.Derive("test"), b.Derive("test"))
}

// overtakenRow is one that another node seals before this one does.
type overtakenRow struct {
	fixedRow
	next SealedSecret
}

func (r *overtakenRow) ReplaceSealedSecret(context.Context, SealedSecret, SealedSecret) error {
	r.row = r.next
	return ErrStaleEdit
}

// fixedRow is a SecretRow.
type fixedRow struct {
	row      SealedSecret
	replaced int
	err      error
}

func (s *fixedRow) SealedSecret(context.Context) (SealedSecret, error) { return s.row, s.err }

func (s *fixedRow) ReplaceSealedSecret(_ context.Context, old, next SealedSecret) error {
	if !bytes.Equal(old.Sealed, s.row.Sealed) {
		return ErrStaleEdit
	}
	s.row = next
	s.replaced++
	return nil
}

func TestUnlock(t *testing.T) {
	ctx := context.Background()
	before, now, wrong := NewMasterKey(), NewMasterKey(), NewMasterKey()
	sealed, err := SealedGenesis(before)()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := OpenStoreSecret(before, sealed)
	if err != nil {
		t.Fatal(err)
	}
	damaged := sealed
	damaged.Sealed = append(bytes.Clone(sealed.Sealed), 0)
	for name, c := range map[string]struct {
		row              SealedSecret
		master, previous MasterKey
		want             error
		replaced         int
	}{
		"the right key":                     {sealed, before, MasterKey{}, nil, 0},
		"the right key needs no previous":   {sealed, before, wrong, nil, 0},
		"a new key and the previous":        {sealed, now, before, nil, 1},
		"a new key alone":                   {sealed, now, MasterKey{}, ErrWrongMasterKey, 0},
		"neither":                           {sealed, now, wrong, ErrWrongMasterKey, 0},
		"damaged":                           {damaged, before, MasterKey{}, ErrCorrupt, 0},
		"damaged, opened with the previous": {damaged, now, before, ErrCorrupt, 0},
	} {
		t.Run(name, func(t *testing.T) {
			row := &fixedRow{row: c.row}
			got, err := Unlock(ctx, row, c.master, c.previous)
			if !errors.Is(err, c.want) || row.replaced != c.replaced || (err == nil && !same(got, secret)) {
				t.Fatalf("Unlock = %v after %d replacements", err, row.replaced)
			}
			if err == nil {
				if again, err := Unlock(ctx, row, c.master, MasterKey{}); err != nil || !same(again, secret) {
					t.Errorf("opening again with the master key alone: %v", err)
				}
			}
		})
	}
	for name, c := range map[string]struct {
		sealedBy MasterKey // another node, between reading and sealing
		want     error
	}{"under the same key": {now, nil}, "under a third key": {wrong, ErrWrongMasterKey}} {
		row := &overtakenRow{fixedRow: fixedRow{row: sealed}}
		if row.next, err = SealStoreSecret(c.sealedBy, secret); err != nil {
			t.Fatal(err)
		}
		if got, err := Unlock(ctx, row, now, before); !errors.Is(err, c.want) || (err == nil && !same(got, secret)) {
			t.Errorf("another node seals %s: %v", name, err)
		}
	}
	if _, err := Unlock(ctx, &fixedRow{err: errFault}, before, now); !errors.Is(err, errFault) {
		t.Errorf("a store that fails: %v", err)
	}
}

// While the master key of several nodes is changed, both open the store, and
// only a node that has the new one ends that.
func TestChangeOfSharedMasterKey(t *testing.T) {
	ctx := context.Background()
	first, second, third := NewMasterKey(), NewMasterKey(), NewMasterKey()
	sealed, err := SealedGenesis(first)()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := OpenStoreSecret(first, sealed)
	if err != nil {
		t.Fatal(err)
	}
	row := &fixedRow{row: sealed}
	opens := func(keys ...MasterKey) {
		t.Helper()
		for i, k := range []MasterKey{first, second, third} {
			got, err := UnlockShared(ctx, row, k, MasterKey{})
			if slices.Contains(keys, k) != (err == nil && same(got, secret)) || err != nil && !errors.Is(err, ErrWrongMasterKey) {
				t.Errorf("key %d: %v", i+1, err)
			}
		}
	}
	if _, err := UnlockShared(ctx, row, second, first); err != nil {
		t.Fatal(err)
	}
	opens(first, second)
	if _, err := UnlockShared(ctx, row, second, first); err != nil || row.replaced != 1 {
		t.Errorf("a second node: %v after %d replacements", err, row.replaced)
	}
	if _, err := FinishMasterKey(ctx, row, first); !errors.Is(err, ErrFormerMasterKey) {
		t.Errorf("a node with the former key: %v", err)
	}
	if _, err := FinishMasterKey(ctx, row, third); !errors.Is(err, ErrWrongMasterKey) {
		t.Errorf("a node with neither: %v", err)
	}
	opens(first, second)
	if _, err := UnlockShared(ctx, row, third, second); err != nil { // the next change drops the first
		t.Fatal(err)
	}
	opens(second, third)
	if dropped, err := FinishMasterKey(ctx, row, third); err != nil || !slices.Equal(dropped, []string{second.Fingerprint()}) {
		t.Errorf("the end of the change: %v %v", dropped, err)
	}
	opens(third)
	if dropped, err := FinishMasterKey(ctx, row, third); err != nil || dropped != nil {
		t.Errorf("the end, again: %v %v", dropped, err)
	}
}

// contestedRow is a row that others change whenever it was read.
type contestedRow struct {
	fixedRow
	others []SealedSecret
}

func (s *contestedRow) ReplaceSealedSecret(ctx context.Context, old, next SealedSecret) error {
	if len(s.others) > 0 {
		s.row, s.others = s.others[0], s.others[1:]
	}
	return s.fixedRow.ReplaceSealedSecret(ctx, old, next)
}

// Nodes that get the new key at the same time all start.
func TestContestedChangeOfMasterKey(t *testing.T) {
	before, now := NewMasterKey(), NewMasterKey()
	secret := NewStoreSecret()
	seal := func(k MasterKey) SealedSecret {
		row, err := SealStoreSecret(k, secret)
		if err != nil {
			t.Fatal(err)
		}
		return row
	}
	row := &contestedRow{fixedRow{row: seal(before)}, []SealedSecret{seal(before), seal(before).beside(seal(now))}}
	if got, err := UnlockShared(context.Background(), row, now, before); err != nil || !same(got, secret) || row.replaced != 0 {
		t.Errorf("%v after %d replacements", err, row.replaced)
	}
	for range 2 * unlockAttempts {
		row.others = append(row.others, seal(before))
	}
	row.row = seal(before)
	if _, err := UnlockShared(context.Background(), row, now, before); !errors.Is(err, ErrStaleEdit) {
		t.Errorf("a row that never stands still: %v", err)
	}
}

// A row of two keys that is damaged in any place opens no other secret.
func TestDamagedSharedRow(t *testing.T) {
	a, b, secret := NewMasterKey(), NewMasterKey(), NewStoreSecret()
	first, err := SealStoreSecret(a, secret)
	if err != nil {
		t.Fatal(err)
	}
	second, err := SealStoreSecret(b, secret)
	if err != nil {
		t.Fatal(err)
	}
	whole := first.beside(second)
	for i := range len(whole.Sealed) + len(whole.Check) {
		row := SealedSecret{whole.Version, bytes.Clone(whole.Sealed), bytes.Clone(whole.Check)}
		if i < len(row.Sealed) {
			row.Sealed[i] ^= 1
		} else {
			row.Check[i-len(row.Sealed)] ^= 1
		}
		var failed int
		for _, k := range []MasterKey{a, b} {
			if got, err := OpenStoreSecret(k, row); err != nil {
				failed++
			} else if !same(got, secret) {
				t.Errorf("byte %d: another secret opens", i)
			}
		}
		if failed != 1 {
			t.Errorf("byte %d: %d of two keys fail", i, failed)
		}
	}
}
