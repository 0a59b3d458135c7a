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
}

// Authorizer decides whether a principal, once known, may do what it asks.
type Authorizer struct {
	Directory *Directory
	Rulebook  *Rulebook
}

// Permit asks the key's networks and permissions, in this order: ErrNetwork,
// ErrPermission. It does not allocate.
func (z *Authorizer) Permit(p *Principal, a Access) error {
	if !p.Record.Networks.Contain(a.From) {
		return ErrNetwork
	}
	if !z.Rulebook.Allows(p.Record.Permissions, z.Directory.Organization(p.Record.Organization), a.Method, a.Path) {
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
	limit := p.Record.Limit
	if limit == (Limit{}) {
		if org := z.Directory.Organization(p.Record.Organization); org != nil {
			limit = org.Limit
		}
	}
	if limit == (Limit{}) {
		return Allowance{}, true
	}
	return p.Meter.take(limit, now)
}
