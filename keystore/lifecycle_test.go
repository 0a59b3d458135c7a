package keystore

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestRotate(t *testing.T) {
	fresh := Digest{6}
	for name, c := range map[string]struct {
		rec      Record
		grace    time.Duration
		want     error
		graceEnd Instant
	}{
		"active":                    {activeRecord(), 6 * time.Hour, nil, at(6 * time.Hour)},
		"deactivated":               {with(func(r *Record) { r.Deactivated = true }), 6 * time.Hour, nil, at(6 * time.Hour)},
		"forced":                    {activeRecord(), 0, nil, 0},
		"a negative grace is none":  {activeRecord(), -time.Hour, nil, 0},
		"grace ends with the key":   {with(func(r *Record) { r.Expires = at(time.Hour) }), 6 * time.Hour, nil, at(time.Hour)},
		"an immortal key":           {with(func(r *Record) { r.Expires = 0 }), 6 * time.Hour, nil, at(6 * time.Hour)},
		"blocked":                   {with(func(r *Record) { r.Blocked = true }), 6 * time.Hour, ErrBlocked, 0},
		"expired":                   {with(func(r *Record) { r.Expires = at(0) }), 6 * time.Hour, ErrExpired, 0},
		"expired while deactivated": {with(func(r *Record) { r.Expires, r.Deactivated = at(0), true }), 0, ErrExpired, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r, was := c.rec, c.rec
			if err := r.Rotate(fresh, c.grace, noon); err != c.want {
				t.Fatalf("Rotate = %v, want %v", err, c.want)
			}
			if c.want != nil {
				unchanged(t, r, was)
				return
			}
			was.Previous, was.GraceEnd = was.Current, c.graceEnd
			was.Current = Pair{Generation: 6, AccessKey: "current", Digest: fresh}
			if r != was {
				t.Errorf("rotated:\n%+v, want\n%+v", r, was)
			}
		})
	}
}

func unchanged(t *testing.T, r, was Record) {
	t.Helper()
	if r != was {
		t.Errorf("a refused operation changed the record:\n%+v\n%+v", r, was)
	}
}

