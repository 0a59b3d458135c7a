package dialect

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Cloudflare: the rotation of the keys that sign access tokens. Its SDKs
// repeat what is answered with 409, 429 or 5xx, even a POST.

const (
	// DefaultAccount is what Cloudflare's clients call the store unless told
	// otherwise.
	DefaultAccount = "default"

	maxAccount = 32
)

const (
	cloudflareKeys     = "/accounts/{account}/access/keys"
	cloudflareInterval = "/key_rotation_interval_days" // the pointer to the one field
)

var cloudflare = language{
	roots: []string{"/accounts"},
	routes: []route{
		{http.MethodGet, cloudflareKeys, keystore.ScopeAdmin, "signing_keys.read", readSigningRotation, nil},
		{http.MethodPut, cloudflareKeys, keystore.ScopeAdmin, "signing_keys.interval", setSigningInterval, nil},
		{http.MethodPost, cloudflareKeys + "/rotate", keystore.ScopeAdmin, "signing_keys.rotate", rotateSigningKeys, nil},
	},
	credential: cloudflareCredential,
	refuse:     cloudflareRefusal,
}

// cloudflareCredential takes an API key out of X-Auth-Key, if it stands there
// instead of in Authorization; X-Auth-Email beside it proves nothing.
func cloudflareCredential(h http.Header) (string, error) {
	authorization, err := onlyAuthorization(h)
	keys := h.Values("X-Auth-Key")
	switch {
	case err != nil || len(keys) == 0:
		return authorization, err
	case len(keys) > 1 || authorization != "":
		return "", keystore.ErrMalformed
	default:
		return "Bearer " + keys[0], nil
	}
}

// signingRotation is the one object of this dialect.
type signingRotation struct {
	Interval keystore.Days `json:"key_rotation_interval_days"`
	Until    int           `json:"days_until_next_rotation"`
	Last     stamp         `json:"last_key_rotation_at"`
}

type cloudflareEnvelope struct {
	Success  bool              `json:"success"`
	Errors   []cloudflareError `json:"errors"`
	Messages []struct{}        `json:"messages"`
	Result   any               `json:"result"`
}

type cloudflareError struct {
	Code             int               `json:"code"`
	Message          string            `json:"message"`
	DocumentationURL string            `json:"documentation_url"`
	Source           *cloudflareSource `json:"source,omitempty"`
}

type cloudflareSource struct {
	Pointer string `json:"pointer"`
}

func readSigningRotation(d *Dialect, c *call) (any, error) {
	if err := d.cloudflareAccount(c); err != nil {
		return nil, err
	}
	return d.signingRotation(c.now)
}

// setSigningInterval does not rotate.
func setSigningInterval(d *Dialect, c *call) (any, error) {
	if err := d.cloudflareAccount(c); err != nil {
		return nil, err
	}
	days, err := askedInterval(c.body)
	if err != nil {
		return nil, err
	}
	if _, err := d.Rotation.SetInterval(c.Context(), c.caller.Attribution(c.route.operation), days, c.now); err != nil {
		return nil, blame(err, "/interval_days", cloudflareInterval)
	}
	return committed(d.signingRotation(c.now))
}

func rotateSigningKeys(d *Dialect, c *call) (any, error) {
	if err := d.cloudflareAccount(c); err != nil {
		return nil, err
	}
	if _, err := d.Rotation.Rotate(c.Context(), c.caller.Attribution(c.route.operation), c.now); err != nil {
		return nil, err
	}
	return committed(d.signingRotation(time.Now()))
}

// committed makes sure that nobody is told to repeat what was done.
func committed(answer any, err error) (any, error) {
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keystore.ErrNotInForce, err)
	}
	return answer, nil
}

func (d *Dialect) cloudflareAccount(c *call) error {
	switch {
	case !slices.Contains(d.Accounts, c.path["account"]):
		return errNoRoute
	case d.SigningKeys == nil || d.Rotation == nil:
		return errNoTokens
	default:
		return nil
	}
}

// askedInterval reads a JSON number that this system's clients hold as a
// floating-point one.
func askedInterval(body object) (keystore.Days, error) {
	var days float64
	given, err := body.take(cloudflareInterval[1:], &days)
	switch {
	case err != nil:
		return 0, err
	case !given:
		return 0, &keystore.FieldError{Pointer: cloudflareInterval, Reason: "is required: 21 to 365"}
	case days != math.Trunc(days) || math.Abs(days) > float64(keystore.MaximumDays):
		return 0, &keystore.FieldError{Pointer: cloudflareInterval, Reason: "must be a whole number, 21 to 365"}
	default:
		return keystore.Days(days), nil
	}
}

// signingRotation shows a rotation as done from when it was asked for, even
// while the next key waits for all verifiers to know it before it signs.
func (d *Dialect) signingRotation(now time.Time) (any, error) {
	ring, err := d.SigningKeys.Info()
	if err != nil {
		return nil, err
	}
	last, next := ring.RotatedAt, ring.RotatesAt
	if !ring.Awaited.IsZero() {
		last, next = ring.Awaited, next.Add(time.Duration(ring.Interval)*24*time.Hour)
	}
	days := math.Ceil(next.Sub(now).Hours() / 24)
	return cloudflareEnvelope{Success: true, Errors: []cloudflareError{}, Messages: []struct{}{}, Result: signingRotation{
		Interval: ring.Interval,
		Until:    max(0, min(int(days), int(ring.Interval))),
		Last:     stamp(keystore.InstantOf(last)),
	}}, nil
}

// blame makes an error of the core point at the field that was sent.
func blame(err error, core, sent string) error {
	if f, ok := errors.AsType[*keystore.FieldError](err); ok && f.Pointer == core {
		return &keystore.FieldError{Pointer: sent, Reason: f.Reason}
	}
	return err
}

const documentation = "https://github.com/warderhq/warder/blob/HEAD/docs/dialects.md"

// cloudflareRefusal minds what this system's clients do with a status: they
// repeat 409, 429 and 5xx. Nothing that was done, and nothing that would be
// refused again, is among those. The codes are our own.
func cloudflareRefusal(no refusal, h http.Header) (int, any) {
	status, code := no.problem.Status, 1000
	switch {
	case no.is(keystore.ErrNotInForce):
		status, code = http.StatusBadRequest, 1001
	case no.is(errNoTokens):
		status = http.StatusNotFound
	case status == http.StatusUnauthorized:
		code = 1002
	case status == http.StatusForbidden:
		code = 1003
	case status == http.StatusTooManyRequests:
		code = 1004
	case status >= http.StatusInternalServerError:
		code = 1005
	case status != http.StatusNotFound && status != http.StatusMethodNotAllowed:
		status = http.StatusBadRequest
	}
	again := status == http.StatusTooManyRequests || status >= http.StatusInternalServerError && !no.call.changes()
	if !again {
		h.Set("X-Should-Retry", "false")
	}
	one := cloudflareError{Code: code, Message: no.problem.Detail, DocumentationURL: documentation}
	if p := no.problem.Pointer; p != "" {
		one.Source = &cloudflareSource{p}
	}
	return status, cloudflareEnvelope{Errors: []cloudflareError{one}, Messages: []struct{}{}, Result: struct{}{}}
}
