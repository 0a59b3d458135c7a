package postgres

import (
	"fmt"
	"time"

	"github.com/warderhq/warder/keystore"
)

// organizationColumns, organizationTargets and organizationValues name the
// columns of an organization in one order.
var organizationColumns = []string{
	"number", "slug", "default_expiry", "maximum_expiry", "grace", "rate_limit",
	"allowed_scopes", "allowed_permissions", "metadata", "created", "revision",
}

func organizationTargets(o *keystore.Organization) []any {
	return []any{
		number(&o.Number), text(&o.Slug), number(&o.DefaultExpiry), number(&o.MaximumExpiry), seconds{&o.Grace}, limited{&o.Limit},
		&o.AllowedScopes, &o.AllowedPermissions, text(&o.Metadata), number(&o.Created), number(&o.Revision),
	}
}

func organizationValues(o *keystore.Organization) []any {
	return []any{
		int64(o.Number), o.Slug, int64(o.DefaultExpiry), int64(o.MaximumExpiry), int64(o.Grace / time.Second), o.Limit.String(),
		texts(o.AllowedScopes), texts(o.AllowedPermissions), o.Metadata, int64(o.Created), int64(o.Revision),
	}
}

// Organization implements keystore.OrganizationTx.
func (t *tx) Organization(slug string) (keystore.Organization, error) {
	const doing = "reading an organization"
	o, err := t.meetOrganization(doing, slug)
	if err != nil {
		return keystore.Organization{}, err
	}
	if o.Number == 0 {
		return keystore.Organization{}, fmt.Errorf("%s %s: %w", doing, slug, keystore.ErrOrganizationNotFound)
	}
	return o, nil
}

// meetOrganization returns the zero Organization if there is none.
func (t *tx) meetOrganization(doing, slug string) (keystore.Organization, error) {
	if err := t.usable(doing); err != nil {
		return keystore.Organization{}, err
	}
	o, met := t.organizations[slug]
	if met {
		return o, nil
	}
	if _, err := t.row(doing, organizationTargets(&o), organizationQuery+" WHERE slug = $1", storable(slug)); err != nil {
		return keystore.Organization{}, err
	}
	t.organizations[slug] = o
	return o, nil
}

// PutOrganization implements keystore.OrganizationTx.
func (t *tx) PutOrganization(o *keystore.Organization) error {
	before, err := t.meetOrganization("reading an organization", o.Slug)
	if err != nil {
		return err
	}
	if changes, err := o.Replaces(before); !changes || err != nil {
		return err
	}
	after := *o
	if after.Revision, err = t.log(keystore.KindOrganization, o.Slug, nil); err != nil {
		return err
	}
	if err := t.writeOrganization(&after); err != nil {
		return err
	}
	t.organizations[after.Slug] = ownOrganization(after)
	*o = after
	return nil
}

// ownOrganization shares no list with the caller's.
func ownOrganization(o keystore.Organization) keystore.Organization {
	o.AllowedScopes, o.AllowedPermissions = texts(o.AllowedScopes), texts(o.AllowedPermissions)
	return o
}

func (t *tx) writeOrganization(o *keystore.Organization) error {
	if o.Number != 0 {
		return t.exec("updating an organization", updateOrganization, organizationValues(o)...)
	}
	t.head.organizations++
	o.Number = t.head.organizations
	return t.exec("inserting an organization", insertOrganization, organizationValues(o)...)
}

// DeleteOrganization implements keystore.OrganizationTx.
func (t *tx) DeleteOrganization(slug string) error {
	before, err := t.Organization(slug)
	if err != nil {
		return err
	}
	var owner keystore.Number
	inUse, err := t.row("reading an organization's keys", []any{number(&owner)}, owned, slug)
	if err != nil {
		return err
	}
	if inUse {
		return fmt.Errorf("deleting organization %s: %w", slug, keystore.ErrOrganizationInUse)
	}
	if _, err := t.log(keystore.KindOrganization, slug, nil); err != nil {
		return err
	}
	t.organizations[slug] = keystore.Organization{}
	return t.exec("deleting an organization", deleteOrganization, int64(before.Number))
}
