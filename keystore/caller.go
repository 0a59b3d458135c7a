package keystore

import "strings"

// Caller is who asks for a management operation. The zero Caller may nothing.
type Caller struct {
	Actor        string // key id, or "local"
	From         string // the address it calls from; empty: this machine
	Organization string
	Scopes       Scopes
}

// LocalCaller is whoever reaches the process's own admin endpoint.
func LocalCaller() Caller { return Caller{Actor: "local", Scopes: ScopeAdmin} }

// Attribution says that the caller does operation, for the audit log.
func (c Caller) Attribution(operation string) Attribution {
	return Attribution{Actor: c.Actor, From: c.From, Operation: operation}
}

// Administers reports whether the caller may do everything, across
// organizations.
func (c Caller) Administers() bool { return c.Scopes.Grants(ScopeAdmin) }

// reads and manages: a record that the caller may not see does not exist for
// it (ErrKeyNotFound), one that it may only see is forbidden (ErrForbidden).
func (c Caller) reads(r *Record) error {
	if c.Administers() || (c.Scopes.Grants(ScopeRead) && c.Organization == r.Organization) {
		return nil
	}
	return ErrKeyNotFound
}

// manages also keeps a caller from the secrets of a mightier key, which it
// could otherwise rotate and then use.
func (c Caller) manages(r *Record) error {
	if err := c.reads(r); err != nil {
		return err
	}
	if !c.Scopes.Grants(ScopeKeys) {
		return ErrForbidden
	}
	for _, scope := range r.Scopes.List() {
		if strings.HasPrefix(scope, reservedScopePrefix) && !c.Scopes.Grants(scope) {
			return ErrForbidden
		}
	}
	return nil
}

// extends keeps trials what they are: only an administrator gives a trial key
// a longer life.
func (c Caller) extends(r *Record) error {
	if r.Type == TypeTrial && !c.Administers() {
		return ErrForbidden
	}
	return nil
}

// within returns the organization as far as it restricts the caller: an
// administrator may go beyond the maximum expiry.
func (c Caller) within(org *Organization) *Organization {
	if !c.Administers() {
		return org
	}
	free := *org
	if free.DefaultExpiry == 0 {
		free.DefaultExpiry = org.MaximumExpiry // still what a key gets without being asked
	}
	free.MaximumExpiry = 0
	return &free
}

func (c Caller) home() string {
	if c.Organization != "" {
		return c.Organization
	}
	return DefaultOrganization
}

// grant returns the set of scopes that the caller gives to a key of org:
// Warder's own only as far as it holds them, the API's only as far as the
// organization allows.
func (c Caller) grant(org *Organization, scopes []string) (Scopes, error) {
	const pointer = "/scopes"
	set, err := NewScopes(pointer, scopes)
	if err != nil {
		return "", err
	}
	for _, scope := range set.List() {
		if strings.HasPrefix(scope, reservedScopePrefix) && !c.Scopes.Grants(scope) {
			return "", ErrForbidden
		}
		if !org.Allows(scope) {
			return "", &FieldError{pointer, "the organization does not allow one of these scopes"}
		}
	}
	return set, nil
}
