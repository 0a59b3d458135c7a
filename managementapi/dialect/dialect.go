// Package dialect speaks the wires of existing systems over the same service
// as the REST API, so that their published clients and scripts work when only
// their base URL is changed. A dialect translates: it keeps nothing, and every
// rule about keys stands in package keystore. Each system is one file: its
// calls, how it names a credential, and its words for a refusal.
package dialect

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
	"github.com/warderhq/warder/tokenissuer"
)

// Config is what a mount supplies.
type Config struct {
	Service     *keystore.Service
	SigningKeys managementapi.SigningKeys // nil: no access tokens are issued
	Rotation    managementapi.Rotation    // nil: likewise
	Tokens      Tokens                    // nil: none are given out here

	// Identify says on whose behalf a request comes, whose credential would
	// read so in an Authorization header at the gate. An error refuses it.
	Identify func(r *http.Request, authorization string) (keystore.Caller, error)

	// Authenticate proves a pair that stands in a body.
	Authenticate func(*http.Request, keystore.Presented) (keystore.Principal, error)

	// Prefix is the mount, such as "/client/v4"; it may be empty.
	Prefix string

	// Accounts are what Cloudflare's clients may call this store; without any
	// it is DefaultAccount.
	Accounts []string

	// Log receives the operator's text of what the caller is not told.
	Log func(*http.Request, error)
}

// Tokens gives out access tokens that live for as long as the dialect
// promises. A *tokenissuer.Issuer is one.
type Tokens interface {
	Mint(p keystore.Principal, scopes keystore.Scopes, now time.Time, resources ...string) (tokenissuer.Minted, error)
	Ends(token string, now time.Time) (time.Time, error)
}

// Dialect serves the calls of one system.
type Dialect struct {
	Config
	language
}

// language is what one system says in its own way.
type language struct {
	roots      []string // where its paths begin, below the prefix
	routes     []route
	credential func(http.Header) (string, error) // as in an Authorization header at the gate; empty: none
	refuse     func(refusal, http.Header) (status int, body any)
}

// route is one row of a language's table. A row that needs nothing by
// omission lets nobody in.
type route struct {
	method    string
	pattern   string // below the prefix; {name} is one segment
	needs     string // the scope that the caller has to hold, at least
	operation string // as the audit log calls it
	handle    func(*Dialect, *call) (any, error)
	repair    func([]byte) []byte // of a body that is known to come broken; may be nil
}

// What a row may need instead of a scope.
const (
	needsCredential = "any credential"
	needsNothing    = "nothing"
)

// answerTimeout bounds how long a call waits for the store.
const answerTimeout = 10 * time.Second

// New returns the dialect called name: cloudflare, f5xc, lyve or ricloud.
func New(name string, cfg Config) (*Dialect, error) {
	spoken, ok := map[string]language{"cloudflare": cloudflare, "f5xc": f5xc, "lyve": lyve, "ricloud": ricloud}[name]
	if !ok {
		return nil, fmt.Errorf("unknown dialect %q: must be cloudflare, f5xc, lyve or ricloud", name)
	}
	if cfg.Prefix != "" && (cfg.Prefix[0] != '/' || strings.HasSuffix(cfg.Prefix, "/") || !isPlainPath(cfg.Prefix)) {
		return nil, fmt.Errorf("prefix %q: must be like /client/v4, of letters, digits and -._~", cfg.Prefix)
	}
	if len(cfg.Accounts) == 0 {
		cfg.Accounts = []string{DefaultAccount}
	}
	for _, account := range cfg.Accounts {
		if len(account) > maxAccount || account == "" || !isPlainPath(account) || strings.Contains(account, "/") {
			return nil, fmt.Errorf("account %q: must be 1 to %d letters, digits and -._~", account, maxAccount)
		}
	}
	return &Dialect{cfg, spoken}, nil
}

// isPlainPath: neither a client nor a proxy writes such a path differently.
func isPlainPath(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("-._~/", c) < 0 {
			return false
		}
	}
	return true
}

