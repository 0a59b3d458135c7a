package caddymodule

import (
	"context"
	"math/rand/v2"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/warderhq/warder/keystore"
)

// gate is what the handlers of one configuration share: the authenticator
// under this configuration's policies, and the account of its decisions.
type gate struct {
	authenticator keystore.Authenticator
	authorizer    keystore.Authorizer
	directory     *keystore.Directory
	metrics       *metrics
	headers       metadataHeaders
	announcer     *announcer
	samples       *rate.Limiter // of refusals told to logs and subscribers
}

// Refusals come as fast as an attacker sends them. At most so many a second
// are logged and told to subscribers; the metrics count them all.
const refusalsPerSecond = 10

func newGate(a *App) *gate {
	return &gate{
		authenticator: keystore.Authenticator{
			View: a.engine.view, Credentials: a.engine.credentials, Tokens: a.Issuer.verifier(), Settings: a.engine.settings,
			Freshness: a.freshness(),
		},
		authorizer: keystore.Authorizer{Directory: a.engine.directory, Rulebook: a.engine.rulebook},
		directory:  a.engine.directory,
		metrics:    a.engine.metrics,
		headers:    newMetadataHeaders(),
		announcer:  a.engine.announcer,
		samples:    rate.NewLimiter(refusalsPerSecond, refusalsPerSecond),
	}
}

// metadata returns the metadata header of a key.
func (g *gate) metadata(key *keystore.Record) string {
	return g.headers.of(key, g.directory.Organization(key.Organization))
}

// fresh says whether this process may trust what it has in memory.
func (g *gate) fresh(ctx context.Context, now time.Time) error {
	return g.authenticator.View.Await(ctx, now, g.authenticator.Freshness)
}

// permit asks the key's networks and permissions: ErrNetwork, ErrPermission.
// A request that asks to be taken for another method needs that one permitted,
// too: nobody knows which of them the API behind believes.
func (g *gate) permit(r *http.Request, t *keystore.Trace, p *keystore.Principal) error {
	access := keystore.Access{Method: r.Method, Path: rulePath(r), Trace: t}
	if p.Record.Networks != "" { // few keys have any, and to read the address costs as much as all the rest
		access.From = clientAddress(r)
	}
	err := g.authorizer.Permit(p, access)
	if err != nil || !g.authorizer.Restricts(p) {
		return err
	}
	for _, access.Method = range overridingMethods(r.Header) {
		if err := g.authorizer.Permit(p, access); err != nil {
			return err
		}
	}
	return nil
}

// spend takes the request from the caller's limit: *keystore.LimitedError. One
// with a trace is only asked about.
func (g *gate) spend(t *keystore.Trace, p *keystore.Principal, now time.Time) error {
	t.At(keystore.CheckLimit)
	left, ok := keystore.Allowance{}, false
	if t == nil {
		left, ok = g.authorizer.Spend(p, now)
	} else {
		left, ok = g.authorizer.Left(p, now)
	}
	if !ok {
		return &keystore.LimitedError{Allowance: left}
	}
	return nil
}

// passed counts a request that goes on to the next handler.
func (g *gate) passed(kind keystore.CredentialKind) { g.metrics.admitted[kind].Inc() }

// One decision in so many is timed, drawn at random: to read the clock a second
// time would cost every request more than to count it does.
const decisionsPerTimed = 16

// took notes, of a sample, how long a decision took that began at began.
func (g *gate) took(began time.Time) {
	if rand.Uint32()%decisionsPerTimed == 0 {
		g.metrics.decisions.Observe(time.Since(began).Seconds())
	}
}

// refused counts a refusal, and tells of a sample of them.
func (g *gate) refused(r *http.Request, logger *zap.Logger, f *refusal, p keystore.Principal, err error) {
	g.metrics.refused[f.outcome()].Inc()
	if f.usage != keystore.OutcomeAllowed && principalOf(r) == nil { // else it was counted as it passed the first handler
		p.Meter.Refuse(f.usage)
	}
	if !g.samples.AllowN(time.Now(), 1) {
		return
	}
	data := map[string]any{"reason": f.outcome()}
	fields := []zap.Field{zap.String("reason", f.outcome()), zap.Error(err)}
	if p.Record != nil {
		data["key_id"], data["organization"] = string(p.Record.ID), p.Record.Organization
		fields = append(fields, zap.String("key_id", string(p.Record.ID)), zap.String("organization", p.Record.Organization))
	}
	if f.status == http.StatusServiceUnavailable && r.Context().Err() == nil { // else: the caller has left
		logger.Error("request could not be decided", fields...)
	} else {
		logger.Info("request refused", fields...)
	}
	g.announcer.announce("key_refused", data)
}
