package keystore

import (
	"slices"
	"testing"
	"time"
)

// A trace changes no verdict, notes the checks in their order, and names the
// one that refused.
func TestTraceChangesNoVerdict(t *testing.T) {
	n := newNode(t, 100, 0)
	good, secret := n.storedKey(t, "good")
	blocked, blockedSecret := n.storedKey(t, "blocked")
	blocked.Blocked = true
	n.store.put(t, &blocked)
	n.catchUp(t)
	now := time.Now()
	for name, c := range map[string]struct {
		access AccessKey
		secret Secret
		last   Check
	}{
		"good":         {good.Current.AccessKey, secret, CheckGeneration},
		"wrong secret": {good.Current.AccessKey, blockedSecret, CheckSecret},
		"unknown":      {n.credentials.NewAccessKey(), secret, CheckKnown},
		"made up":      {AccessKey(base62Bytes(make([]byte, 16), accessKeyLength)), secret, CheckGenuine},
		"blocked":      {blocked.Current.AccessKey, blockedSecret, CheckBlocked},
	} {
		p := Presented{Kind: CredentialKey, Access: c.access, Secret: c.secret.Reveal()}
		for range 2 { // the second time, a good one is remembered
			_, plain := n.auth.Authenticate(t.Context(), p, now)
			traced := p
			traced.Trace = new(Trace)
			_, err := n.auth.Authenticate(t.Context(), traced, now)
			if err != plain || traced.Trace.Last() != c.last || !slices.IsSorted(traced.Trace.Made) {
				t.Errorf("%s: %v with a trace, %v without; the checks were %s", name, err, plain, traced.Trace.Made)
			}
		}
	}
}

func TestTraceWaives(t *testing.T) {
	z := Authorizer{Directory: new(Directory), Rulebook: new(Rulebook)}
	p := Principal{Record: &Record{Organization: "nowhere", Networks: "10.0.0.0/8"}}
	if err := z.Permit(&p, Access{}); err != ErrNetwork {
		t.Error(err)
	}
	if err := z.Permit(&p, Access{Trace: &Trace{Waived: []Check{CheckNetwork}}}); err != ErrPermission {
		t.Error(err)
	}
	trace := &Trace{Waived: []Check{CheckNetwork, CheckPermission}}
	if err := z.Permit(&p, Access{Trace: trace}); err != nil || len(trace.Made) != 0 {
		t.Errorf("%v %s", err, trace.Made)
	}
}

func TestAskingTakesNothingFromALimit(t *testing.T) {
	z := Authorizer{Directory: new(Directory)}
	p := Principal{Record: &Record{Limit: Limit{Requests: 1, Burst: 2, Period: time.Hour}}, Meter: new(Meter)}
	now := time.Now()
	for _, left := range []uint32{1, 0} {
		for range 3 {
			if a, ok := z.Left(&p, now); !ok || a.Remaining != left {
				t.Errorf("%+v %t", a, ok)
			}
		}
		if a, ok := z.Spend(&p, now); !ok || a.Remaining != left {
			t.Errorf("%+v %t", a, ok)
		}
	}
	asked, ok := z.Left(&p, now)
	if spent, passes := z.Spend(&p, now); ok || passes || asked != spent {
		t.Errorf("%+v %t, %+v %t", asked, ok, spent, passes)
	}
	if _, ok := z.Left(&Principal{Record: p.Record}, now); ok {
		t.Error("without a meter")
	}
}
