package keystore

import (
	"context"
	"time"
)

// Audit returns entries of the audit log: for an administrator all, for a
// caller with warder:keys those of its own organization.
func (s *Service) Audit(ctx context.Context, c Caller, q AuditQuery) (AuditPage, error) {
	if !c.Scopes.Grants(ScopeKeys) {
		return AuditPage{}, ErrForbidden
	}
	var err error
	if q.Organization, err = c.scope(q.Organization); err != nil {
		return AuditPage{}, err
	}
	return s.Store.Audit(ctx, q)
}

// Usage returns how often keys were used, of other nodes as of their last
// flush.
func (s *Service) Usage(ctx context.Context, c Caller, q UsageQuery, now time.Time) ([]UsageRow, error) {
	if !c.Scopes.Grants(ScopeRead) {
		return nil, ErrForbidden
	}
	var err error
	if q.Organization, err = c.scope(q.Organization); err != nil {
		return nil, err
	}
	if err := s.Meters.Flush(ctx, s.Store, now); err != nil {
		return nil, err
	}
	return s.Store.Usage(ctx, q)
}

// LastUsed returns when the secrets of the keys were last let pass. Whether
// the caller may know of these keys, it has asked before. What other keys did
// is not written for it: calls that end a key ask this before they do.
func (s *Service) LastUsed(ctx context.Context, keys []KeyID, now time.Time) ([]LastUse, error) {
	if err := s.Meters.FlushOf(ctx, s.Store, now, keys); err != nil {
		return nil, err
	}
	return s.Store.LastUsed(ctx, keys)
}

// scope returns the organization that a query of the caller is about: for
// an administrator the one asked for, or all; for others their own.
func (c Caller) scope(asked string) (string, error) {
	switch {
	case c.Administers():
		return asked, nil
	case c.Organization == "":
		return "", ErrForbidden // an empty organization would be all
	case asked != "" && asked != c.Organization:
		return "", ErrOrganizationNotFound
	default:
		return c.Organization, nil
	}
}
