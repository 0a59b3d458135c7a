package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/warderhq/warder/tokenissuer"
)

func init() {
	caddy.RegisterModule(IssuerHandler{})
}

// IssuerHandler serves exactly the issuer's own paths: the token endpoint
// (/token), introspection (/introspect, RFC 7662) and revocation (/revoke, RFC
// 7009), the JWKS (/.well-known/jwks.json) and the metadata of RFC 8414
// (/.well-known/oauth-authorization-server). Everything else goes on to the
// next handler.
type IssuerHandler struct {
	// Moves the paths below a prefix, as in "/auth".
	PathPrefix string `json:"path_prefix,omitempty"`

	endpoints *tokenissuer.Endpoints
	gate      *gate
	logger    *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (IssuerHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.warder_issuer",
		New: func() caddy.Module { return new(IssuerHandler) },
	}
}

// Provision binds the endpoints to the warder app's issuer.
func (h *IssuerHandler) Provision(ctx caddy.Context) error {
	app, err := appOf(ctx)
	if err != nil {
		return err
	}
	if app.Issuer == nil {
		return errors.New("warder_issuer: the warder app has no issuer; set the global option warder { issuer <url> }")
	}
	app.noteListeners(ctx)
	h.gate, h.logger = app.gate, ctx.Logger()
	h.endpoints, err = tokenissuer.NewEndpoints(tokenissuer.EndpointsConfig{
		Issuer: app.Issuer.issuer, Authenticator: &h.gate.authenticator, Revocations: app.engine.revocations,
		Guesses: app.engine.guesses, Peer: clientAddress, KeyPrefix: app.Prefix, PathPrefix: h.PathPrefix,
		Fresh: h.gate.fresh, Observe: h.observe,
	})
	if err != nil {
		return fmt.Errorf("warder_issuer: %w", err)
	}
	return nil
}

// ServeHTTP answers on the issuer's paths.
func (h *IssuerHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !h.endpoints.Serves(r.URL.Path) {
		return next.ServeHTTP(w, r)
	}
	h.endpoints.ServeHTTP(w, r)
	return nil
}

// tokenOutcomes are the labels under which calls are counted.
var tokenOutcomes = []tokenissuer.Outcome{
	tokenissuer.OutcomeMinted, tokenissuer.OutcomeIntrospected, tokenissuer.OutcomeRevoked, tokenissuer.OutcomeNotRevoked,
	tokenissuer.OutcomeInvalidRequest, tokenissuer.OutcomeInvalidClient, tokenissuer.OutcomeInvalidScope,
	tokenissuer.OutcomeInvalidTarget, tokenissuer.OutcomeUnsupportedGrant, tokenissuer.OutcomeUnsupportedToken,
	tokenissuer.OutcomeTooMany, tokenissuer.OutcomeUnavailable, tokenissuer.OutcomeServerError,
}

func (h *IssuerHandler) observe(_ context.Context, o tokenissuer.Observation) {
	if counter, ok := h.gate.metrics.tokens[o.Outcome]; ok {
		counter.Inc()
	}
	switch o.Outcome {
	case tokenissuer.OutcomeUnavailable, tokenissuer.OutcomeServerError:
		h.logger.Error("token request could not be answered", zap.Error(o.Err))
	case tokenissuer.OutcomeMinted:
		h.logger.Debug("access token minted", zap.String("key_id", string(o.Key)), zap.String("jti", o.TokenID))
	case tokenissuer.OutcomeIntrospected, tokenissuer.OutcomeNotRevoked:
		// Counted, and as frequent as requests.
	case tokenissuer.OutcomeRevoked:
		h.logger.Debug("access token revoked here", zap.String("by_key_id", string(o.Key)), zap.String("jti", o.TokenID)) // the change is told as any
	default:
		if h.gate.samples.Allow() {
			h.logger.Info("token request refused", zap.String("reason", string(o.Outcome)), zap.Error(o.Err))
		}
	}
}

// Interface guards.
var (
	_ caddy.Provisioner           = (*IssuerHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*IssuerHandler)(nil)
)