// TestRotateThenAdmit follows one secret from current to unknown.
func TestRotateThenAdmit(t *testing.T) {
	r := Record{ID: "key_a", Current: Pair{Generation: 1, AccessKey: "a", Digest: Digest{1}}}
	admit := func(d Digest, now time.Time, want error) {
		t.Helper()
		if got := r.Admit(r.GenerationOf("a", d), now); got != want {
			t.Errorf("secret %d at %s: %v, want %v", d[0], now.Sub(noon), got, want)
		}
	}
	admit(Digest{1}, noon, nil)
	must(t, r.Rotate(Digest{2}, time.Hour, noon))
	admit(Digest{1}, noon.Add(time.Hour-time.Microsecond), nil)
	admit(Digest{1}, noon.Add(time.Hour), ErrSuperseded)
	must(t, r.Rotate(Digest{3}, time.Hour, noon)) // ends the older grace period
	admit(Digest{1}, noon, ErrInvalid)
	admit(Digest{2}, noon, nil)
	must(t, r.Rotate(Digest{4}, 0, noon))
	admit(Digest{3}, noon, ErrSuperseded)
	admit(Digest{4}, noon, nil)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestRegenerate(t *testing.T) {
	fresh := Pair{Generation: 6, AccessKey: "new", Digest: Digest{6}}
	for name, c := range map[string]struct {
		rec  Record
		want error
	}{
		"active":      {activeRecord(), nil},
		"deactivated": {with(func(r *Record) { r.Deactivated = true }), nil},
		"expired":     {with(func(r *Record) { r.Expires = at(-time.Hour) }), nil},
		"blocked":     {with(func(r *Record) { r.Blocked = true }), ErrBlocked},
	} {
		t.Run(name, func(t *testing.T) {
			r, was := c.rec, c.rec
			if err := r.Regenerate(fresh.AccessKey, fresh.Digest, at(48*time.Hour)); err != c.want {
				t.Fatalf("Regenerate = %v, want %v", err, c.want)
			}
			if c.want != nil {
				unchanged(t, r, was)
				return
			}
			was.Previous, was.GraceEnd, was.Current, was.Expires = was.Current, 0, fresh, at(48*time.Hour)
			if r != was {
				t.Errorf("regenerated:\n%+v, want\n%+v", r, was)
			}
		})
	}
	r := activeRecord()
	must(t, r.Regenerate(fresh.AccessKey, fresh.Digest, 0))
	for _, old := range []Generation{4, 5} {
		if err := r.Admit(old, noon); err != ErrSuperseded {
			t.Errorf("generation %d after a regeneration: %v", old, err)
		}
	}
}

// A clock that is set back, or another node's that lags, revives no secret
// that was said to be dead at once.
func TestDeadSecretsStayDeadWhateverTheClock(t *testing.T) {
	forced, regenerated := activeRecord(), activeRecord()
	must(t, forced.Rotate(Digest{6}, 0, noon))
	must(t, regenerated.Regenerate("new", Digest{6}, 0))
	for name, r := range map[string]Record{"forced": forced, "regenerated": regenerated} {
		if err := r.Admit(5, noon.Add(-time.Hour)); err != ErrSuperseded {
			t.Errorf("%s, an hour earlier: %v", name, err)
		}
		if end := r.CredentialEnd(5); !end.Passed(noon) {
			t.Errorf("%s: a token of the dead secret could live until %v", name, end.Time())
		}
	}
}

// A trial is no way to a life beyond 14 days, renewed or not.
func TestRenewedTrialStaysATrial(t *testing.T) {
	r := with(func(r *Record) { r.Type = TypeTrial })
	var field *FieldError
	if err := r.Renew(TrialLife+1, &Organization{}, noon); !errors.As(err, &field) {
		t.Errorf("a trial renewed for %d days: %v", TrialLife+1, err)
	}
	must(t, r.Renew(TrialLife, &Organization{}, noon))
}

func TestRenew(t *testing.T) {
	thirty := &Organization{MaximumExpiry: 30}
	for name, c := range map[string]struct {
		rec     Record
		days    Days
		org     *Organization
		want    error
		pointer string
	}{
		"longer":                   {activeRecord(), 30, &Organization{}, nil, ""},
		"shorter":                  {with(func(r *Record) { r.Expires = at(1000 * time.Hour) }), 1, &Organization{}, nil, ""},
		"revives":                  {with(func(r *Record) { r.Expires = at(-time.Hour) }), 30, &Organization{}, nil, ""},
		"deactivated":              {with(func(r *Record) { r.Deactivated = true }), 30, &Organization{}, nil, ""},
		"exactly the maximum":      {activeRecord(), 30, thirty, nil, ""},
		"beyond the maximum":       {activeRecord(), 31, thirty, nil, "/days"},
		"zero days":                {activeRecord(), 0, &Organization{}, nil, "/days"},
		"negative days":            {activeRecord(), -1, &Organization{}, nil, "/days"},
		"a hundred years":          {activeRecord(), MaximumDays, &Organization{}, nil, ""},
		"more than that":           {activeRecord(), MaximumDays + 1, &Organization{}, nil, "/days"},
		"days that would overflow": {activeRecord(), 1 << 40, &Organization{}, nil, "/days"},
		"never expires":            {with(func(r *Record) { r.Expires = 0 }), 30, &Organization{}, ErrNeverExpires, ""},
		"blocked":                  {with(func(r *Record) { r.Blocked = true }), 30, &Organization{}, ErrBlocked, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, was := c.rec, c.rec
			err := r.Renew(c.days, c.org, noon)
			if refused(t, err, c.want, c.pointer) {
				unchanged(t, r, was)
				return
			}
			was.Expires = at(time.Duration(c.days) * 24 * time.Hour)
			if r != was {
				t.Errorf("renewed:\n%+v, want\n%+v", r, was)
			}
		})
	}
}