// Places are where the paths of the dialect begin: its prefix, or without one
// what its system's paths begin with.
func (d *Dialect) Places() []string {
	if d.Prefix != "" {
		return []string{d.Prefix}
	}
	return d.roots
}

// Serves reports whether a path belongs to the dialect: whether it is one of
// Places or below one.
func (d *Dialect) Serves(path string) bool {
	return slices.ContainsFunc(d.Places(), func(place string) bool { return isBelow(path, place) })
}

func isBelow(path, root string) bool {
	rest, found := strings.CutPrefix(path, root)
	return found && (rest == "" || rest[0] == '/')
}

// call is a request on its way through the dialect.
type call struct {
	*http.Request
	route         *route
	path          map[string]string // what stands for the names of the pattern
	authorization string
	caller        keystore.Caller
	attempted     bool // a verb of the service was reached
	raw           []byte
	body          object
	now           time.Time
}

// attempt returns the caller for a verb that changes something: from there on
// a refusal is in the audit log already.
func (c *call) attempt() keystore.Caller {
	c.attempted = true
	return c.caller
}

func (c *call) changes() bool { return c.Method != http.MethodGet && c.Method != http.MethodHead }

// organization is the one that the dialect speaks of to its caller.
func (c *call) organization() string {
	if c.caller.Organization == "" {
		return keystore.DefaultOrganization
	}
	return c.caller.Organization
}

// once makes the call repeatable if it carries an Idempotency-Key; else nil.
func (c *call) once() (*keystore.Once, error) {
	key, err := managementapi.IdempotencyKey(c.Header)
	if err != nil || key == "" {
		return nil, err
	}
	return &keystore.Once{
		Key: key, Route: c.Method + " " + strings.TrimSuffix(c.URL.Path, "/"), Request: sha256.Sum256(c.raw),
	}, nil
}

// ServeHTTP refuses what comes from another site before anything else.
func (d *Dialect) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Request: r, now: time.Now()}
	defer d.recover(w, c)
	h := w.Header()
	h.Set("Cache-Control", "no-store, no-transform") // secrets are shown, and some clients drop an error that came compressed
	h.Set("X-Content-Type-Options", "nosniff")
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	c.Request = r.WithContext(ctx)
	answer, err := d.answer(w, c)
	if err != nil {
		d.sayNo(w, c, err)
		return
	}
	write(w, http.StatusOK, answer)
}

func (d *Dialect) answer(w http.ResponseWriter, c *call) (any, error) {
	if err := managementapi.CheckOrigin(c.Request); err != nil {
		return nil, err
	}
	if err := d.find(c); err != nil {
		return nil, err
	}
	if err := d.admit(c); err != nil {
		d.note(c, err)
		return nil, err
	}
	if err := c.read(w); err != nil {
		return nil, err // may quote the body, in which a secret could stand: not for the audit log
	}
	answer, err := c.route.handle(d, c)
	if err != nil {
		d.note(c, err)
	}
	return answer, err
}

// find looks for the row. A slash at the end makes no difference.
func (d *Dialect) find(c *call) error {
	rest, found := strings.CutPrefix(c.URL.EscapedPath(), d.Prefix)
	if !found {
		return errNoRoute
	}
	segments := strings.Split(strings.TrimSuffix(rest, "/"), "/")
	other := methodError{}
	for i := range d.routes {
		rt := &d.routes[i]
		path, ok := rt.match(segments)
		switch {
		case !ok:
		case rt.method == c.Method || rt.method == http.MethodGet && c.Method == http.MethodHead:
			c.route, c.path = rt, path
			return nil
		default:
			other = append(other, rt.method)
		}
	}
	if len(other) > 0 {
		return other
	}
	return errNoRoute
}

