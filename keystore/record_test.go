package keystore

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// noon is the time of the tables: a whole microsecond, so that a boundary can
// be hit exactly.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) Instant { return InstantOf(noon.Add(d)) }

// activeRecord was rotated once: generation 5 is current, 4 passes for an hour.
func activeRecord() Record {
	return Record{
		ID: "key_a", Number: 7, Organization: DefaultOrganization, Type: TypeStandard, Created: at(-time.Hour),
		Current:  Pair{Generation: 5, AccessKey: "current", Digest: Digest{5}},
		Previous: Pair{Generation: 4, AccessKey: "current", Digest: Digest{4}},
		GraceEnd: at(time.Hour), Expires: at(24 * time.Hour), Scopes: "hello:read",
	}
}

func with(change func(*Record)) Record {
	r := activeRecord()
	change(&r)
	return r
}

func TestState(t *testing.T) {
	blocked := func(r *Record) { r.Blocked = true }
	deactivated := func(r *Record) { r.Deactivated = true }
	for name, c := range map[string]struct {
		rec  Record
		now  time.Time
		want State
	}{
		"zero record":                    {Record{}, noon, StateUnknown},
		"without a secret":               {with(func(r *Record) { r.Current = Pair{} }), noon, StateUnknown},
		"active":                         {activeRecord(), noon, StateActive},
		"never expires":                  {with(func(r *Record) { r.Expires = 0 }), noon.AddDate(100, 0, 0), StateActive},
		"a microsecond before expiry":    {activeRecord(), noon.Add(24*time.Hour - time.Microsecond), StateActive},
		"at the instant of expiry":       {activeRecord(), noon.Add(24 * time.Hour), StateExpired},
		"deactivated":                    {with(deactivated), noon, StateDeactivated},
		"expired comes before the owner": {with(deactivated), noon.Add(24 * time.Hour), StateExpired},
		"blocked comes before expiry":    {with(blocked), noon.Add(24 * time.Hour), StateBlocked},
		"blocked comes before the owner": {with(func(r *Record) { blocked(r); deactivated(r) }), noon, StateBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.rec.State(c.now); got != c.want {
				t.Errorf("State = %s, want %s", got, c.want)
			}
		})
	}
}

func TestAdmit(t *testing.T) {
	for name, c := range map[string]struct {
		rec  Record
		gen  Generation
		now  time.Time
		want error
	}{
		"zero record":                            {Record{}, 0, noon, ErrInvalid},
		"zero record, made-up generation":        {Record{}, 1, noon, ErrInvalid},
		"generation zero":                        {activeRecord(), 0, noon, ErrInvalid},
		"generation zero without a previous":     {with(func(r *Record) { r.Previous = Pair{} }), 0, noon, ErrInvalid},
		"current":                                {activeRecord(), 5, noon, nil},
		"current, a microsecond before expiry":   {activeRecord(), 5, noon.Add(24*time.Hour - time.Microsecond), nil},
		"current, at the instant of expiry":      {activeRecord(), 5, noon.Add(24 * time.Hour), ErrExpired},
		"previous within grace":                  {activeRecord(), 4, noon, nil},
		"previous, a microsecond before its end": {activeRecord(), 4, noon.Add(time.Hour - time.Microsecond), nil},
		"previous, at the instant of its end":    {activeRecord(), 4, noon.Add(time.Hour), ErrSuperseded},
		"previous whose grace end is lost":       {with(func(r *Record) { r.GraceEnd = 0 }), 4, noon, ErrSuperseded},
		"previous of an expired key":             {with(func(r *Record) { r.Expires = at(-1) }), 4, noon, ErrExpired},
		"older than previous":                    {activeRecord(), 3, noon, ErrSuperseded},
		"greater than current":                   {activeRecord(), 6, noon, ErrSuperseded},
		"greatest":                               {activeRecord(), ^Generation(0), noon, ErrSuperseded},
		"blocked":                                {with(func(r *Record) { r.Blocked = true }), 5, noon, ErrBlocked},
		"deactivated":                            {with(func(r *Record) { r.Deactivated = true }), 5, noon, ErrDeactivated},
		"previous of a deactivated key":          {with(func(r *Record) { r.Deactivated = true }), 4, noon, ErrDeactivated},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.rec.Admit(c.gen, c.now); got != c.want {
				t.Errorf("Admit = %v, want %v", got, c.want)
			}
		})
	}
}

