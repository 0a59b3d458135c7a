// Package managementapi is the REST API over keystore.Service as a net/http
// handler. It translates: every rule about keys stands in package keystore.
// Who the caller is, the mount says; what each route asks of the caller
// stands in one table (routes.go), what each error looks like in another
// (errors.go).
package managementapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Config is what a mount supplies.
type Config struct {
	Service     *keystore.Service
	SigningKeys SigningKeys // nil: no access tokens are issued
	Rotation    Rotation    // nil: likewise
	Nodes       Nodes
	Maintenance Maintenance // nil: not here

	// Caller says on whose behalf a request comes. An error refuses the
	// request and is looked up in the tables of errors.go; a
	// *TooManyRequestsError says when to come again.
	Caller func(*http.Request) (keystore.Caller, error)

	// Ready says whether this node may decide at now: ErrStarting,
	// ErrStopping, keystore.ErrStale, keystore.ErrUnavailable. stale: it does
	// so on what may be too old.
	Ready func(ctx context.Context, now time.Time) (stale bool, err error)

	// Explain says what a gate would do with a request. It counts nothing,
	// and takes nothing from any limit.
	Explain func(ctx context.Context, in Inquiry, now time.Time) Verdict

	// Prefix is where the routes live, such as "/v1" or "/warder/v1".
	Prefix string

	// Version is what the API says of itself.
	Version string

	// Log receives the operator's text of what the caller is not told.
	Log func(*http.Request, error)
}

// API serves the routes. It keeps no state of its own.
type API struct {
	Config
	mux      *http.ServeMux
	document json.RawMessage
}

// New returns the API of a mount.
func New(cfg Config) *API {
	a := &API{Config: cfg, mux: http.NewServeMux(), document: documentAt(cfg.Prefix)}
	for _, rt := range routes {
		a.mux.HandleFunc(rt.method+" "+cfg.Prefix+rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			a.run(w, r, rt)
		})
	}
	return a
}

// call is a request that was let in: the caller holds the route's scope, and
// the body is one strict JSON object.
type call struct {
	*http.Request
	route     route
	caller    keystore.Caller
	attempted bool // a verb of the service was reached
	query     map[string]string
	wait      time.Duration // until every node has seen the change; zero: the caller does not
	body      object
	now       time.Time
}

// attempt returns the caller for a verb that changes something: from there on
// a refusal is in the audit log already.
func (c *call) attempt() keystore.Caller {
	c.attempted = true
	return c.caller
}

// answer is written only when it is complete, so that a failure can still
// become a proper refusal.
type answer struct {
	status   int // zero: 200
	body     any
	revision keystore.Revision // the ETag; zero: none
	location string            // below the prefix
	replayed bool
	seen     *Seen         // nil: nobody has waited
	stream   io.ReadCloser // in place of the body
}

// ServeHTTP refuses what comes from another site before anything else.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer a.recover(w, r)
	h := w.Header()
	h.Set("Cache-Control", "no-store") // answers show secrets, and never outlive a revocation
	h.Set("X-Content-Type-Options", "nosniff")
	if err := CheckOrigin(r); err != nil {
		a.refuse(w, r, err)
		return
	}
	if err := a.checkRoute(h, r); err != nil {
		a.refuse(w, r, err)
		return
	}
	a.mux.ServeHTTP(w, r)
}

func (a *API) run(w http.ResponseWriter, r *http.Request, rt route) {
	ans, err := a.answer(w, r, rt)
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	if ans.stream != nil {
		a.stream(w, r, ans.stream)
		return
	}
	a.write(w, r, ans)
}

func (a *API) answer(w http.ResponseWriter, r *http.Request, rt route) (answer, error) {
	c := &call{Request: r, route: rt, now: time.Now()}
	ans, err := a.attend(w, c)
	if err != nil {
		a.note(c, err)
		return ans, err
	}
	if c.wait > 0 {
		ans.seen, err = a.await(c)
	}
	return ans, err
}

// attend authorizes before it reads a byte of the body.
func (a *API) attend(w http.ResponseWriter, c *call) (ans answer, err error) {
	if c.route.scope != anybody {
		if c.caller, err = a.Caller(c.Request); err != nil {
			return ans, &CallerError{err}
		}
		if err := c.route.admits(c.caller); err != nil {
			return ans, err
		}
	}
	if c.query, err = parameters(c.URL.RawQuery, c.route.parameters()); err != nil {
		return ans, err
	}
	if c.wait, err = waitOf(c.query); err != nil {
		return ans, err
	}
	if c.body, err = readObject(w, c.Request); err != nil {
		return ans, err
	}
	return c.route.handle(a, c)
}

// note keeps a refusal that no verb has met with in the audit log, if it is
// known whose it is. What quotes the request is left out: a secret could
// stand where a name should.
func (a *API) note(c *call, err error) {
	quotes := errors.Is(err, errUnknownField) || errors.Is(err, errDuplicateField)
	if !c.route.changes() || c.attempted || c.caller.Actor == "" || quotes {
		return
	}
	a.Service.Refused(c.Context(), c.caller, c.route.operation, err)
}

func (a *API) write(w http.ResponseWriter, r *http.Request, ans answer) {
	body, err := encode(ans.body)
	if err == nil && ans.seen != nil {
		body, err = joined(body, *ans.seen)
	}
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if ans.revision != 0 {
		h.Set("ETag", etag(ans.revision))
	}
	if ans.location != "" {
		h.Set("Location", a.Prefix+ans.location)
	}
	if ans.replayed {
		h.Set("Idempotent-Replayed", "true")
	}
	w.WriteHeader(max(ans.status, http.StatusOK))
	_, _ = w.Write(body) // a caller that has gone cannot be told
}

// recover answers a panic like any unknown failure: its text is for the
// operator.
func (a *API) recover(w http.ResponseWriter, r *http.Request) {
	switch v := recover(); v {
	case nil:
	case http.ErrAbortHandler:
		panic(v)
	default:
		a.refuse(w, r, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
	}
}

func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	_, notReady := errors.AsType[*NotReadyError](err) // as often as it is asked for; that it came so is told elsewhere
	if ProblemOf(err).Status >= http.StatusInternalServerError && !notReady && a.Log != nil {
		a.Log(r, err)
	}
	WriteError(w, err)
}

// checkRoute answers 404 and 405 in place of the mux, which would speak plain
// text, and would redirect a path that is not in normal form.
func (a *API) checkRoute(h http.Header, r *http.Request) error {
	if !isNormalPath(r.URL.EscapedPath()) {
		return errNoRoute
	}
	handler, pattern := a.mux.Handler(r)
	if pattern != "" {
		return nil
	}
	probe := probeWriter{header: make(http.Header)}
	handler.ServeHTTP(&probe, r)
	if allow := probe.header.Get("Allow"); allow != "" {
		h.Set("Allow", allow)
		return ErrMethod
	}
	return errNoRoute
}

// probeWriter hears what the mux would answer, and writes nothing.
type probeWriter struct{ header http.Header }

func (p *probeWriter) Header() http.Header         { return p.header }
func (p *probeWriter) Write(b []byte) (int, error) { return len(b), nil }
func (p *probeWriter) WriteHeader(int)             {}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding an answer: %w", err)
	}
	return b.Bytes(), nil
}

// Interface guards.
var (
	_ http.Handler        = (*API)(nil)
	_ http.ResponseWriter = (*probeWriter)(nil)
)
