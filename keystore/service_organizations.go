package keystore

import (
	"context"
	"slices"
	"time"
)

// CreateOrganization makes an organization together with its first standard
// key. Administrators only. once may be nil.
func (s *Service) CreateOrganization(ctx context.Context, c Caller, org Organization, in NewKey, once *Once, now time.Time) (Issued, error) {
	a := c.does("organizations.create", KindOrganization, org.Slug)
	return s.issue(ctx, a, once, now, func(tx Tx) (Issued, error) {
		if !c.Administers() {
			return Issued{}, ErrForbidden
		}
		org.Number, org.Created = 0, InstantOf(now)
		if err := putOrganization(tx, &org); err != nil {
			return Issued{}, err
		}
		in.Organization, in.Type = org.Slug, TypeStandard
		return s.create(tx, c, &org, in, now)
	})
}

// UpdateOrganization lets fn edit an organization as it is at commit; its
// slug and numbers stay. Administrators only.
func (s *Service) UpdateOrganization(ctx context.Context, c Caller, slug string, ifMatch Revision, fn func(*Organization) error) (Organization, error) {
	var org Organization
	_, err := s.transact(ctx, c.does("organizations.update", KindOrganization, slug), func(tx Tx) (err error) {
		if !c.Administers() {
			return ErrForbidden
		}
		if org, err = organizationAt(tx, slug, ifMatch); err != nil {
			return err
		}
		was := org
		if err := fn(&org); err != nil {
			return err
		}
		org.Slug, org.Number, org.Created, org.Revision = was.Slug, was.Number, was.Created, was.Revision
		return putOrganization(tx, &org)
	})
	return org, err
}

// DeleteOrganization removes an organization that holds nothing any more but,
// at most, its last standard key, which goes with it, and permissions of its
// own. Administrators only. ErrOrganizationInUse, ErrDefaultOrganization.
func (s *Service) DeleteOrganization(ctx context.Context, c Caller, slug string, ifMatch Revision) (Revision, error) {
	return s.transact(ctx, c.does("organizations.delete", KindOrganization, slug), func(tx Tx) error {
		if !c.Administers() {
			return ErrForbidden
		}
		if _, err := organizationAt(tx, slug, ifMatch); err != nil {
			return err
		}
		if slug == DefaultOrganization {
			return ErrDefaultOrganization
		}
		if err := removeLastKey(tx, slug); err != nil {
			return err
		}
		if err := removePermissions(tx, slug); err != nil {
			return err
		}
		return tx.DeleteOrganization(slug)
	})
}

// Organization returns one that the caller may see.
func (s *Service) Organization(c Caller, slug string) (*Organization, error) {
	if !c.Scopes.Grants(ScopeRead) {
		return nil, ErrForbidden
	}
	o := s.Directory.Organization(slug)
	if o == nil || !c.Administers() && slug != c.Organization {
		return nil, ErrOrganizationNotFound
	}
	return o, nil
}

// Organizations returns those that the caller may see, in the order of their
// numbers: an administrator all, everybody else its own. Not to be changed.
func (s *Service) Organizations(c Caller) ([]*Organization, error) {
	if !c.Scopes.Grants(ScopeRead) {
		return nil, ErrForbidden
	}
	if c.Administers() {
		return s.Directory.Organizations(), nil
	}
	if own := s.Directory.Organization(c.Organization); own != nil {
		return []*Organization{own}, nil
	}
	return nil, nil
}

func organizationAt(tx Tx, slug string, ifMatch Revision) (Organization, error) {
	org, err := tx.Organization(slug)
	if err == nil && ifMatch != 0 && ifMatch != org.Revision {
		err = ErrStaleEdit
	}
	return org, err
}

// putOrganization refuses to restrict keys to permissions that do not exist,
// or that an organization could change for itself.
func putOrganization(tx Tx, org *Organization) error {
	if err := org.Validate(); err != nil {
		return err
	}
	for _, id := range org.AllowedPermissions {
		p, err := permissionIn(tx, id)
		if err != nil || p.Organization != "" {
			return &FieldError{"/allowed_permissions", "must be ids of permissions that belong to no organization"}
		}
	}
	return tx.PutOrganization(org)
}

func removeLastKey(tx Tx, organization string) error {
	page, err := tx.Keys(Query{Organization: organization, Limit: 2})
	if err != nil {
		return err
	}
	if len(page.Records) > 1 || slices.ContainsFunc(page.Records, func(r Record) bool { return r.Type != TypeStandard }) {
		return ErrOrganizationInUse
	}
	for i := range page.Records {
		last := &page.Records[i]
		if err := tx.DeleteKey(last.ID); err != nil {
			return err
		}
		if err := settleImports(tx, last, &Record{}); err != nil {
			return err
		}
	}
	return nil
}
