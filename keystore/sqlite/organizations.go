//go:build unix

package sqlite

import (
	"fmt"
	"reflect"

	"github.com/warderhq/warder/keystore"
)

const organizationColumns = "number, slug, default_expiry, maximum_expiry, allowed_scopes, metadata, created, revision"

func organizationTargets(o *keystore.Organization) []any {
	return []any{
		number(&o.Number), text(&o.Slug), number(&o.DefaultExpiry), number(&o.MaximumExpiry),
		list[string]{&o.AllowedScopes}, text(&o.Metadata), number(&o.Created), number(&o.Revision),
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
	return o, nil
}

// PutOrganization implements keystore.OrganizationTx.
func (t *tx) PutOrganization(o *keystore.Organization) error {
	var before keystore.Organization
	found, err := t.row("reading an organization", t.store.write.organization, organizationTargets(&before), o.Slug)
	switch {
	case err != nil:
		return err
	case o.Number == 0 && found:
		return fmt.Errorf("creating organization %s: %w", o.Slug, keystore.ErrOrganizationExists)
	case o.Number != 0 && !found:
		return fmt.Errorf("writing organization %s: %w", o.Slug, keystore.ErrOrganizationNotFound)
	case o.Number != before.Number:
		return fmt.Errorf("writing organization %s: its number is %d, not %d", o.Slug, before.Number, o.Number)
	}
	same := *o
	same.Revision = before.Revision
	if found && reflect.DeepEqual(same, before) { // tells a nil list from an empty one
		o.Revision = before.Revision
		return nil
	}
	after := *o
	if after.Revision, err = t.log(keystore.KindOrganization, o.Slug, nil); err != nil {
		return err
	}
	values := []any{
		after.Slug, int64(after.DefaultExpiry), int64(after.MaximumExpiry), listText(after.AllowedScopes),
		after.Metadata, int64(after.Created), int64(after.Revision),
	}
	if found {
		err = t.exec("updating an organization", t.store.write.updateOrganization, append(values, int64(after.Number))...)
	} else {
		after.Number, err = t.insert("inserting an organization", t.store.write.insertOrganization, values...)
	}
	if err != nil {
		return err
	}
	*o = after
	return nil
}
