package managementapi

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/warderhq/warder/keystore"
)

// organizationFields is the part of a body that describes an organization.
type organizationFields struct {
	defaultDays field[int]
	maximumDays field[int]
	allowed     field[[]string]
	metadata    field[free]
}

func (f *organizationFields) members() members {
	return members{
		"default_expiry_days": &f.defaultDays, "maximum_expiry_days": &f.maximumDays,
		"allowed_scopes": &f.allowed, "metadata": &f.metadata,
	}
}

// edit applies what is present. Zero days would read as "never" or "none",
// which is what null says, so it is refused as any other wrong number.
func (f *organizationFields) edit(o *keystore.Organization) (err error) {
	if err := setDays(&o.DefaultExpiry, f.defaultDays, "/default_expiry_days"); err != nil {
		return err
	}
	if err := setDays(&o.MaximumExpiry, f.maximumDays, "/maximum_expiry_days"); err != nil {
		return err
	}
	if f.allowed.present {
		o.AllowedScopes = f.allowed.value // null: nil, which is not the empty list
	}
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
	in, err := first.asked(c)
	if err != nil {
		return answer{}, below("/key", err)
	}
	once, err := c.once()
	if err != nil {
		return answer{}, err
	}
	issued, err := a.Service.CreateOrganization(c.Context(), c.caller, org, in, once, c.now)
	if err != nil {
		return answer{}, below("/key", first.expiry.blame(err))
	}
	ans := c.issued(&issued)
	ans.status, ans.location = http.StatusCreated, "/organizations/"+org.Slug
	return ans, nil
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
	all, err := a.organizations(c)
	if err != nil {
		return answer{}, err
	}
	page := OrganizationPage{Organizations: []Organization{}}
	for i := range all {
		if all[i].Number <= after {
			continue
		}
		if n := len(page.Organizations); n == limit {
			page.Next = cursorOf(page.Organizations[n-1].Number)
			break
		}
		page.Organizations = append(page.Organizations, organizationOf(&all[i]))
	}
	return answer{body: page}, nil
}

func (a *API) getOrganization(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	o, err := a.organization(c)
	if err != nil {
		return answer{}, err
	}
	return answer{body: organizationOf(&o), revision: o.Revision}, nil
}

func (a *API) updateOrganization(c *call) (answer, error) {
	var fields organizationFields
	if err := c.body.into(fields.members()); err != nil {
		return answer{}, err
	}
	ifMatch, err := c.ifMatch(func() (keystore.Revision, error) {
		o, err := a.organization(c)
		return o.Revision, err
	})
	if err != nil {
		return answer{}, err
	}
	o, err := a.Service.UpdateOrganization(c.Context(), c.caller, c.PathValue("slug"), ifMatch, fields.edit)
	if err != nil {
		return answer{}, err
	}
	return answer{body: organizationOf(&o), revision: o.Revision}, nil
}

func (a *API) organization(c *call) (keystore.Organization, error) {
	all, err := a.organizations(c)
	if err != nil {
		return keystore.Organization{}, err
	}
	for _, o := range all {
		if o.Slug == c.PathValue("slug") {
			return o, nil
		}
	}
	return keystore.Organization{}, keystore.ErrOrganizationNotFound
}

// organizations returns those that the caller may see, in the order of their
// numbers: an administrator all, everybody else its own.
func (a *API) organizations(c *call) ([]keystore.Organization, error) {
	snapshot, err := a.Organizations.Snapshot(c.Context())
	if err != nil {
		return nil, fmt.Errorf("reading organizations: %w", err)
	}
	seen := slices.DeleteFunc(snapshot.Organizations, func(o keystore.Organization) bool {
		return !c.caller.Administers() && o.Slug != c.caller.Organization
	})
	slices.SortFunc(seen, func(x, y keystore.Organization) int { return cmp.Compare(x.Number, y.Number) })
	return seen, nil
}
