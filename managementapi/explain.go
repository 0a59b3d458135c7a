package managementapi

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/warderhq/warder/keystore"
)

// Inquiry is a request that nobody has sent: would a gate let it pass?
type Inquiry struct {
	// An API key, its pair with a colon between, an access token, or the whole
	// value of an Authorization header.
	Credential keystore.Secret

	Method, Path string          // both or neither, which leaves path and permissions unasked
	From         netip.Addr      // zero leaves networks unasked
	Scopes       []string        // that the gate requires
	Types        []keystore.Type // one of which it requires
}

// Verdict is what a gate would say to it.
type Verdict struct {
	Kind   keystore.CredentialKind
	Key    *keystore.Record // whose credential it is, or would be; nil: nobody's
	Trace  keystore.Trace
	Refuse *Refusal // nil: it passes
}

// Refusal is what a caller would be answered.
type Refusal struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Reason string `json:"reason,omitempty"`
	Detail string `json:"detail"`
}

// outage reports whether it is no denial: it could not be decided.
func (r *Refusal) outage() bool { return r.Status >= 500 }

// Explanation is a verdict as callers see it.
type Explanation struct {
	Passes     bool          `json:"passes"`
	Refusal    *Refusal      `json:"refusal"` // null: it passes
	Credential string        `json:"credential"`
	Key        *ExplainedKey `json:"key"` // null: nobody's
	Checks     []CheckResult `json:"checks"`
}

// ExplainedKey is whose credential it is, or would be if its secret were right.
type ExplainedKey struct {
	ID           keystore.KeyID `json:"id"`
	Name         string         `json:"name"`
	Organization string         `json:"organization"`
	State        string         `json:"state"`
	Scopes       []string       `json:"scopes"`
}

// CheckResult is what became of one check.
type CheckResult struct {
	Check  string `json:"check"`
	Result string `json:"result"`
	Asks   string `json:"asks"`             // what the check is about
	Remedy string `json:"remedy,omitempty"` // of one that refuses
}

// What can become of a check.
const (
	CheckPassed     = "passed"
	CheckRefused    = "refused"
	CheckUndecided  = "undecided"   // it could not be made
	CheckNotReached = "not_reached" // an earlier one ended it
	CheckNotAsked   = "not_asked"   // nobody has said what it needs
)

// checkText is what people read of a check.
type checkText struct{ asks, remedy string }

// checkTexts has a row for every check. A test holds it to that.
var checkTexts = map[keystore.Check]checkText{
	keystore.CheckPath:     {"the path has one meaning", "write it without dot segments, encoded slashes, backslashes and control characters"},
	keystore.CheckForm:     {"there is one credential, of a form that can be Warder's", "copy it again: an API key, the pair access_key:secret_key, or an access token, once and alone"},
	keystore.CheckSpelling: {"alphabet and checksum of the API key are right", "it was mistyped or cut, or is no API key: copy it again"},
	keystore.CheckNode:     {"this node may trust what it knows", "no credential is to blame: see warder health, and the log of this node"},

	keystore.CheckSigningKey:  {"the access token says to be of a signing key that is trusted", "it is another server's, or of a signing key that was dropped or distrusted: get a new one at the token endpoint"},
	keystore.CheckSignature:   {"its signature is good", "it was cut or changed on its way: get a new one"},
	keystore.CheckClaims:      {"its claims are those of an access token of Warder", "get a new one at the token endpoint"},
	keystore.CheckIssuer:      {"it is of the configured issuer", "the issuer in the configuration was changed, or the token is of another site of this store: get a new one here"},
	keystore.CheckAudience:    {"it is for an audience of the issuer", "get one for a resource that the issuer's option resources lists, or without resource"},
	keystore.CheckIssued:      {"it was not issued in the future", "the clocks of the machines run apart: set them"},
	keystore.CheckTokenExpiry: {"it has not expired", "get a new one at the token endpoint"},
	keystore.CheckRevocation:  {"it was not revoked", "get a new one at the token endpoint"},

	keystore.CheckGenuine: {"this store made the access key", "it is made up, or of another store: another database, or one begun anew"},
	keystore.CheckKnown:   {"there is a key of it", "the key was deleted or regenerated, or is of another store: make a new one"},
	keystore.CheckSecret:  {"the secret is the key's, now or before the last rotation", "the key is there, but has another secret: use the one shown last, or rotate it for a new one"},

	keystore.CheckBlocked:     {"the key is not blocked", "an administrator blocked it, and can unblock it: warder keys unblock ID"},
	keystore.CheckExpiry:      {"the key has not expired", "warder keys renew ID --days 30d, or regenerate it"},
	keystore.CheckDeactivated: {"the key is not deactivated", "its owner can activate it: warder keys activate ID"},
	keystore.CheckGeneration:  {"the secret was not superseded", "the key was rotated or regenerated: use its newer secret, or a token got with that"},

	keystore.CheckNetwork:    {"it comes from a network of the key", "warder keys update ID --network RANGE; if a proxy stands before Warder, Caddy's trusted_proxies has to name it"},
	keystore.CheckPermission: {"a permission of the key allows method and path", "give the key a permission that does: warder permissions list, warder keys update ID --permission NAME"},
	keystore.CheckType:       {"the key is of a type that is required", "use a key of another type"},
	keystore.CheckScope:      {"it holds the scopes that are required", "warder keys update ID --scope SCOPE, and a new access token, which may hold fewer than its key"},
	keystore.CheckLimit:      {"the limit has a request left", "come again later, or raise it: warder keys update ID --limit LIMIT"},
}

