package postgres

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
)

func TestNotices(t *testing.T) {
	for _, c := range []struct {
		changed []keystore.KeyID
		payload string
	}{
		{nil, ""},
		{[]keystore.KeyID{"key_a"}, "keys key_a"},
		{[]keystore.KeyID{"key_a", "key_b", "key_a"}, "keys key_a key_b"},
		{[]keystore.KeyID{"key a", "", "key_ü", "key\x00", keystore.KeyID(strings.Repeat("k", 65))}, ""}, // none of ours
		{[]keystore.KeyID{"key a", "key_b"}, "keys key_b"},
	} {
		if got := noticeOf(c.changed); got != c.payload {
			t.Errorf("%q: %q, want %q", c.changed, got, c.payload)
		}
	}
	var many []keystore.KeyID
	for n := range 1000 {
		many = append(many, keystore.KeyID(fmt.Sprintf("key_%026d", n)))
	}
	payload := noticeOf(many)
	told := parseNotice(payload).Keys
	if len(payload) > payloadLimit || len(payload) < payloadLimit-31 || !slices.Equal(told, many[:len(told)]) {
		t.Errorf("%d keys in %d bytes", len(told), len(payload))
	}
	for _, forged := range []string{
		"keys", "keys ", "keys  key_a", "keys key_a ", " keys key_a", "Keys key_a", "keys key_a\n", "keys key_ü", "keyskey_a", "beat ", " beat", "beats",
		"keys " + strings.Repeat("k", 65), "keys" + strings.Repeat(" k", 4000), "\x00", "keys \xff",
	} {
		if n := parseNotice(forged); n.Keys != nil || n.Beat {
			t.Errorf("%.20q means %+v", forged, n)
		}
	}
}

// FuzzParseNotice: whatever anybody sends is bounded, and either as noticeOf
// writes it or means nothing.
func FuzzParseNotice(f *testing.F) {
	for _, seed := range []string{"", "beat", "keys key_a key_b", "keys ", "keys  a", "keys a\x00", strings.Repeat("keys a", 2000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload string) {
		n := parseNotice(payload)
		if n.Beat && (payload != "beat" || n.Keys != nil) {
			t.Fatalf("%q: %+v", payload, n)
		}
		if len(n.Keys) > payloadLimit/2 {
			t.Fatalf("%d keys", len(n.Keys))
		}
		for _, id := range n.Keys {
			if len(id) == 0 || len(id) > idLimit || strings.ContainsFunc(string(id), func(r rune) bool { return r > 'z' || r <= ' ' }) {
				t.Fatalf("%q: key %q", payload, id)
			}
		}
		slices.Sort(n.Keys)
		if compact := slices.Compact(slices.Clone(n.Keys)); len(compact) == len(n.Keys) && n.Keys != nil {
			if again := parseNotice(noticeOf(n.Keys)); !slices.Equal(again.Keys, n.Keys) {
				t.Fatalf("%q comes back as %+v", payload, again)
			}
		}
	})
}