// refused checks err against a sentinel, or else against the field a
// *FieldError has to name; it reports whether either was wanted.
func refused(t *testing.T, err, want error, pointer string) bool {
	t.Helper()
	var field *FieldError
	switch {
	case pointer != "":
		if !errors.As(err, &field) || field.Pointer != pointer {
			t.Fatalf("error = %v, want one at %s", err, pointer)
		}
	case !errors.Is(err, want):
		t.Fatalf("error = %v, want %v", err, want)
	}
	return want != nil || pointer != ""
}

func TestExpire(t *testing.T) {
	for name, c := range map[string]struct {
		rec  Record
		want error
		end  Instant
	}{
		"active":                       {activeRecord(), nil, at(0)},
		"immortal":                     {with(func(r *Record) { r.Expires = 0 }), nil, at(0)},
		"an expired one keeps its end": {with(func(r *Record) { r.Expires = at(-time.Hour) }), nil, at(-time.Hour)},
		"blocked":                      {with(func(r *Record) { r.Blocked = true }), ErrBlocked, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r, was := c.rec, c.rec
			if err := r.Expire(noon); err != c.want {
				t.Fatalf("Expire = %v, want %v", err, c.want)
			}
			if c.want == nil {
				was.Expires = c.end
				if r.State(noon) != StateExpired {
					t.Errorf("state %s at the instant of expiring", r.State(noon))
				}
			}
			unchanged(t, r, was)
		})
	}
}

func TestSwitchesDoNotTouchEachOther(t *testing.T) {
	r := activeRecord()
	for _, step := range []struct {
		do   func()
		want State
	}{
		{func() { r.SetDeactivated(true) }, StateDeactivated},
		{func() { r.SetBlocked(true) }, StateBlocked},
		{func() { r.SetDeactivated(false) }, StateBlocked},
		{func() { r.SetDeactivated(true) }, StateBlocked},
		{func() { r.SetBlocked(false) }, StateDeactivated},
		{func() { r.SetDeactivated(false) }, StateActive},
	} {
		if step.do(); r.State(noon) != step.want {
			t.Fatalf("state %s, want %s", r.State(noon), step.want)
		}
	}
	unchanged(t, r, activeRecord())
}

func TestExpiryOf(t *testing.T) {
	days := func(n Days) Instant { return n.After(noon) }
	for name, c := range map[string]struct {
		org     Organization
		typ     Type
		asked   Instant
		want    Instant
		pointer string
	}{
		"nothing said: never":               {Organization{}, TypeStandard, 0, 0, ""},
		"the default":                       {Organization{DefaultExpiry: 7, MaximumExpiry: 30}, TypeStandard, 0, days(7), ""},
		"a maximum without a default":       {Organization{MaximumExpiry: 30}, TypeStandard, 0, days(30), ""},
		"asked":                             {Organization{DefaultExpiry: 7}, TypeStandard, days(9), days(9), ""},
		"asked exactly the maximum":         {Organization{MaximumExpiry: 30}, TypeStandard, days(30), days(30), ""},
		"asked beyond the maximum":          {Organization{MaximumExpiry: 30}, TypeStandard, days(30) + 1, 0, "/expires_at"},
		"asked beyond a hundred years":      {Organization{}, TypeStandard, MaximumDays.After(noon) + 1, 0, "/expires_at"},
		"asked for now":                     {Organization{}, TypeStandard, at(0), 0, "/expires_at"},
		"asked for the past":                {Organization{}, TypeStandard, at(-time.Hour), 0, "/expires_at"},
		"asked for the epoch":               {Organization{}, TypeStandard, InstantOf(time.Unix(0, 0)), 0, "/expires_at"},
		"trial":                             {Organization{}, TypeTrial, 0, days(14), ""},
		"trial under a longer default":      {Organization{DefaultExpiry: 30}, TypeTrial, 0, days(14), ""},
		"trial under a shorter default":     {Organization{DefaultExpiry: 7}, TypeTrial, 0, days(7), ""},
		"trial under a shorter maximum":     {Organization{MaximumExpiry: 3}, TypeTrial, 0, days(3), ""},
		"trial asked less":                  {Organization{}, TypeTrial, days(5), days(5), ""},
		"trial asked exactly its life":      {Organization{}, TypeTrial, days(14), days(14), ""},
		"trial asked more":                  {Organization{}, TypeTrial, days(14) + 1, 0, "/expires_at"},
		"trial asked more than the maximum": {Organization{MaximumExpiry: 3}, TypeTrial, days(4), 0, "/expires_at"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.org.ExpiryOf(c.typ, c.asked, noon)
			if !refused(t, err, nil, c.pointer) && got != c.want {
				t.Errorf("ExpiryOf = %v, want %v", got.Time(), c.want.Time())
			}
		})
	}
}