func (a *API) explain(c *call) (answer, error) {
	in, err := c.inquiry()
	if err != nil {
		return answer{}, err
	}
	v := a.Explain(c.Context(), in, c.now)
	return answer{body: v.explained(c)}, nil
}

// inquiry reads the body. No error quotes it.
func (c *call) inquiry() (in Inquiry, err error) {
	var credential field[keystore.Secret]
	var method, path, from field[string]
	var scopes, types field[[]string]
	err = c.body.into(members{
		"credential": &credential, "method": &method, "path": &path, "from": &from, "require_scopes": &scopes, "require_types": &types,
	})
	if err != nil {
		return in, err
	}
	in = Inquiry{Credential: credential.value, Method: method.value, Path: path.value, Scopes: scopes.value}
	switch {
	case !credential.given():
		return in, &keystore.FieldError{Pointer: "/credential", Reason: "is required"}
	case in.Path == "" && in.Method != "":
		return in, &keystore.FieldError{Pointer: "/path", Reason: "is required beside method"}
	case in.Path != "" && in.Method == "":
		in.Method = "GET"
	}
	if in.From, err = addressOf(from); err != nil {
		return in, err
	}
	for _, name := range types.value {
		t, err := keystore.ParseType(name)
		if err != nil {
			return in, &keystore.FieldError{Pointer: "/require_types", Reason: "must be standard or trial"}
		}
		in.Types = append(in.Types, t)
	}
	return in, nil
}

func addressOf(from field[string]) (netip.Addr, error) {
	if from.value == "" {
		return netip.Addr{}, nil
	}
	address, err := netip.ParseAddr(from.value)
	if err != nil {
		return netip.Addr{}, &keystore.FieldError{Pointer: "/from", Reason: "must be an IP address such as 203.0.113.9"}
	}
	return address, nil
}

func (v *Verdict) explained(c *call) Explanation {
	out := Explanation{Passes: v.Refuse == nil, Refusal: v.Refuse, Credential: v.Kind.String()}
	if v.Key != nil {
		out.Key = &ExplainedKey{v.Key.ID, v.Key.Name, v.Key.Organization, v.Key.State(c.now).String(), listed(v.Key.Scopes.List())}
	}
	for _, check := range keystore.ChecksOf(v.Kind) { // the order in which they are made
		if slices.Contains(v.Trace.Made, check) {
			out.Checks = append(out.Checks, v.made(check))
		} else {
			out.Checks = append(out.Checks, v.notMade(check))
		}
	}
	return out
}

// made returns the result of a check: the last one is what has refused.
func (v *Verdict) made(check keystore.Check) CheckResult {
	text := checkTexts[check]
	one := CheckResult{Check: check.String(), Result: CheckPassed, Asks: text.asks}
	switch {
	case v.Refuse == nil || check != v.Trace.Last():
		return one
	case v.Refuse.outage():
		one.Result, one.Remedy = CheckUndecided, checkTexts[keystore.CheckNode].remedy
	default:
		one.Result, one.Remedy = CheckRefused, text.remedy
	}
	if v.Key != nil {
		one.Remedy = strings.ReplaceAll(one.Remedy, "ID", string(v.Key.ID))
	}
	return one
}

func (v *Verdict) notMade(check keystore.Check) CheckResult {
	one := CheckResult{Check: check.String(), Result: CheckNotReached, Asks: checkTexts[check].asks}
	if slices.Contains(v.Trace.Waived, check) {
		one.Result = CheckNotAsked
	}
	return one
}
