package managementapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
)

func TestFailureIsNoDenialAndTellsNothing(t *testing.T) {
	g := newRig(t)
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{errLate, 503, "unavailable"}, {fmt.Errorf("asking: %w", keystore.ErrStale), 503, "unavailable"},
		{errDisk, 500, "internal"}, {keystore.ErrCorrupt, 500, "internal"}, {nil, 500, "internal"}, // nil: a panic
	} {
		broken := brokenStore{c.err}
		service := *g.service
		service.Store = broken
		g.serve(Config{Service: &service, Caller: g.who, Prefix: "/warder/v1", Log: g.log})
		for _, call := range [][2]string{{"POST", "/keys"}, {"GET", "/keys"}, {"GET", "/keys/key_x"}, {"GET", "/usage"}, {"GET", "/audit"}, {"POST", "/keys/key_x/rotate"}, {"POST", "/permissions"}} {
			g.takeLog()
			r := g.send(call[0], call[1], map[string]string{"/permissions": `{"name":"x"}`}[call[1]])
			r.refused(c.status, c.code, "")
			if strings.Contains(string(r.raw), "secret text") {
				t.Errorf("the caller is told %s", r.raw)
			}
			if logged := g.takeLog(); len(logged) != 1 || (c.err != nil && !strings.Contains(logged[0], c.err.Error())) {
				t.Errorf("the operator is told %q of %v", logged, c.err)
			}
			after, _ := strconv.Atoi(r.header.Get("Retry-After"))
			if c.status == 503 && (after < 1 || after > 5) {
				t.Errorf("Retry-After: %d", after)
			}
		}
	}
}

func TestCallerThatCannotBeTold(t *testing.T) {
	for err, status := range map[error]int{
		keystore.ErrNoCredential: 401, keystore.ErrForbidden: 403, keystore.ErrStale: 503, errDisk: 500, ErrNotConfigured: 503, ErrRemote: 403,
	} {
		api := New(Config{Prefix: "/v1", Caller: func(*http.Request) (keystore.Caller, error) { return keystore.LocalCaller(), err }})
		w := httptest.NewRecorder()
		api.ServeHTTP(w, httptest.NewRequest("GET", "/v1/keys", nil))
		if w.Code != status || w.Header().Get("Content-Type") != problemType {
			t.Errorf("%v: %d %s", err, w.Code, w.Body)
		}
		if challenge := w.Header().Get("WWW-Authenticate"); (status == 401) != (challenge != "") {
			t.Errorf("%v: WWW-Authenticate: %s", err, challenge)
		}
	}
	w := httptest.NewRecorder()
	New(Config{Prefix: "/v1", Caller: func(*http.Request) (keystore.Caller, error) { return keystore.Caller{}, nil }}).
		ServeHTTP(w, httptest.NewRequest("GET", "/v1/keys", nil))
	if w.Code != 403 {
		t.Errorf("the zero caller: %d", w.Code)
	}
}

// What is wrong with the caller's own key is said of that, and not of the key
// that it asks about.
func TestWhyACallerIsNotIdentified(t *testing.T) {
	g := newRig(t)
	path := "/keys/" + string(g.make(`{}`).ID) + "/rotate"
	for _, row := range callerTable {
		g.refuseCallers(fmt.Errorf("authenticating: %w", row.err))
		r := g.send("POST", path, "")
		if p := r.refused(row.status, row.code, ""); p.Detail != row.detail || row.status/100 != 4 || row.status == 409 {
			t.Errorf("%v: %+v", row.err, p)
		}
		if named := strings.Contains(r.header.Get("WWW-Authenticate"), `error="invalid_token"`); named != (row.status == 401) {
			t.Errorf("%v: %v", row.err, r.header)
		}
	}
	g.refuseCallers(keystore.ErrNoCredential)
	if r := g.send("POST", path, ""); r.header.Get("WWW-Authenticate") != `Bearer realm="warder"` {
		t.Errorf("%v", r.header)
	}
}

func TestErrorTableIsWhole(t *testing.T) {
	seen := make(map[string]string)
	for _, row := range errorTable {
		if row.code == "" || row.detail == "" || http.StatusText(row.status) == "" {
			t.Errorf("%v: %+v", row.err, row)
		}
		if other, ok := seen[row.code]; ok && other != row.detail {
			t.Errorf("code %s has two meanings", row.code)
		}
		seen[row.code] = row.detail
		if p := ProblemOf(fmt.Errorf("doing: %w", row.err)); p.Code != row.code || p.Status != row.status {
			t.Errorf("%v wrapped is %+v", row.err, p)
		}
	}
	for _, row := range readinessTable {
		if p := ProblemOf(&NotReadyError{fmt.Errorf("asking: %w", row.err)}); p.Code != row.code || p.Status != 503 || p.Detail == "" {
			t.Errorf("%v: %+v", row.err, p)
		}
	}
	for _, err := range []error{errors.New("x"), nil} {
		if p := ProblemOf(err); p.Status != 500 {
			t.Errorf("%v: %+v", err, p)
		}
	}
}
