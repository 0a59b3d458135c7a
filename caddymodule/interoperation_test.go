package caddymodule

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/warderhq/warder/keystore"
)

// clientConfig is golang.org/x/oauth2's for a key.
func (w *world) clientConfig(c credential, style oauth2.AuthStyle, scopes ...string) *clientcredentials.Config {
	return &clientcredentials.Config{
		ClientID: string(c.AccessKey), ClientSecret: c.SecretKey.Reveal(), TokenURL: "http://" + w.gate + "/token",
		Scopes: scopes, AuthStyle: style,
	}
}

// golang.org/x/oauth2/clientcredentials gets tokens in each of its ways, calls
// the API with them, and understands each refusal.
func TestClientCredentials(t *testing.T) {
	const resource = "https://files.example/v1"
	w := start(t, guardedWithResource(resource, "require scope hello:read"))
	c := w.create(fields{"scopes": []string{"hello:read", "hello:write"}})
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleAutoDetect, oauth2.AuthStyleInHeader, oauth2.AuthStyleInParams} {
		config := w.clientConfig(c, style, "hello:read")
		config.EndpointParams = url.Values{"resource": {resource, "http://" + w.gate}}
		answer, err := config.Client(t.Context()).Get("http://" + w.gate + "/")
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		got := w.upstream.one(t).Header
		if answer.StatusCode != http.StatusOK || got.Get("X-Warder-Scope") != "hello:read" || got.Get("X-Warder-Credential") != "access_token" {
			t.Errorf("style %d: %d %v", style, answer.StatusCode, got)
		}
		token, err := config.Token(t.Context())
		if err != nil || token.Type() != "Bearer" || time.Until(token.Expiry) < 14*time.Minute || time.Until(token.Expiry) > 15*time.Minute {
			t.Errorf("style %d: %v until %v, %v", style, token.Type(), token.Expiry, err)
		}
	}
	wrong := c
	wrong.AccessKey = "0123456789abcdefghijkl"
	ill := w.clientConfig(c, oauth2.AuthStyleInHeader)
	ill.EndpointParams = url.Values{"resource": {"https://x.example"}}
	for want, config := range map[string]*clientcredentials.Config{
		"invalid_client": w.clientConfig(wrong, oauth2.AuthStyleInHeader), "invalid_target": ill,
		"invalid_scope": w.clientConfig(c, oauth2.AuthStyleInHeader, "hello:delete"),
	} {
		_, err := config.Token(t.Context())
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) || refused.ErrorCode != want || refused.ErrorDescription == "" {
			t.Errorf("want %s, got %v", want, err)
		}
	}
}

func guardedWithResource(resource, options string) string {
	return siteConfig("", "issuer http://<gate> {\nresources "+resource+"\n}", "warder_issuer\nwarder {\n"+options+"\n}\nreverse_proxy <upstream>")
}

// verifier checks tokens somewhere else, by what the JWKS says.
type verifier interface {
	verify(ctx context.Context, token string) error
}

// oidcVerifier is go-oidc's, which keeps its keys and fetches the JWKS when it
// meets one that it does not know.
type oidcVerifier struct{ *oidc.IDTokenVerifier }

func (w *world) oidcVerifier(ctx context.Context) verifier {
	issuer := "http://" + w.gate
	keys := oidc.NewRemoteKeySet(ctx, issuer+"/.well-known/jwks.json")
	return oidcVerifier{oidc.NewVerifier(issuer, keys, &oidc.Config{ClientID: issuer, SupportedSigningAlgs: []string{oidc.EdDSA}})}
}

func (v oidcVerifier) verify(ctx context.Context, token string) error {
	_, err := v.Verify(ctx, token)
	return err
}

// copyVerifier is golang-jwt with a copy of the JWKS, which it replaces only
// when the copy is too old: it never asks for a key that it does not know.
type copyVerifier struct {
	w      *world
	parser *jwt.Parser

	mu   sync.Mutex // guards keys
	keys map[string]ed25519.PublicKey
}

func (w *world) copyVerifier() *copyVerifier {
	v := &copyVerifier{w: w, parser: jwt.NewParser(
		jwt.WithValidMethods([]string{"EdDSA"}), jwt.WithIssuer("http://"+w.gate), jwt.WithAudience("http://"+w.gate), jwt.WithExpirationRequired())}
	v.refresh()
	return v
}

