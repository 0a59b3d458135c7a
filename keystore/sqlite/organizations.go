//go:build unix

package sqlite

import (
	"fmt"
	"time"

	"github.com/warderhq/warder/keystore"
)

// organizationColumns, organizationTargets and organizationValues name the
// columns of an organization, but its number, in one order.
var organizationColumns = []string{
	"slug", "default_expiry", "maximum_expiry", "grace", "rate_limit",
	"allowed_scopes", "allowed_permissions", "metadata", "created", "revision",
}

func organizationTargets(o *keystore.Organization) []any {
	return []any{
		number(&o.Number),
		text(&o.Slug), number(&o.DefaultExpiry), number(&o.MaximumExpiry), seconds{&o.Grace}, limited{&o.Limit},
		list[string]{&o.AllowedScopes}, list[string]{&o.AllowedPermissions}, text(&o.Metadata), number(&o.Created), number(&o.Revision),
	}
}

func organizationValues(o *keystore.Organization) []any {
	return []any{
		o.Slug, int64(o.DefaultExpiry), int64(o.MaximumExpiry), int64(o.Grace / time.Second), o.Limit.String(),
		listText(o.AllowedScopes), listText(o.AllowedPermissions), o.Metadata, int64(o.Created), int64(o.Revision),
	}
}

// Organization implements keystore.OrganizationTx.
func (t *tx) Organization(slug string) (keystore.Organization, error) {
	var o keystore.Organization
	found, err := t.row("reading an organization", t.store.write.organization, organizationTargets(&o), slug)
	if err != nil {
		return keystore.Organization{}, err
	}
	if !found {
		return keystore.Organization{}, fmt.Errorf("reading organization %s: %w", slug, keystore.ErrOrganizationNotFound)
	}
	t.owners[slug] = true
	return o, nil
}

// PutOrganization implements keystore.OrganizationTx.
func (t *tx) PutOrganization(o *keystore.Organization) error {
	var before keystore.Organization
	_, err := t.row("reading an organization", t.store.write.organization, organizationTargets(&before), o.Slug)
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
	*o = after
	return nil
}

func (t *tx) writeOrganization(o *keystore.Organization) (err error) {
	if o.Number == 0 {
		o.Number, err = t.insert("inserting an organization", t.store.write.insertOrganization, organizationValues(o)...)
		return err
	}
	return t.exec("updating an organization", t.store.write.updateOrganization, append(organizationValues(o), int64(o.Number))...)
}

// DeleteOrganization implements keystore.OrganizationTx.
func (t *tx) DeleteOrganization(slug string) error {
	before, err := t.Organization(slug)
	if err != nil {
		return err
	}
	var owned keystore.Number
	inUse, err := t.row("reading an organization's keys", t.store.write.owned, []any{number(&owned)}, slug)
	if err != nil {
		return err
	}
	if inUse {
		return fmt.Errorf("deleting organization %s: %w", slug, keystore.ErrOrganizationInUse)
	}
	if _, err := t.log(keystore.KindOrganization, slug, nil); err != nil {
		return err
	}
	delete(t.owners, slug)
	return t.exec("deleting an organization", t.store.write.deleteOrganization, int64(before.Number))
}
