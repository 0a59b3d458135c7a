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

func TestShownSecretsDoNotPrint(t *testing.T) {
	key := IssuedKey{APIKey: "wdr_secret", SecretKey: "secret"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, key); strings.Contains(text, "secret\"") || strings.Contains(text, "wdr_") {
			t.Errorf("%s: %s", format, text)
		}
	}
}
