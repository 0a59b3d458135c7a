package caddymodule

import (
	"errors"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
	"github.com/warderhq/warder/tokenissuer"
)

// callers says who calls the management API on a site, by the same decision
// that a gate makes, and bounds how often each may call. Only access tokens for
// the issuer's own audience name one: those for another have been seen by
// whoever serves that.
type callers struct {
	gate          *gate
	guesses       *tokenissuer.Guesses   // those at the issuer's endpoints among them
	authenticator keystore.Authenticator // the gate's, but for tokens of other audiences
	prefix        string                 // of API keys
	limit         keystore.Limit
	limiters      *lru.Cache[keystore.KeyID, *rate.Limiter]
	logger        *zap.Logger
}

// maxLimiters is how many callers are remembered. Only who has proved to be
// one is among them.
const maxLimiters = 4096

func newCallers(app *App, limit keystore.Limit, logger *zap.Logger) *callers {
	limiters, err := lru.New[keystore.KeyID, *rate.Limiter](maxLimiters)
	if err != nil {
		panic(err) // only a size below 1 fails
	}
	c := &callers{app.gate, app.engine.guesses, app.gate.authenticator, app.Prefix, limit, limiters, logger}
	c.authenticator.Tokens = app.Issuer.ownVerifier()
	return c
}

// caller identifies who sends a request by its one Authorization header. There
// is no other way: a browser sends none of its own accord.
func (c *callers) caller(r *http.Request) (keystore.Caller, error) {
	switch values := r.Header[authorization]; len(values) {
	case 0:
		return keystore.Caller{}, keystore.ErrNoCredential
	case 1:
		return c.identify(r, values[0])
	default:
		return keystore.Caller{}, keystore.ErrMalformed
	}
}

// identify returns the caller whose credential reads so in an Authorization
// header: an API key, its pair, or an access token, which grants no more than
// its own scopes.
func (c *callers) identify(r *http.Request, authorization string) (keystore.Caller, error) {
	presented, err := keystore.ParseAuthorization(c.prefix, authorization)
	if err != nil {
		return keystore.Caller{}, err
	}
	p, err := c.authenticate(r, presented)
	if err != nil {
		return keystore.Caller{}, err
	}
	caller := keystore.Caller{Actor: string(p.Record.ID), Organization: p.Record.Organization, Scopes: p.Scopes}
	if from := clientAddress(r); from.IsValid() {
		caller.From = from.String()
	}
	return caller, nil
}

// authenticate returns whose credential it is, if it may be used from where
// the request comes, and not more often than the limit says. Such use counts
// as any other.
func (c *callers) authenticate(r *http.Request, presented keystore.Presented) (keystore.Principal, error) {
	now := time.Now()
	p, err := c.prove(r, presented, now)
	if err == nil && !p.Record.Networks.Contain(clientAddress(r)) {
		err = keystore.ErrNetwork
	}
	if err != nil {
		c.refused(p, err)
		return keystore.Principal{}, err
	}
	if err := c.spend(p.Record.ID, now); err != nil {
		return keystore.Principal{}, err
	}
	p.Meter.Pass(p.Generation, now)
	return p, nil
}

// prove does not hear who has given too many wrong secrets of this key from
// this address, right or wrong.
func (c *callers) prove(r *http.Request, presented keystore.Presented, now time.Time) (keystore.Principal, error) {
	if presented.Kind != keystore.CredentialKey { // nobody guesses a signature
		return c.authenticator.Authenticate(r.Context(), presented, now)
	}
	from := clientAddress(r)
	if wait := c.guesses.Wait(from, presented.Access, now); wait > 0 {
		return keystore.Principal{}, &managementapi.TooManyRequestsError{RetryAfter: wait}
	}
	p, err := c.authenticator.Authenticate(r.Context(), presented, now)
	if errors.Is(err, keystore.ErrInvalid) {
		c.guesses.Failed(from, presented.Access, now)
	}
	return p, err
}

// refused counts a refusal of a key that is known, and tells of a sample of all.
func (c *callers) refused(p keystore.Principal, err error) {
	f := refusalOf(err)
	if f.usage != keystore.OutcomeAllowed {
		p.Meter.Refuse(f.usage)
	}
	if !c.gate.samples.Allow() {
		return
	}
	fields := []zap.Field{zap.String("reason", f.outcome()), zap.Error(err)}
	if p.Record != nil {
		fields = append(fields, zap.String("key_id", string(p.Record.ID)), zap.String("organization", p.Record.Organization))
	}
	c.logger.Info("management call refused", fields...)
}

// spend takes a call from what the caller has left.
func (c *callers) spend(id keystore.KeyID, now time.Time) error {
	limiter, known := c.limiters.Get(id)
	if !known {
		perSecond := rate.Limit(float64(c.limit.Requests) / c.limit.Period.Seconds())
		limiter = rate.NewLimiter(perSecond, int(c.limit.Burst))
		if earlier, ok, _ := c.limiters.PeekOrAdd(id, limiter); ok {
			limiter = earlier
		}
	}
	taken := limiter.ReserveN(now, 1)
	if wait := taken.DelayFrom(now); wait > 0 {
		taken.CancelAt(now)
		return &managementapi.TooManyRequestsError{RetryAfter: wait}
	}
	return nil
}
