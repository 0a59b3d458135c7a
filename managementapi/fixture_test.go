package managementapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/sqlite"
	"github.com/warderhq/warder/tokenissuer"
)

// rig is an API over a real store, served over real HTTP.
type rig struct {
	t       *testing.T
	url     string
	service *keystore.Service
	store   *sqlite.Store
	keyring *tokenissuer.Keyring
	config  Config

	readiness     *keystore.Readiness
	authenticator keystore.Authenticator // of API keys

	mu      sync.Mutex // guards all below
	caller  keystore.Caller
	unknown error // why nobody is identified
	unready error // why the node is not ready
	logged  []string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	secret := keystore.NewStoreSecret()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "warder.db"), func() (keystore.SealedSecret, error) {
		return keystore.SealStoreSecret(keystore.NewMasterKey(), secret)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	keyring, err := tokenissuer.NewKeyring(tokenissuer.KeyringConfig{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	lease := new(keystore.Lease)
	view := keystore.NewView(store, lease, 1000)
	directory, rulebook := new(keystore.Directory), new(keystore.Rulebook)
	follower := keystore.NewFollower(keystore.FollowerConfig{
		Store: store, Lease: lease, Failed: func(err error) { t.Error(err) },
		Appliers: []keystore.Applier{view, directory, rulebook, new(keystore.Settings), keyring},
	})
	rotation := tokenissuer.NewRotation(tokenissuer.RotationConfig{Keyring: keyring, Store: store, Follower: follower})
	if err := rotation.Ensure(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := follower.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { follower.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })

	g := &rig{t: t, store: store, keyring: keyring, caller: keystore.LocalCaller()}
	g.service = &keystore.Service{
		Store: store, Follower: follower, Credentials: keystore.NewCredentials(secret), Replays: keystore.NewReplays(secret),
		Meters: view.Meters(), Directory: directory, Rulebook: rulebook,
		Policy: keystore.Policy{Prefix: keystore.DefaultPrefix, Grace: keystore.DefaultGrace},
	}
	g.config = Config{
		Service: g.service, SigningKeys: keyring, Rotation: rotation,
		Nodes:       keystore.NewNodes(keystore.NodesConfig{Self: keystore.Node{ID: "nod_self", Address: "here", Version: "test"}, Follower: follower}),
		Maintenance: maintained{Store: store},
		Caller:      g.who, Prefix: "/warder/v1", Version: "test", Log: g.log, Ready: g.mayDecide, Explain: g.explain,
	}
	g.readiness = keystore.NewReadiness(store, lease)
	g.authenticator = keystore.Authenticator{View: view, Credentials: g.service.Credentials, Freshness: keystore.Freshness{MaxStaleness: time.Second}}
	g.serve(g.config)
	return g
}

func (g *rig) serve(cfg Config) {
	server := httptest.NewServer(New(cfg))
	g.t.Cleanup(server.Close)
	g.url = server.URL
}

func (g *rig) who(*http.Request) (keystore.Caller, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.caller, g.unknown
}

// mayDecide says what the node's readiness does, unless unready says otherwise.
func (g *rig) mayDecide(ctx context.Context, now time.Time) (bool, error) {
	g.mu.Lock()
	err := g.unready
	g.mu.Unlock()
	if err != nil {
		return false, err
	}
	return g.readiness.Check(ctx, now, g.authenticator.Freshness)
}

// explain is of a gate that authenticates, and asks nothing else.
func (g *rig) explain(ctx context.Context, in Inquiry, now time.Time) (v Verdict) {
	presented, err := keystore.ParseAuthorization(keystore.DefaultPrefix, in.Credential.Reveal())
	if err == nil {
		v.Kind, presented.Trace = presented.Kind, &v.Trace
		var p keystore.Principal
		p, err = g.authenticator.Authenticate(ctx, presented, now)
		v.Key = p.Record
	} else {
		v.Trace.At(keystore.CheckForm)
	}
	if err != nil {
		v.Refuse = &Refusal{Status: 401, Code: "invalid_token", Detail: err.Error()}
	}
	return v
}

// refuseCallers makes err the answer to who calls; nil ends that.
func (g *rig) refuseCallers(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.unknown = err
}

func (g *rig) log(_ *http.Request, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.logged = append(g.logged, err.Error())
}

func (g *rig) takeLog() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	logged := g.logged
	g.logged = nil
	return logged
}

// as makes whoever calls from now on hold the scopes in an organization.
func (g *rig) as(organization, scopes string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.caller = keystore.Caller{Actor: "key_caller", Organization: organization, Scopes: keystore.Scopes(scopes)}
}

func (g *rig) asAdmin() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.caller = keystore.LocalCaller()
}

// reply is what came back.
type reply struct {
	t      *testing.T
	status int
	header http.Header
	raw    []byte
}

// send makes one call. Headers come in pairs.
func (g *rig) send(method, path, body string, headers ...string) reply {
	g.t.Helper()
	r, err := http.NewRequest(method, g.url+"/warder/v1"+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", bodyType(method))
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
		if headers[i] == "Content-Type" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(r) // follows no redirect
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	documented.check(g.t, r, body, resp, raw)
	return reply{g.t, resp.StatusCode, resp.Header, raw}
}

// ok demands a status and decodes the body.
func ok[T any](r reply, status int) (v T) {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("status %d, want %d: %s", r.status, status, r.raw)
	}
	if err := json.Unmarshal(r.raw, &v); err != nil {
		r.t.Fatalf("%v in %s", err, r.raw)
	}
	return v
}

// refused demands a problem of this status, code and place.
func (r reply) refused(status int, code, place string) Problem {
	r.t.Helper()
	var p Problem
	if err := json.Unmarshal(r.raw, &p); err != nil {
		r.t.Fatalf("status %d with no problem: %q", r.status, r.raw)
	}
	if r.status != status || p.Status != status || p.Code != code || p.Pointer+p.Parameter+p.Header != place {
		r.t.Errorf("got %d %s at %q, want %d %s at %q (%s)", r.status, p.Code, p.Pointer+p.Parameter+p.Header, status, code, place, r.raw)
	}
	if r.header.Get("Content-Type") != problemType || p.Title != http.StatusText(status) || p.Detail == "" {
		r.t.Errorf("no proper problem: %v %s", r.header, r.raw)
	}
	if bytes.Contains(r.raw, []byte("sql")) {
		r.t.Errorf("operator's text: %s", r.raw)
	}
	return p
}

// make makes a key with these members.
func (g *rig) make(body string) IssuedKey {
	g.t.Helper()
	return ok[IssuedKey](g.send("POST", "/keys", body), http.StatusCreated)
}

// record returns the key as the store has it.
func (g *rig) record(id keystore.KeyID) keystore.Record {
	g.t.Helper()
	rec, err := g.service.Key(g.t.Context(), keystore.LocalCaller(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return rec
}

// permission makes a permission with these members.
func (g *rig) permission(body string) Permission {
	g.t.Helper()
	return ok[Permission](g.send("POST", "/permissions", body), http.StatusCreated)
}