func TestGenerationOf(t *testing.T) {
	moved := with(func(r *Record) { r.Previous.AccessKey = "old" }) // regenerated
	for name, c := range map[string]struct {
		rec    Record
		access AccessKey
		digest Digest
		want   Generation
	}{
		"current":                          {activeRecord(), "current", Digest{5}, 5},
		"previous":                         {activeRecord(), "current", Digest{4}, 4},
		"wrong secret":                     {activeRecord(), "current", Digest{6}, 0},
		"another key's access key":         {activeRecord(), "other", Digest{5}, 0},
		"current secret, old access key":   {moved, "old", Digest{5}, 0},
		"old secret, current access key":   {moved, "current", Digest{4}, 0},
		"old pair":                         {moved, "old", Digest{4}, 4},
		"no previous does not match zeros": {with(func(r *Record) { r.Previous = Pair{} }), "", Digest{}, 0},
		"absent":                           {Record{}, "current", Digest{5}, 0},
		"absent does not match zeros":      {Record{}, "", Digest{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.rec.GenerationOf(c.access, c.digest); got != c.want {
				t.Errorf("GenerationOf = %d, want %d", got, c.want)
			}
		})
	}
}

func TestDigestsDifferInAnyBit(t *testing.T) {
	var a Digest
	for i := range a {
		a[i] = byte(i)
	}
	for bit := range 8 * len(a) {
		b := a
		b[bit/8] ^= 1 << (bit % 8)
		if a.same(&b) != 0 || b.same(&a) != 0 {
			t.Errorf("digests that differ in bit %d are the same", bit)
		}
	}
	if b := a; a.same(&b) != 1 {
		t.Error("a digest is not the same as itself")
	}
}

func TestCredentialEnd(t *testing.T) {
	never := func(r *Record) { r.Expires = 0 }
	for name, c := range map[string]struct {
		rec  Record
		gen  Generation
		want Instant
	}{
		"current":                         {activeRecord(), 5, at(24 * time.Hour)},
		"current of an immortal key":      {with(never), 5, 0},
		"previous":                        {activeRecord(), 4, at(time.Hour)},
		"previous of an immortal key":     {with(never), 4, at(time.Hour)},
		"previous beyond the key's end":   {with(func(r *Record) { r.Expires = at(time.Minute) }), 4, at(time.Minute)},
		"a lost grace end is no eternity": {with(func(r *Record) { never(r); r.GraceEnd = 0 }), 4, 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.rec.CredentialEnd(c.gen); got != c.want {
				t.Errorf("CredentialEnd = %v, want %v", got.Time(), c.want.Time())
			}
		})
	}
}

func TestAliases(t *testing.T) {
	rotated := activeRecord()
	regenerated := with(func(r *Record) { r.Previous.AccessKey = "old" })
	for name, c := range map[string]struct {
		before, after Record
		want          []LookupID
	}{
		"creation":       {Record{}, with(func(r *Record) { r.Previous = Pair{} }), []LookupID{"current"}},
		"rotation":       {with(func(r *Record) { r.Previous = Pair{} }), rotated, nil},
		"regeneration":   {rotated, with(func(r *Record) { r.Previous = r.Current; r.Current.AccessKey = "new" }), []LookupID{"new"}},
		"the second one": {regenerated, with(func(r *Record) { r.Current.AccessKey = "new" }), []LookupID{"old", "new"}},
		"deletion":       {regenerated, Record{}, []LookupID{"current", "old"}},
		"nothing":        {regenerated, regenerated, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ChangedAliases(&c.before, &c.after); !slices.Equal(got, c.want) {
				t.Errorf("ChangedAliases = %q, want %q", got, c.want)
			}
		})
	}
	if got := regenerated.Aliases(); !slices.Equal(got, []LookupID{"current", "old"}) {
		t.Errorf("Aliases = %q", got)
	}
	for id, want := range map[LookupID]bool{"key_a": true, "current": true, "old": true, "": false, "other": false} {
		if regenerated.FoundBy(id) != want {
			t.Errorf("FoundBy(%q) = %t", id, !want)
		}
	}
	if (&Record{}).FoundBy("") {
		t.Error("the zero record is found by the empty id")
	}
}