// match returns what stands for the names of the pattern.
func (rt *route) match(segments []string) (map[string]string, bool) {
	names := strings.Split(rt.pattern, "/")
	if len(names) != len(segments) {
		return nil, false
	}
	path := make(map[string]string)
	for i, name := range names {
		if !strings.HasPrefix(name, "{") {
			if name != segments[i] {
				return nil, false
			}
			continue
		}
		value, err := url.PathUnescape(segments[i])
		if err != nil || value == "" {
			return nil, false
		}
		path[strings.Trim(name, "{}")] = value
	}
	return path, true
}

// admit identifies the caller before a byte of the body is read.
func (d *Dialect) admit(c *call) error {
	if c.route.needs == needsNothing {
		return nil
	}
	var err error
	if c.authorization, err = d.credential(c.Header); err != nil {
		return &managementapi.CallerError{Err: err}
	}
	if c.authorization == "" {
		return &managementapi.CallerError{Err: keystore.ErrNoCredential}
	}
	if c.caller, err = d.Identify(c.Request, c.authorization); err != nil {
		return &managementapi.CallerError{Err: err}
	}
	if c.route.needs != needsCredential && !c.caller.Scopes.Grants(c.route.needs) {
		return keystore.ErrForbidden
	}
	return nil
}

// read takes a body for JSON whatever it is declared as: one client declares
// nothing, and curl declares a form. None is as good as an empty object.
func (c *call) read(w http.ResponseWriter) (err error) {
	if c.raw, err = managementapi.ReadBody(w, c.Request); err != nil {
		return err
	}
	text := c.raw
	if c.route.repair != nil {
		text = c.route.repair(text)
	}
	c.body, err = managementapi.ParseObject(text)
	return err
}

// note keeps a refusal that no verb has met with in the audit log, if it is
// known whose it is.
func (d *Dialect) note(c *call, err error) {
	if c.changes() && c.caller.Actor != "" && !c.attempted {
		d.Service.Refused(c.Context(), c.caller, c.route.operation, err)
	}
}

// sayNo answers err in the dialect's words.
func (d *Dialect) sayNo(w http.ResponseWriter, c *call, err error) {
	no := newRefusal(c, err)
	if no.problem.Status >= http.StatusInternalServerError && d.Log != nil {
		d.Log(c.Request, err)
	}
	status, body := d.refuse(no, w.Header())
	no.setHeaders(w.Header(), status)
	write(w, status, body)
}

// write sends a whole answer with its length: nothing is chunked. nil is an
// empty body.
func write(w http.ResponseWriter, status int, body any) {
	var text []byte
	if body != nil {
		var err error
		if text, err = encode(body); err != nil {
			panic(err) // our own types do encode
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // a caller that has gone cannot be told
}

// recover answers a panic like any unknown failure: its text is for the
// operator.
func (d *Dialect) recover(w http.ResponseWriter, c *call) {
	switch v := recover(); v {
	case nil:
	case http.ErrAbortHandler:
		panic(v)
	default:
		d.sayNo(w, c, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
	}
}

// keys returns all keys of an organization. What a system without pages lists
// is bounded all the same.
func (d *Dialect) keys(c *call, q keystore.Query) ([]keystore.Record, error) {
	var all []keystore.Record
	q.Limit = 1000
	for {
		page, err := d.Service.ListKeys(c.Context(), c.caller, q)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Records...)
		if !page.More || len(page.Records) == 0 {
			return all, nil
		}
		if len(all) >= maxListed {
			return nil, errTooMany
		}
		q.After = all[len(all)-1].Number
	}
}

const maxListed = 100_000

// stamp is an instant as it goes over the wire: RFC 3339, UTC, whole seconds;
// null if it is not set.
type stamp keystore.Instant

// MarshalJSON implements json.Marshaler.
func (s stamp) MarshalJSON() ([]byte, error) {
	if s == 0 {
		return []byte("null"), nil
	}
	return []byte(keystore.Instant(s).Time().Truncate(time.Second).Format(`"` + time.RFC3339 + `"`)), nil
}

// Interface guards.
var (
	_ http.Handler   = (*Dialect)(nil)
	_ json.Marshaler = stamp(0)
	_ Tokens         = (*tokenissuer.Issuer)(nil)
)
