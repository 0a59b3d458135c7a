package keystore

import (
	"context"
	"slices"
	"time"
)

// CreatePermission makes a permission. Administrators make them for everybody
// or for one organization, others for their own.
func (s *Service) CreatePermission(ctx context.Context, c Caller, p Permission, now time.Time) (Permission, error) {
	if !c.Administers() && p.Organization == "" {
		p.Organization = c.Organization
	}
	p.ID, p.Created, p.Revision = NewPermissionID(), InstantOf(now), 0
	_, err := s.transact(ctx, c.does("permissions.create", KindPermission, ""), func(tx Tx) error {
		if err := c.managesPermission(&p); err != nil {
			return err
		}
		if p.Organization != "" {
			if _, err := tx.Organization(p.Organization); err != nil {
				return err
			}
		}
		return putPermission(tx, &p)
	})
	return p, err
}

// UpdatePermission lets fn edit a permission as it is at commit; what it is
// the permission of stays. The change counts at once for all keys that refer
// to it.
func (s *Service) UpdatePermission(ctx context.Context, c Caller, id string, ifMatch Revision, fn func(*Permission) error) (Permission, error) {
	var p Permission
	_, err := s.transact(ctx, c.does("permissions.update", KindPermission, id), func(tx Tx) (err error) {
		if p, err = managedPermission(tx, c, id, ifMatch); err != nil {
			return err
		}
		was := p
		if err := fn(&p); err != nil {
			return err
		}
		p.ID, p.Organization, p.Created, p.Revision = was.ID, was.Organization, was.Created, was.Revision
		return putPermission(tx, &p)
	})
	return p, err
}

// maxInUse bounds how many keys a refused deletion names.
const maxInUse = 100

// DeletePermission removes a permission that nothing refers to any more;
// *PermissionInUseError.
func (s *Service) DeletePermission(ctx context.Context, c Caller, id string, ifMatch Revision) (Revision, error) {
	return s.transact(ctx, c.does("permissions.delete", KindPermission, id), func(tx Tx) error {
		if _, err := managedPermission(tx, c, id, ifMatch); err != nil {
			return err
		}
		page, err := tx.Keys(Query{Permission: id, Limit: maxInUse})
		if err != nil {
			return err
		}
		used := &PermissionInUseError{Organizations: s.Directory.allowing(id)}
		for i := range page.Records {
			used.Keys = append(used.Keys, page.Records[i].ID)
		}
		if len(used.Keys)+len(used.Organizations) > 0 {
			return used
		}
		return tx.DeleteDocument(KindPermission, id)
	})
}

// Permission returns one that the caller may see.
func (s *Service) Permission(c Caller, id string) (Permission, error) {
	p := s.Rulebook.Permission(id)
	if p == nil || !c.sees(p) {
		return Permission{}, ErrPermissionNotFound
	}
	return *p, nil
}

// Permissions returns those that keys of the organization may refer to, in the
// order of their names. An administrator may leave the organization out, for
// all; for others it is their own.
func (s *Service) Permissions(c Caller, organization string) ([]Permission, error) {
	switch {
	case !c.Scopes.Grants(ScopeRead):
		return nil, ErrForbidden
	case c.Administers():
		return s.Rulebook.Permissions(organization), nil
	case c.Organization == "" || organization != "" && organization != c.Organization:
		return nil, ErrOrganizationNotFound
	default:
		return s.Rulebook.Permissions(c.Organization), nil
	}
}

func (c Caller) sees(p *Permission) bool {
	return c.Administers() || c.Scopes.Grants(ScopeRead) && c.Organization != "" && p.servesOnly(c.Organization)
}

// managesPermission: what everybody's keys may refer to is for administrators
// to change.
func (c Caller) managesPermission(p *Permission) error {
	switch {
	case !c.sees(p):
		return ErrPermissionNotFound
	case !c.Administers() && (!c.Scopes.Grants(ScopeKeys) || p.Organization == ""):
		return ErrForbidden
	default:
		return nil
	}
}

func managedPermission(tx Tx, c Caller, id string, ifMatch Revision) (Permission, error) {
	p, err := permissionIn(tx, id)
	if err != nil {
		return Permission{}, err
	}
	if err := c.managesPermission(&p); err != nil {
		return Permission{}, err
	}
	if ifMatch != 0 && ifMatch != p.Revision {
		return Permission{}, ErrStaleEdit
	}
	return p, nil
}

func permissionIn(tx Tx, id string) (Permission, error) {
	d, err := tx.Document(KindPermission, id)
	if err != nil {
		return Permission{}, err
	}
	if d.Revision == 0 {
		return Permission{}, ErrPermissionNotFound
	}
	return permissionOf(&d)
}

// putPermission keeps names unique in an organization, and their number bounded.
func putPermission(tx Tx, p *Permission) error {
	if err := p.Validate(); err != nil {
		return err
	}
	all, err := tx.Documents(KindPermission)
	if err != nil {
		return err
	}
	beside := 0
	for i := range all {
		other, err := permissionOf(&all[i])
		if err != nil || other.Organization != p.Organization || other.ID == p.ID {
			continue
		}
		if other.Name == p.Name {
			return ErrNameTaken
		}
		beside++
	}
	if beside >= maxOrganizationPermissions {
		return &FieldError{"", "an organization has at most 1000 permissions"}
	}
	d, err := p.document()
	if err != nil {
		return err
	}
	if err := tx.PutDocument(&d); err != nil {
		return err
	}
	p.Revision = d.Revision
	return nil
}

func removePermissions(tx Tx, organization string) error {
	all, err := tx.Documents(KindPermission)
	if err != nil {
		return err
	}
	for i := range all {
		if p, err := permissionOf(&all[i]); err != nil || p.Organization != organization {
			continue
		}
		if err := tx.DeleteDocument(KindPermission, all[i].Name); err != nil {
			return err
		}
	}
	return nil
}

// grantPermissions returns the set of permissions that a key of org is given:
// they exist, are not another organization's, and it is allowed them.
func grantPermissions(tx Tx, org *Organization, ids []string) (PermissionSet, error) {
	const pointer = "/permissions"
	set, err := NewPermissionSet(pointer, ids)
	if err != nil {
		return "", err
	}
	for _, id := range set.List() {
		p, err := permissionIn(tx, id)
		if err == ErrPermissionNotFound || err == nil && !p.servesOnly(org.Slug) {
			return "", &FieldError{pointer, "there is no such permission"}
		}
		if err != nil {
			return "", err
		}
		if !org.allowsPermission(id) {
			return "", &FieldError{pointer, "the organization does not allow one of these permissions"}
		}
	}
	return set, nil
}

// allowing returns the organizations whose keys are restricted to permissions
// with this one among them.
func (d *Directory) allowing(permission string) []string {
	var out []string
	for _, o := range d.Organizations() {
		if slices.Contains(o.AllowedPermissions, permission) {
			out = append(out, o.Slug)
		}
	}
	return out
}
