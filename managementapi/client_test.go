package managementapi

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func (g *rig) client() *Client {
	return NewClient(Endpoint{"tcp", strings.TrimPrefix(g.url, "http://")}, "/warder/v1")
}

func TestClientAgainstTheAPI(t *testing.T) {
	g := newRig(t)
	c := g.client()
	raw, err := c.Call(t.Context(), Request{Method: "POST", Path: []string{"keys"}, Body: map[string]any{"name": "a<b>"}, IdempotencyKey: "k"})
	if err != nil || !strings.Contains(string(raw), `"a<b>"`) {
		t.Fatalf("%v %s", err, raw)
	}
	again, err := c.Call(t.Context(), Request{Method: "POST", Path: []string{"keys"}, Body: map[string]any{"name": "a<b>"}, IdempotencyKey: "k"})
	if err != nil || string(again) != string(raw) {
		t.Errorf("%v %s", err, again)
	}
	var p *Problem
	if _, err = c.Call(t.Context(), Request{Method: "PATCH", Path: []string{"organizations", "default"}, Body: map[string]any{"default_expiry_days": 0}}); !errors.As(err, &p) ||
		p.Status != 400 || p.Pointer != "/default_expiry_days" || !strings.HasPrefix(err.Error(), "default_expiry_days: ") {
		t.Errorf("%v", err)
	}
	if _, err = c.Call(t.Context(), Request{Method: "GET", Path: []string{"keys", "../organizations"}}); !errors.As(err, &p) || p.Code != "key_not_found" {
		t.Errorf("%v", err)
	}
	if _, err = c.Call(t.Context(), Request{Method: "GET", Path: []string{"keys", "key_a?limit=1#x"}}); !errors.As(err, &p) || p.Code != "key_not_found" {
		t.Errorf("%v", err)
	}
	for _, segment := range []string{"", ".", ".."} {
		if _, err := c.Call(t.Context(), Request{Method: "DELETE", Path: []string{"keys", segment}}); err == nil || errors.As(err, &p) || errors.Is(err, ErrNotWarder) {
			t.Errorf("%q was sent: %v", segment, err)
		}
	}
}

// Nothing but a question is sent before a Warder has answered, and an answer
// from anything else is never taken for one.
func TestClientMeetsSomethingElse(t *testing.T) {
	for _, c := range []struct {
		status      int
		media, body string
	}{
		{404, "text/plain; charset=utf-8", "404 page not found\n"}, {200, "application/json", "{}"}, {200, "application/json", `[]`},
		{200, "text/html", `{"service":"warder"}`}, {307, "application/json", `{"service":"warder"}`}, {204, "", ""},
		{403, "application/json", `{"error":"client is not allowed to access from origin ''"}`}, {400, "application/problem+json", "x"}, {400, problemType, "{}"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != "GET" || r.URL.Path != "/warder/v1" || r.Header.Get("Origin") == "" {
				t.Errorf("it was sent %s %s", r.Method, r.URL)
			}
			w.Header().Set("Content-Type", c.media)
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(c.status)
			if c.status != 204 {
				fmt.Fprint(w, c.body)
			}
		}))
		client := NewClient(Endpoint{"tcp", s.Listener.Addr().String()}, "/warder/v1")
		if _, err := client.Call(t.Context(), Request{Method: "POST", Path: []string{"keys"}}); !errors.Is(err, ErrNotWarder) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
		s.Close()
	}
}

func TestClientReachesNobody(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	for _, e := range []Endpoint{{"tcp", address}, {"unix", filepath.Join(t.TempDir(), "none")}} {
		_, err := NewClient(e, "/v1").Call(t.Context(), Request{Method: "GET", Path: []string{"keys"}})
		if !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), e.Address) || strings.Contains(err.Error(), "http://") {
			t.Errorf("%v", err)
		}
	}
}

// A credential goes to the mount that was named, over TLS or not at all, and a
// refusal says when to come again.
func TestRemoteClient(t *testing.T) {
	const credential = "wdr_remote"
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer "+credential || r.Header.Get("Origin") != "" {
			t.Errorf("%q %v", got, r.Header)
		}
		w.Header().Set("Content-Type", problemType)
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"status":429,"code":"too_many_requests","detail":"later"}`)
	}))
	defer s.Close()
	c, err := NewRemoteClient(s.URL+"/v1/", credential)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Call(t.Context(), Request{Method: "GET", Path: []string{"keys"}}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("a certificate of nobody: %v", err)
	}
	c.http.Transport.(*http.Transport).TLSClientConfig = s.Client().Transport.(*http.Transport).TLSClientConfig
	var p *Problem
	if _, err := c.Call(t.Context(), Request{Method: "GET", Path: []string{"keys"}}); !errors.As(err, &p) || p.RetryAfter != 7*time.Second {
		t.Errorf("%v", err)
	}
	for _, base := range []string{"http://keys.example.com/v1", "http://localhost.example.com", "ftp://localhost", "https://", "//host", "https://u:p@host", "https://host/?a=b", "https://host/#a", "http://127.0.0.1.example.com", "\x00"} {
		if _, err := NewRemoteClient(base, credential); err == nil || strings.Contains(err.Error(), credential) {
			t.Errorf("%q: %v", base, err)
		}
	}
	for _, wrong := range []keystore.Secret{"", "two words", "line\nbreak", "ümlaut", keystore.Secret(strings.Repeat("x", keystore.MaximumCredential+1))} {
		if _, err := NewRemoteClient("https://host", wrong); err == nil {
			t.Errorf("a credential of %d bytes is taken", len(wrong))
		}
	}
	for _, base := range []string{"http://localhost:1/v1", "http://127.0.0.9", "http://[::1]:1", "https://host/v1"} {
		if _, err := NewRemoteClient(base, credential); err != nil {
			t.Errorf("%q: %v", base, err)
		}
	}
}

func TestShownSecretsDoNotPrint(t *testing.T) {
	key := IssuedKey{APIKey: "wdr_secret", SecretKey: "secret"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, key); strings.Contains(text, "secret\"") || strings.Contains(text, "wdr_") {
			t.Errorf("%s: %s", format, text)
		}
	}
}
