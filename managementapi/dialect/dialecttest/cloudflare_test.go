//go:build !race

// Compiling this SDK takes longer than all else in these packages together, so
// it is compiled once, and of it only the part that is used.

package dialecttest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudflare/cloudflare-go/v6/option"
	"github.com/cloudflare/cloudflare-go/v6/shared"
	"github.com/cloudflare/cloudflare-go/v6/zero_trust"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi/dialect"
	"github.com/warderhq/warder/managementapi/dialect/dialecttest"
)

// site serves the dialect, and counts calls. While failing is more than zero,
// that many calls find the store unavailable.
type site struct {
	*dialecttest.Node
	url     string
	token   string
	calls   atomic.Int32
	failing atomic.Int32
}

func newSite(t *testing.T, scopes ...string) *site {
	t.Helper()
	s := &site{Node: dialecttest.NewNode(t, time.Hour)}
	key, err := s.Service.CreateKey(context.Background(), keystore.LocalCaller(), keystore.NewKey{Scopes: scopes}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.token = key.APIKey.Reveal()
	d, err := dialect.New("cloudflare", dialect.Config{
		Service: s.Service, SigningKeys: s.Keyring, Rotation: s.Rotation, Prefix: "/client/v4", Accounts: []string{"acme"},
		Identify: func(r *http.Request, authorization string) (keystore.Caller, error) {
			s.calls.Add(1)
			if s.failing.Add(-1) >= 0 {
				return keystore.Caller{}, keystore.ErrUnavailable
			}
			return s.Identify(r, authorization)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	s.url = server.URL + "/client/v4"
	return s
}

// client is the published SDK, told nothing but the base URL.
func (s *site) client(opts ...option.RequestOption) *zero_trust.AccessKeyService {
	return zero_trust.NewAccessKeyService(append([]option.RequestOption{
		option.WithBaseURL(s.url), option.WithAPIToken(s.token), option.WithMaxRetries(3),
	}, opts...)...)
}

func get(account string) (p zero_trust.AccessKeyGetParams) {
	p.AccountID.Value, p.AccountID.Present = account, true
	return p
}

func update(account string, days float64) (p zero_trust.AccessKeyUpdateParams) {
	p.AccountID.Value, p.AccountID.Present = account, true
	p.KeyRotationIntervalDays.Value, p.KeyRotationIntervalDays.Present = days, true
	return p
}

func rotate(account string) (p zero_trust.AccessKeyRotateParams) {
	p.AccountID.Value, p.AccountID.Present = account, true
	return p
}

func TestCloudflareSDK(t *testing.T) {
	s := newSite(t, keystore.ScopeAdmin)
	ctx, client := t.Context(), s.client()
	first, err := client.Get(ctx, get("acme"))
	if err != nil || first.KeyRotationIntervalDays != 42 || first.DaysUntilNextRotation != 42 || time.Since(first.LastKeyRotationAt) > 2*time.Hour {
		t.Fatalf("get: %+v, %v", first, err)
	}
	changed, err := client.Update(ctx, update("acme", 30))
	if err != nil || changed.KeyRotationIntervalDays != 30 || !changed.LastKeyRotationAt.Equal(first.LastKeyRotationAt) {
		t.Fatalf("update: %+v, %v", changed, err)
	}
	rotated, err := client.Rotate(ctx, rotate("acme"))
	if err != nil || rotated.DaysUntilNextRotation != 30 || rotated.LastKeyRotationAt.Before(first.LastKeyRotationAt) {
		t.Fatalf("rotate: %+v, %v", rotated, err)
	}
	again, err := s.client(option.WithAPIToken(""), option.WithAPIEmail("a@example.com"), option.WithAPIKey(s.token),
		option.WithHeaderDel("authorization")).Get(ctx, get("acme"))
	if err != nil || again.KeyRotationIntervalDays != 30 || !again.LastKeyRotationAt.Equal(rotated.LastKeyRotationAt) {
		t.Fatalf("get with an e-mail address and a key: %+v, %v", again, err)
	}
	if n := s.calls.Load(); n != 4 {
		t.Errorf("%d calls for four", n)
	}
}

// A refusal reaches the caller of the SDK whole, and is not repeated.
func TestCloudflareSDKErrors(t *testing.T) {
	s := newSite(t, keystore.ScopeAdmin)
	ctx, client := t.Context(), s.client()
	refused := func(err error, status, pointer string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), ": "+status+" ") {
			t.Fatalf("%v, want %s", err, status)
		}
		told, ok := reflect.ValueOf(err).Elem().FieldByName("Errors").Interface().([]shared.ErrorData)
		if !ok || len(told) != 1 || told[0].Code < 1000 || told[0].Message == "" || told[0].Source.Pointer != pointer {
			t.Errorf("%+v", told)
		}
		if n := s.calls.Swap(0); n > 1 {
			t.Errorf("repeated %d times", n)
		}
	}
	_, err := client.Update(ctx, update("acme", 7))
	refused(err, "400", "/key_rotation_interval_days")
	_, err = client.Get(ctx, get("other"))
	refused(err, "404", "")
	s.token = "nonsense"
	_, err = s.client().Get(ctx, get("acme"))
	refused(err, "401", "")
	lesser := newSite(t, keystore.ScopeKeys)
	_, err = lesser.client().Rotate(ctx, rotate("acme"))
	refused(err, "403", "")
}

// The SDK gets over an outage by itself, but does not do a second time what
// may have been done.
func TestCloudflareSDKRetries(t *testing.T) {
	s := newSite(t, keystore.ScopeAdmin)
	ctx, client := t.Context(), s.client()
	s.failing.Store(1)
	if _, err := client.Get(ctx, get("acme")); err != nil || s.calls.Swap(0) != 2 {
		t.Errorf("through an outage: %v", err)
	}
	before, err := s.Keyring.Info()
	if err != nil {
		t.Fatal(err)
	}
	s.Stop() // from here on what is committed does not come into force
	if _, err := client.Rotate(ctx, rotate("acme")); err == nil || !strings.Contains(err.Error(), ": 400 ") || s.calls.Load() != 1 {
		t.Errorf("%d calls: %v", s.calls.Load(), err)
	}
	if after, err := s.Store.Snapshot(context.Background()); err != nil || after.Head.Revision <= before.Revision {
		t.Errorf("nothing was committed: %+v, %v", after.Head, err)
	}
}
