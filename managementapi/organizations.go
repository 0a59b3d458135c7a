package managementapi

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/warderhq/warder/keystore"
)

// organizationFields is the part of a body that describes an organization.
type organizationFields struct {
	defaultDays field[int]
	maximumDays field[int]
	grace       field[int]
	limit       field[string]
	scopes      field[[]string]
	permissions field[[]string]
	metadata    field[free]
}

func (f *organizationFields) members() members {
	return members{
		"default_expiry_days": &f.defaultDays, "maximum_expiry_days": &f.maximumDays,
		"grace_seconds": &f.grace, "limit": &f.limit,
		"allowed_scopes": &f.scopes, "allowed_permissions": &f.permissions, "metadata": &f.metadata,
	}
}

// edit applies what is present. Zero would read as "never" or "none", which is
// what null says, so it is refused as any other wrong number. A null list is
// nil, which is not the empty list.
func (f *organizationFields) edit(o *keystore.Organization) (err error) {
	if err := setDays(&o.DefaultExpiry, f.defaultDays, "/default_expiry_days"); err != nil {
		return err
	}
	if err := setDays(&o.MaximumExpiry, f.maximumDays, "/maximum_expiry_days"); err != nil {
		return err
	}
	if err := f.setGrace(&o.Grace); err != nil {
		return err
	}
	if f.limit.present {
		if o.Limit, err = parseLimit(f.limit); err != nil {
			return err
		}
	}
	f.scopes.applyTo(&o.AllowedScopes)
	f.permissions.applyTo(&o.AllowedPermissions)
	o.Metadata, err = patchMetadata(o.Metadata, f.metadata)
	return err
}

func setDays(into *keystore.Days, f field[int], pointer string) error {
	if f.given() && (f.value < 1 || f.value > int(keystore.MaximumDays)) {
		return &keystore.FieldError{Pointer: pointer, Reason: "must be 1 to 36525, or null"}
	}
	if f.present {
		*into = keystore.Days(f.value)
	}
	return nil
}

func (f *organizationFields) setGrace(into *time.Duration) error {
	if f.grace.given() && (f.grace.value < 1 || f.grace.value > int(keystore.MaximumGrace/time.Second)) {
		return &keystore.FieldError{Pointer: "/grace_seconds", Reason: "must be 1 to 31536000, or null"}
	}
	if f.grace.present {
		*into = time.Duration(f.grace.value) * time.Second
	}
	return nil
}

// createOrganization answers with the organization's first key.
func (a *API) createOrganization(c *call) (answer, error) {
	var (
		slug   field[string]
		fields organizationFields
		key    field[object]
		first  newKey
	)
	known := fields.members()
	known["slug"], known["key"] = &slug, &key
	if err := c.body.into(known); err != nil {
		return answer{}, err
	}
	if err := key.value.into(first.members()); err != nil {
		return answer{}, below("/key", err)
	}
	org := keystore.Organization{Slug: slug.value}
	if err := fields.edit(&org); err != nil {
		return answer{}, err
	}
	if err := org.Validate(); err != nil { // here, so that a later FieldError is the key's
		return answer{}, err
	}
	in, err := first.asked(c.now)
	if err != nil {
		return answer{}, below("/key", err)
	}
	once, err := c.once()
	if err != nil {
		return answer{}, err
	}
	issued, err := a.Service.CreateOrganization(c.Context(), c.attempt(), org, in, once, c.now)
	if err != nil {
		return answer{}, blameFirst(first.expiry.blame(err))
	}
	ans := c.issued(&issued, nil)
	ans.status, ans.location = http.StatusCreated, "/organizations/"+org.Slug
	return ans, nil
}

// blameFirst makes an error point into the first key, but for what only a store
// can say of the organization.
func blameFirst(err error) error {
	if f, ok := errors.AsType[*keystore.FieldError](err); ok && f.Pointer == "/allowed_permissions" {
		return err
	}
	return below("/key", err)
}

// below moves a FieldError's pointer under a member of the body.
func below(pointer string, err error) error {
	f, ok := errors.AsType[*keystore.FieldError](err)
	if !ok {
		return err
	}
	moved := &keystore.FieldError{Pointer: truncate(pointer + f.Pointer), Reason: f.Reason}
	if errors.Is(err, errUnknownField) {
		return fmt.Errorf("%w: %w", errUnknownField, moved)
	}
	return moved
}

func (a *API) listOrganizations(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	limit, after, err := pageOf(c.query)
	if err != nil {
		return answer{}, err
	}
	all, err := a.Service.Organizations(c.caller)
	if err != nil {
		return answer{}, err
	}
	page := OrganizationPage{Organizations: []Organization{}}
	for _, o := range all {
		if o.Number <= after {
			continue
		}
		if n := len(page.Organizations); n == limit {
			page.Next = cursorOf(page.Organizations[n-1].Number)
			break
		}
		page.Organizations = append(page.Organizations, organizationOf(o))
	}
	return answer{body: page}, nil
}

func (a *API) getOrganization(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	o, err := a.Service.Organization(c.caller, c.slug())
	if err != nil {
		return answer{}, err
	}
	return answer{body: organizationOf(o), revision: o.Revision}, nil
}

func (a *API) updateOrganization(c *call) (answer, error) {
	var fields organizationFields
	if err := c.body.into(fields.members()); err != nil {
		return answer{}, err
	}
	ifMatch, err := a.ifMatchOrganization(c)
	if err != nil {
		return answer{}, err
	}
	o, err := a.Service.UpdateOrganization(c.Context(), c.attempt(), c.slug(), ifMatch, fields.edit)
	if err != nil {
		return answer{}, err
	}
	return answer{body: organizationOf(&o), revision: o.Revision}, nil
}

func (a *API) deleteOrganization(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	ifMatch, err := a.ifMatchOrganization(c)
	if err != nil {
		return answer{}, err
	}
	revision, err := a.Service.DeleteOrganization(c.Context(), c.attempt(), c.slug(), ifMatch)
	if err != nil {
		return answer{}, err
	}
	return answer{body: DeletedOrganization{Slug: c.slug(), Deleted: true, Revision: revision}}, nil
}

func (a *API) ifMatchOrganization(c *call) (keystore.Revision, error) {
	return c.ifMatch(func() (keystore.Revision, error) {
		o, err := a.Service.Organization(c.caller, c.slug())
		if err != nil {
			return 0, err
		}
		return o.Revision, nil
	})
}

func (c *call) slug() string { return c.PathValue("slug") }
