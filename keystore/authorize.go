package keystore

import (
	"net/netip"
	"time"
)

// Access is what a request wants of the API behind.
type Access struct {
	Method string
	Path   string     // in normal form
	From   netip.Addr // of the caller; the zero Addr lies in no network
	Trace  *Trace     // of the decision on it; nil: none is wanted
}

// Authorizer decides whether a principal, once known, may do what it asks.
type Authorizer struct {
	Directory *Directory
	Rulebook  *Rulebook
}

// Permit asks the key's networks and permissions, in this order: ErrNetwork,
// ErrPermission. It does not allocate.
func (z *Authorizer) Permit(p *Principal, a Access) error {
	if a.Trace.At(CheckNetwork) && !p.Record.Networks.Contain(a.From) {
		return ErrNetwork
	}
	if a.Trace.At(CheckPermission) && !z.Rulebook.Allows(p.Record.Permissions, z.Directory.Organization(p.Record.Organization), a.Method, a.Path) {
		return ErrPermission
	}
	return nil
}

// Restricts reports whether permissions say what the principal may do: else it
// may do everything. It does not allocate.
func (z *Authorizer) Restricts(p *Principal) bool {
	org := z.Directory.Organization(p.Record.Organization)
	return p.Record.Permissions != "" || org == nil || org.AllowedPermissions != nil
}

// Spend takes one request from the key's limit, its own or else the
// organization's: false if there is none left now. It does not allocate. The
// limit is this node's: with n nodes a key may come to n times as much.
func (z *Authorizer) Spend(p *Principal, now time.Time) (Allowance, bool) {
	limit := z.limit(p)
	if limit == (Limit{}) {
		return Allowance{}, true
	}
	return p.Meter.take(limit, now)
}

// Left is what Spend would return. It takes nothing.
func (z *Authorizer) Left(p *Principal, now time.Time) (Allowance, bool) {
	limit := z.limit(p)
	if limit == (Limit{}) {
		return Allowance{}, true
	}
	return p.Meter.left(limit, now)
}

// limit returns the key's limit, its own or else the organization's.
func (z *Authorizer) limit(p *Principal) Limit {
	if p.Record.Limit != (Limit{}) {
		return p.Record.Limit
	}
	if org := z.Directory.Organization(p.Record.Organization); org != nil {
		return org.Limit
	}
	return Limit{}
}