func (v *copyVerifier) refresh() {
	v.w.t.Helper()
	var set struct{ Keys []struct{ Kid, X string } }
	if err := json.Unmarshal([]byte(v.w.get("/.well-known/jwks.json").Text), &set); err != nil {
		v.w.t.Fatal(err)
	}
	keys := map[string]ed25519.PublicKey{}
	for _, key := range set.Keys {
		raw, err := base64.RawURLEncoding.DecodeString(key.X)
		if err != nil {
			v.w.t.Fatal(err)
		}
		keys[key.Kid] = raw
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys = keys
}

func (v *copyVerifier) verify(_ context.Context, token string) error {
	_, err := v.parser.Parse(token, func(token *jwt.Token) (any, error) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if key := v.keys[fmt.Sprint(token.Header["kid"])]; key != nil {
			return key, nil
		}
		return nil, fmt.Errorf("kid %v is not in the copy", token.Header["kid"])
	})
	return err
}

// Verifiers that keep running across rotations accept every token from its
// minting on. Time between the rotations is not waited for: the rotation is
// told that it has passed, and the copy is renewed as often as it would be.
func TestVerifiersAcrossRotations(t *testing.T) {
	const rotations, copyLife = 4, 5 * time.Minute // the max-age of the JWKS
	w := start(t, guarded("", ""))
	c := w.create(nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	copied := w.copyVerifier()
	verifiers := map[string]verifier{"go-oidc": w.oidcVerifier(ctx), "golang-jwt": copied}
	var mu sync.Mutex // guards tokens
	var tokens []string
	mint := func() string {
		token, err := w.clientConfig(c, oauth2.AuthStyleInHeader).Token(ctx)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return ""
		}
		mu.Lock()
		defer mu.Unlock()
		tokens = append(tokens, token.AccessToken)
		return token.AccessToken
	}
	mint()
	var loops sync.WaitGroup
	for name, v := range verifiers {
		loops.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				mint()
				mu.Lock()
				token := tokens[n%len(tokens)] // old ones, too
				mu.Unlock()
				if err := v.verify(ctx, token); err != nil && ctx.Err() == nil {
					t.Errorf("%s refuses a good token: %v", name, err)
				}
			}
		})
	}
	now, kids := time.Now(), []string{}
	rotate, by := w.app().engine.rotation.Rotate, keystore.Attribution{Actor: "local"}
	for range rotations {
		early, err := rotate(ctx, by, now.Add(copyLife-30*time.Second))
		if err != nil || !early.Pending {
			t.Errorf("a key that copies do not hold yet: %+v, %v", early, err)
		}
		if err := copied.verify(ctx, mint()); err != nil {
			t.Errorf("golang-jwt refuses a token minted after an early rotation: %v", err)
		}
		now = now.Add(copyLife)
		done, err := rotate(ctx, by, now)
		if err != nil || done.Pending || slices.Contains(kids, done.KID) {
			t.Fatalf("%+v, %v", done, err)
		}
		kids = append(kids, done.KID)
		for range 20 {
			for name, v := range verifiers {
				if err := v.verify(ctx, mint()); err != nil {
					t.Errorf("%s refuses a token of the new key: %v", name, err)
				}
			}
		}
		copied.refresh()
	}
	cancel()
	loops.Wait()
	t.Logf("%d tokens under %d keys", len(tokens), rotations+1)
}

// What people use on npm: openid-client, oauth4webapi and jose, in pinned
// versions, against a running Caddy.
func TestNode(t *testing.T) {
	if testing.Short() {
		t.Skip("installs npm packages")
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Fprintf(os.Stderr, "\nSKIPPED: %s is missing, so that openid-client, oauth4webapi and jose were NOT tried\n\n", program)
			t.Skipf("%s is missing", program)
		}
	}
	const resource = "https://files.example/v1"
	w := start(t, guardedWithResource(resource, ""))
	c := w.create(fields{"scopes": []string{"hello:read", "hello:write"}})
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "interoperation.mjs"} {
		text, err := os.ReadFile(filepath.Join("testdata", "node", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir, cmd.WaitDelay = dir, time.Second
		cmd.Env = append(os.Environ(), "ISSUER=http://"+w.gate, "ACCESS_KEY="+string(c.AccessKey), "SECRET_KEY="+c.SecretKey.Reveal(),
			"API_KEY="+c.APIKey.Reveal(), "RESOURCE="+resource)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		} else if testing.Verbose() {
			t.Logf("%s", out)
		}
	}
	run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--omit-lockfile-registry-resolved=true")
	run("node", "interoperation.mjs")
}
