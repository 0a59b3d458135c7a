package caddymodule

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// explain asks a gate of this configuration, with no other options than what
// it requires, about a request that nobody has sent. The checks are the gate's
// own.
func (a *App) explain(ctx context.Context, in managementapi.Inquiry, now time.Time) managementapi.Verdict {
	h := &Handler{app: a, gate: a.gate, CredentialHeader: authorization, RequireScopes: in.Scopes, types: in.Types}
	v := managementapi.Verdict{Trace: keystore.Trace{Waived: waived(in)}}
	r := h.request(ctx, in)
	if presented, err := h.readCredential(r.Header); err == nil {
		v.Kind = presented.Kind
	}
	p, err := keystore.Principal{}, error(nil)
	if v.Trace.At(keystore.CheckPath) {
		err = normalise(r, false)
	}
	if err == nil {
		p, err = h.judge(r, &v.Trace, now)
	}
	if v.Key = p.Record; err != nil {
		f := refusalOf(err)
		v.Refuse = &managementapi.Refusal{Status: f.status, Code: f.code, Reason: f.reason, Detail: f.detail}
	}
	if v.Refuse != nil && v.Trace.Last() == keystore.CheckSecret {
		v.Key = h.owner(r, now)
	}
	return v
}

// waived are the checks for which nobody has said what they need.
func waived(in managementapi.Inquiry) (all []keystore.Check) {
	if in.Path == "" {
		all = append(all, keystore.CheckPath, keystore.CheckPermission)
	}
	if !in.From.IsValid() {
		all = append(all, keystore.CheckNetwork)
	}
	if len(in.Types) == 0 {
		all = append(all, keystore.CheckType)
	}
	if len(in.Scopes) == 0 {
		all = append(all, keystore.CheckScope)
	}
	return all
}

// request is what would be sent. A path that cannot be one is as ambiguous as
// any.
func (h *Handler) request(ctx context.Context, in managementapi.Inquiry) *http.Request {
	ctx = context.WithValue(ctx, caddyhttp.VarsCtxKey, map[string]any{caddyhttp.ClientIPVarKey: in.From.String()})
	r := &http.Request{Method: in.Method, URL: new(url.URL), RequestURI: in.Path, Header: http.Header{}}
	if u, err := url.ParseRequestURI(in.Path); err == nil {
		r.URL = u
	}
	if value := h.authorization(in.Credential.Reveal()); value != "" {
		r.Header[authorization] = []string{value}
	}
	return r.WithContext(ctx)
}

// authorization returns the header that carries what somebody has pasted: the
// value of one already, a pair, or what stands alone.
func (h *Handler) authorization(pasted string) string {
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(pasted))
	_, notPair := keystore.ParseAuthorization(h.app.Prefix, basic)
	switch {
	case pasted == "" || strings.Contains(pasted, " "):
		return pasted
	case notPair == nil:
		return basic
	default:
		return "Bearer " + pasted
	}
}

// owner returns whose access key stands beside a secret that is not its.
func (h *Handler) owner(r *http.Request, now time.Time) *keystore.Record {
	presented, err := h.readCredential(r.Header)
	if err != nil {
		return nil
	}
	rec, err := h.gate.authenticator.View.Record(r.Context(), keystore.LookupID(presented.Access), now)
	if err != nil || rec.ID == "" {
		return nil
	}
	return rec
}