func TestInstant(t *testing.T) {
	if InstantOf(time.Time{}) != 0 || !Instant(0).Time().IsZero() || Instant(0).Passed(noon) {
		t.Error("the zero time is not the unset instant")
	}
	if !InstantOf(time.Unix(0, 0)).Passed(noon) {
		t.Error("the epoch reads as not set: a key made to expire then would never")
	}
	if got := at(0).Time(); !got.Equal(noon) || got.Location() != time.UTC {
		t.Errorf("instant of %v is %v", noon, got)
	}
}

func TestNames(t *testing.T) {
	for _, want := range []Type{TypeStandard, TypeTrial} {
		if got, err := ParseType(want.String()); got != want || err != nil {
			t.Errorf("ParseType(%s) = %s, %v", want, got, err)
		}
	}
	for _, want := range []State{StateBlocked, StateExpired, StateDeactivated, StateActive} {
		if got, err := ParseState(want.String()); got != want || err != nil {
			t.Errorf("ParseState(%s) = %s, %v", want, got, err)
		}
	}
	for _, name := range []string{"unknown", "", "Active"} {
		if _, err := ParseType(name); err == nil {
			t.Errorf("ParseType(%q) is no error", name)
		}
		if _, err := ParseState(name); err == nil {
			t.Errorf("ParseState(%q) is no error", name)
		}
	}
	if Type(200).String() != "unknown" || State(200).String() != "unknown" || CredentialKind(200).String() != "none" {
		t.Error("a value out of range has a name")
	}
}

// TestCompact: a cached record must not keep alive the buffer that it was read
// from, and holds its text in one piece.
func TestCompact(t *testing.T) {
	buffer := strings.Repeat("x", 1<<16) + "key_idcurrentold"
	r := with(func(r *Record) {
		r.ID, r.Name, r.Metadata = KeyID(buffer[1<<16:1<<16+6]), "a name", `{"a":1}`
		r.Current.AccessKey, r.Previous.AccessKey = AccessKey(buffer[1<<16+6:1<<16+13]), AccessKey(buffer[1<<16+13:])
	})
	c := r.compact()
	if c != r {
		t.Fatalf("compact changed the record:\n%+v\n%+v", c, r)
	}
	start := unsafe.StringData(string(c.ID))
	total := 0
	for _, s := range texts(&c) {
		if offset := uintptr(unsafe.Pointer(unsafe.StringData(s))) - uintptr(unsafe.Pointer(start)); s != "" && offset != uintptr(total) {
			t.Errorf("%q lies %d bytes after the first, want %d", s, offset, total)
		}
		total += len(s)
	}
	if zero := (Record{}).compact(); zero != (Record{}) {
		t.Errorf("compact of nothing is %+v", zero)
	}
}

// texts returns every string in a record: a new field that compact forgets
// makes TestCompact fail.
func texts(r *Record) (out []string) {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			out = append(out, v.String())
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Field(i))
			}
		}
	}
	walk(reflect.ValueOf(r).Elem())
	return out
}

func TestNewKeyID(t *testing.T) {
	a, b := NewKeyID(), NewKeyID()
	if a == b || len(a) != len("key_")+26 || !isKeyID(LookupID(a)) {
		t.Errorf("key ids %q and %q", a, b)
	}
}

func TestScopes(t *testing.T) {
	set, err := NewScopes("/scopes", []string{"b:write", "a:read", "b:write", "warder:keys"})
	if err != nil || set != "a:read b:write warder:keys" {
		t.Fatalf("NewScopes = %q, %v", set, err)
	}
	for _, s := range []string{"", "a b", `a"b`, `a\b`, "ä", "a\n", "a\x7f", strings.Repeat("x", 129), "warder:", "warder:all", "warder:keys2"} {
		var field *FieldError
		if _, err := NewScopes("/scopes", []string{s}); !errors.As(err, &field) || field.Pointer != "/scopes" {
			t.Errorf("NewScopes(%q): %v", s, err)
		}
	}
	many := make([]string, 65)
	for i := range many {
		many[i] = strings.Repeat("x", i+1)
	}
	if _, err := NewScopes("/scopes", many); err == nil {
		t.Error("65 scopes are accepted")
	}
	if _, err := NewScopes("/scopes", many[:64]); err != nil {
		t.Errorf("64 scopes: %v", err)
	}
}