func TestOrganizationValidate(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, c := range map[string]struct {
		org     Organization
		pointer string
	}{
		"plain":                 {Organization{Slug: "acme-2"}, ""},
		"longest slug":          {Organization{Slug: long}, ""},
		"no slug":               {Organization{}, "/slug"},
		"long slug":             {Organization{Slug: long + "a"}, "/slug"},
		"upper case":            {Organization{Slug: "Acme"}, "/slug"},
		"leading hyphen":        {Organization{Slug: "-a"}, "/slug"},
		"trailing hyphen":       {Organization{Slug: "a-"}, "/slug"},
		"lone hyphen":           {Organization{Slug: "-"}, "/slug"},
		"slash":                 {Organization{Slug: "a/b"}, "/slug"},
		"default = maximum":     {Organization{Slug: "a", DefaultExpiry: 3, MaximumExpiry: 3}, ""},
		"default > maximum":     {Organization{Slug: "a", DefaultExpiry: 4, MaximumExpiry: 3}, "/default_expiry_days"},
		"negative default":      {Organization{Slug: "a", DefaultExpiry: -1}, "/default_expiry_days"},
		"endless default":       {Organization{Slug: "a", DefaultExpiry: MaximumDays + 1}, "/default_expiry_days"},
		"negative maximum":      {Organization{Slug: "a", MaximumExpiry: -1}, "/maximum_expiry_days"},
		"endless maximum":       {Organization{Slug: "a", MaximumExpiry: MaximumDays + 1}, "/maximum_expiry_days"},
		"bad scope":             {Organization{Slug: "a", AllowedScopes: []string{"a b"}}, "/allowed_scopes"},
		"metadata is no object": {Organization{Slug: "a", Metadata: "[]"}, "/metadata"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.org.Validate(), nil, c.pointer) })
	}
}

func TestRecordValidate(t *testing.T) {
	for name, c := range map[string]struct {
		rec     Record
		pointer string
	}{
		"empty":                 {Record{}, ""},
		"all":                   {Record{Name: "Zoë's key", Metadata: `{"a":[1]}`}, ""},
		"longest name":          {Record{Name: strings.Repeat("n", 128)}, ""},
		"long name":             {Record{Name: strings.Repeat("n", 129)}, "/name"},
		"control in the name":   {Record{Name: "a\nb"}, "/name"},
		"C1 control":            {Record{Name: "a\u0085b"}, "/name"},
		"not UTF-8":             {Record{Name: "a\xff"}, "/name"},
		"longest metadata":      {Record{Metadata: `{"a":"` + strings.Repeat("x", MaximumMetadata-8) + `"}`}, ""},
		"long metadata":         {Record{Metadata: `{"a":"` + strings.Repeat("x", MaximumMetadata-7) + `"}`}, "/metadata"},
		"metadata is no object": {Record{Metadata: `"a"`}, "/metadata"},
		"metadata is null":      {Record{Metadata: `null`}, "/metadata"},
		"metadata is no JSON":   {Record{Metadata: `{`}, "/metadata"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.rec.Validate(), nil, c.pointer) })
	}
}
