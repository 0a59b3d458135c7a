package keystore

import (
	"slices"
	"strings"
)

// Scopes is a set of scopes in one string: sorted, without repetition,
// separated by single spaces (RFC 6749 §3.3). Being one string it costs one
// pointer in a cached record and can be compared and put in a header as is.
type Scopes string

// Warder's own scopes.
const (
	ScopeAdmin = "warder:admin" // everything, across organizations
	ScopeKeys  = "warder:keys"  // the caller's own organization's keys
	ScopeRead  = "warder:read"

	reservedScopePrefix = "warder:"
)

const (
	maxScopes      = 64
	maxScopeLength = 128
)

// NewScopes returns the set of the given scopes, or a *FieldError at pointer
// if one is no scope-token of RFC 6749 §3.3 or there are too many.
func NewScopes(pointer string, scopes []string) (Scopes, error) {
	if len(scopes) > maxScopes {
		return "", &FieldError{pointer, "at most 64 scopes"}
	}
	for _, s := range scopes {
		if !validScope(s) {
			return "", &FieldError{pointer, "a scope is 1 to 128 printable ASCII characters without space, quote or backslash"}
		}
		if strings.HasPrefix(s, reservedScopePrefix) && s != ScopeAdmin && s != ScopeKeys && s != ScopeRead {
			return "", &FieldError{pointer, "unknown scope under warder:"}
		}
	}
	set := slices.Clone(scopes)
	slices.Sort(set)
	return Scopes(strings.Join(slices.Compact(set), " ")), nil
}

func validScope(s string) bool {
	if s == "" || len(s) > maxScopeLength {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// List returns the scopes one by one.
func (s Scopes) List() []string { return strings.Fields(string(s)) }

// Has reports whether scope is in the set, without allocating.
func (s Scopes) Has(scope string) bool {
	rest, one, more := string(s), "", true
	for more {
		one, rest, more = strings.Cut(rest, " ")
		if one == scope && one != "" {
			return true
		}
	}
	return false
}

// Grants reports whether a holder of s may act with scope: it holds it, or
// holds the greater of Warder's own scopes.
func (s Scopes) Grants(scope string) bool {
	switch {
	case s.Has(scope):
		return true
	case scope == ScopeRead:
		return s.Has(ScopeKeys) || s.Has(ScopeAdmin)
	case strings.HasPrefix(scope, reservedScopePrefix):
		return s.Has(ScopeAdmin)
	default:
		return false
	}
}

// reserved returns those that are Warder's own.
func (s Scopes) reserved() Scopes {
	own := slices.DeleteFunc(s.List(), func(scope string) bool { return !strings.HasPrefix(scope, reservedScopePrefix) })
	return Scopes(strings.Join(own, " "))
}

// Within reports whether each scope of s is in other.
func (s Scopes) Within(other Scopes) bool {
	rest, one, more := string(s), "", true
	for more {
		one, rest, more = strings.Cut(rest, " ")
		if one != "" && !other.Has(one) {
			return false
		}
	}
	return true
}

// Intersect returns the scopes of s that are in other too. It allocates only
// when that is less than s.
func (s Scopes) Intersect(other Scopes) Scopes {
	if s == other || s.Within(other) {
		return s
	}
	kept := slices.DeleteFunc(s.List(), func(scope string) bool { return !other.Has(scope) })
	return Scopes(strings.Join(kept, " "))
}

// Allows reports whether the organization lets its keys carry scope. Warder's
// own scopes are a matter of the granting caller, not of the organization.
func (o *Organization) Allows(scope string) bool {
	return strings.HasPrefix(scope, reservedScopePrefix) || o.AllowedScopes == nil || slices.Contains(o.AllowedScopes, scope)
}