func TestScopesHold(t *testing.T) {
	for _, c := range []struct {
		set   Scopes
		scope string
		has   bool
		grant bool
	}{
		{"a:read b", "a:read", true, true},
		{"a:read b", "b", true, true},
		{"a:read b", "a", false, false},
		{"a:read b", "a:read b", false, false},
		{"a:read b", "", false, false},
		{"", "", false, false},
		{"", "a", false, false},
		{ScopeAdmin, ScopeAdmin, true, true},
		{ScopeAdmin, ScopeKeys, false, true},
		{ScopeAdmin, ScopeRead, false, true},
		{ScopeAdmin, "a:read", false, false}, // the API's scopes are not Warder's to give
		{ScopeKeys, ScopeRead, false, true},
		{ScopeKeys, ScopeAdmin, false, false},
		{ScopeRead, ScopeKeys, false, false},
		{"warder:adminx", ScopeKeys, false, false},
	} {
		if got := c.set.Has(c.scope); got != c.has {
			t.Errorf("%q.Has(%q) = %t", c.set, c.scope, got)
		}
		if got := c.set.Grants(c.scope); got != c.grant {
			t.Errorf("%q.Grants(%q) = %t", c.set, c.scope, got)
		}
	}
}

func TestScopesIntersect(t *testing.T) {
	for _, c := range []struct{ a, b, want Scopes }{
		{"a b c", "a b c", "a b c"}, {"a b c", "b", "b"}, {"b", "a b c", "b"}, {"a b c", "c a", "a c"},
		{"a", "b", ""}, {"", "a", ""}, {"a", "", ""}, {"ab", "a b", ""},
	} {
		if got := c.a.Intersect(c.b); got != c.want {
			t.Errorf("%q ∩ %q = %q, want %q", c.a, c.b, got, c.want)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { Scopes("a b").Intersect("b a c") }); allocs != 0 {
		t.Errorf("a narrower set allocates %v times", allocs)
	}
}

func TestOverlayMetadata(t *testing.T) {
	// The examples of RFC 7396, appendix A, that are objects on objects.
	for _, c := range []struct{ base, over, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":"foo"}`, `{"b":[1,2]}`, `{"a":"foo","b":[1,2]}`},
		{``, `{"a":1,"b":null}`, `{"a":1}`},
		{`{"a":1}`, ``, `{"a":1}`},
		{``, ``, ``},
	} {
		if got, err := OverlayMetadata(c.base, c.over); got != c.want || err != nil {
			t.Errorf("%s over %s = %s, %v; want %s", c.over, c.base, got, err, c.want)
		}
	}
	for _, c := range [][2]string{{`{`, `{}`}, {`{}`, `{`}} {
		if _, err := OverlayMetadata(c[0], c[1]); err == nil {
			t.Errorf("%q over %q is no error", c[1], c[0])
		}
	}
	// What is no object replaces, and is replaced (appendix A again).
	if got := MergePatch([]any{"a", "b"}, []any{"c"}); !reflect.DeepEqual(got, []any{"c"}) {
		t.Errorf("array on array = %v", got)
	}
	if got := MergePatch("foo", map[string]any{"a": nil, "b": "c"}); !reflect.DeepEqual(got, map[string]any{"b": "c"}) {
		t.Errorf("object on text = %v", got)
	}
}

// TestOverlayKeepsNumbers: an id beyond 2^53 in metadata reaches the upstream
// with all its digits.
func TestOverlayKeepsNumbers(t *testing.T) {
	const id = `{"id":9007199254740993}`
	got, err := OverlayMetadata(id, `{"a":1.10}`)
	if err != nil || !strings.Contains(got, "9007199254740993") || !strings.Contains(got, "1.10") {
		t.Errorf("overlay = %s, %v", got, err)
	}
}
