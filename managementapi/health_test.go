package managementapi

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/warderhq/warder/keystore"
)

func TestHealth(t *testing.T) {
	g := newRig(t)
	g.as("default", "") // whoever is identified may ask
	if h := ok[Health](g.send("GET", "/health", ""), 200); h.Status != "ok" {
		t.Errorf("%+v", h)
	}
	g.send("POST", "/health", "").refused(405, "method_not_allowed", "")
	g.send("GET", "/health?verbose=1", "").refused(400, "invalid_parameter", "verbose")
	for err, code := range map[error]string{
		ErrStarting: "starting", ErrStopping: "stopping", keystore.ErrStale: "lease_over", keystore.ErrUnavailable: "store_unavailable",
	} {
		g.mu.Lock()
		g.unready = fmt.Errorf("asking: %w", err)
		g.mu.Unlock()
		r := g.send("GET", "/health", "")
		r.refused(503, code, "")
		if r.header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", code)
		}
	}
	if logged := g.takeLog(); len(logged) != 0 { // a probe asks every few seconds
		t.Errorf("logged %q", logged)
	}
	g.refuseCallers(keystore.ErrNoCredential)
	g.send("GET", "/health", "").refused(401, "unauthorized", "")
}

func TestWriteHealth(t *testing.T) {
	for _, c := range []struct {
		stale  bool
		err    error
		status int
		body   string
	}{
		{false, nil, 200, `{"status":"ok"}` + "\n"},
		{true, nil, 200, `{"status":"stale"}` + "\n"},
		{true, errors.New("secret text"), 500, ""},
	} {
		w := httptest.NewRecorder()
		WriteHealth(w, c.stale, c.err)
		if w.Code != c.status || w.Header().Get("Cache-Control") != "no-store" || c.body != "" && w.Body.String() != c.body {
			t.Errorf("%+v: %d %v %s", c, w.Code, w.Header(), w.Body)
		}
	}
}
