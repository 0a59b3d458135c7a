package keystore

import (
	"errors"
	"slices"
)

// Check is one of the checks that a request meets.
type Check uint8

// The checks, in the order in which a gate makes them. The zero Check is none.
const (
	CheckNone     Check = iota
	CheckPath           // the path has one meaning
	CheckForm           // one credential, of a form that can be ours
	CheckSpelling       // of an API key: alphabet and checksum
	CheckNode           // this node may trust what it knows

	CheckSigningKey // of an access token: a trusted key is said to have signed it
	CheckSignature
	CheckClaims
	CheckIssuer
	CheckAudience
	CheckIssued // not in the future
	CheckTokenExpiry
	CheckRevocation

	CheckGenuine // of an API key: this store made the access key
	CheckKnown   // there is a key of it
	CheckSecret  // of an API key: it is the key's, now or before

	CheckBlocked
	CheckExpiry
	CheckDeactivated
	CheckGeneration // the secret, or the token's, was not superseded

	CheckNetwork
	CheckPermission
	CheckType
	CheckScope
	CheckLimit

	checks // how many there are
)

var checkNames = [checks]string{
	CheckNone: "none", CheckPath: "path", CheckForm: "form", CheckSpelling: "spelling", CheckNode: "node",
	CheckSigningKey: "signing_key", CheckSignature: "signature", CheckClaims: "claims", CheckIssuer: "issuer",
	CheckAudience: "audience", CheckIssued: "issued", CheckTokenExpiry: "token_expiry", CheckRevocation: "revocation",
	CheckGenuine: "genuine", CheckKnown: "known", CheckSecret: "secret",
	CheckBlocked: "blocked", CheckExpiry: "expiry", CheckDeactivated: "deactivated", CheckGeneration: "generation",
	CheckNetwork: "network", CheckPermission: "permission", CheckType: "type", CheckScope: "scope", CheckLimit: "limit",
}

func (c Check) String() string {
	if c < checks {
		return checkNames[c]
	}
	return checkNames[CheckNone]
}

// ChecksOf returns the checks that a credential of a kind meets, in order.
func ChecksOf(kind CredentialKind) (all []Check) {
	for c := CheckNone + 1; c < checks; c++ {
		ofKey := c == CheckSpelling || c == CheckGenuine || c == CheckSecret
		ofToken := CheckSigningKey <= c && c <= CheckRevocation
		if (!ofKey || kind == CredentialKey) && (!ofToken || kind == CredentialAccessToken) {
			all = append(all, c)
		}
	}
	return all
}

// Trace notes the checks that a decision makes, in the order in which it makes
// them: the last one is the one that refused, if any did. It goes through the
// decision with what is decided about; a request has none, the nil Trace,
// which notes nothing.
type Trace struct {
	Waived []Check // not to be made: nobody has said what they would need
	Made   []Check
}

// At notes that a check is made next. False: it is waived. The nil Trace waives
// nothing.
func (t *Trace) At(c Check) bool { return t == nil || t.note(c) }

//go:noinline // so that At is: it is all that a request pays
func (t *Trace) note(c Check) bool {
	if slices.Contains(t.Waived, c) {
		return false
	}
	if !slices.Contains(t.Made, c) { // a request that asks for two methods is asked about each
		t.Made = append(t.Made, c)
	}
	return true
}

// Last returns the check made last.
func (t *Trace) Last() Check {
	if len(t.Made) == 0 {
		return CheckNone
	}
	return t.Made[len(t.Made)-1]
}

// found notes that a key was looked for, and, if there is one, that its secret
// is compared.
func (t *Trace) found(r *Record) {
	if t != nil && t.note(CheckKnown) && r.ID != "" {
		t.note(CheckSecret)
	}
}

// through notes the checks from first to last, made together, up to the one
// that err comes from.
func (t *Trace) through(first, last Check, err error) {
	if t != nil {
		t.noteThrough(first, last, err)
	}
}

func (t *Trace) noteThrough(first, last Check, err error) {
	refused := checkOf(err)
	for c := first; c <= last; c++ {
		if t.note(c); c == refused {
			return
		}
	}
}

// TokenError is why an access token is not one of ours, for operators; a
// caller sees one answer for all. It is an ErrInvalid.
type TokenError struct {
	Check Check // that found it
	Text  string
}

func (e *TokenError) Error() string { return e.Text + ": " + ErrInvalid.Error() }

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (*TokenError) Unwrap() error { return ErrInvalid }

// checkOf returns the check that err comes from, of those that through notes.
func checkOf(err error) Check {
	if e, ok := errors.AsType[*TokenError](err); ok {
		return e.Check
	}
	for c, cause := range map[Check]error{
		CheckSigningKey: ErrUnavailable, CheckTokenExpiry: ErrTokenExpired, CheckRevocation: ErrTokenRevoked,
		CheckBlocked: ErrBlocked, CheckExpiry: ErrExpired, CheckDeactivated: ErrDeactivated, CheckGeneration: ErrSuperseded,
	} {
		if errors.Is(err, cause) {
			return c
		}
	}
	return CheckNone
}
