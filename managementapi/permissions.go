package managementapi

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/warderhq/warder/keystore"
)

// Permission is a permission as callers see it.
type Permission struct {
	ID           string            `json:"id"`
	Organization *string           `json:"organization"` // whose keys alone may refer to it; null: everybody's
	Name         string            `json:"name"`
	Description  string            `json:"description"`
	Rules        []Rule            `json:"rules"`
	Metadata     json.RawMessage   `json:"metadata"`
	CreatedAt    time.Time         `json:"created_at"`
	Revision     keystore.Revision `json:"revision"`
}

// Rule allows methods on paths. Without methods, all.
type Rule struct {
	Methods []string `json:"methods"`
	Paths   []string `json:"paths"`
}

// PermissionPage is a part of a list, in the order of names.
type PermissionPage struct {
	Permissions []Permission `json:"permissions"`
	Next        *string      `json:"next"`
}

// DeletedPermission is the answer to a deletion.
type DeletedPermission struct {
	ID       string            `json:"id"`
	Deleted  bool              `json:"deleted"`
	Revision keystore.Revision `json:"revision"`
}

// permissionFields is the part of a body that describes a permission.
type permissionFields struct {
	name        field[string]
	description field[string]
	rules       field[[]object]
	metadata    field[free]
}

func (f *permissionFields) members() members {
	return members{"name": &f.name, "description": &f.description, "rules": &f.rules, "metadata": &f.metadata}
}

// edit applies what is present. A list of rules replaces the whole list.
func (f *permissionFields) edit(p *keystore.Permission) (err error) {
	f.name.applyTo(&p.Name)
	f.description.applyTo(&p.Description)
	if f.rules.present {
		if p.Rules, err = rulesOf(f.rules.value); err != nil {
			return err
		}
	}
	p.Metadata, err = patchMetadata(p.Metadata, f.metadata)
	return err
}

func rulesOf(list []object) ([]keystore.Rule, error) {
	rules := make([]keystore.Rule, len(list))
	for i, in := range list {
		pointer := "/rules/" + strconv.Itoa(i)
		if in == nil {
			return nil, &keystore.FieldError{Pointer: pointer, Reason: expectation(in)}
		}
		var methods, paths field[[]string]
		if err := in.into(members{"methods": &methods, "paths": &paths}); err != nil {
			return nil, below(pointer, err)
		}
		rules[i] = keystore.Rule{Methods: methods.value, Paths: paths.value}
	}
	return rules, nil
}

func (a *API) createPermission(c *call) (answer, error) {
	var in permissionFields
	var organization field[string]
	known := in.members()
	known["organization"] = &organization
	if err := c.body.into(known); err != nil {
		return answer{}, err
	}
	p := keystore.Permission{Organization: organization.value}
	if err := in.edit(&p); err != nil {
		return answer{}, err
	}
	p, err := a.Service.CreatePermission(c.Context(), c.attempt(), p, c.now)
	if err != nil {
		return answer{}, err
	}
	ans := permissionAnswer(&p)
	ans.status, ans.location = http.StatusCreated, "/permissions/"+p.ID
	return ans, nil
}

func (a *API) listPermissions(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	limit, err := limitOf(c.query)
	if err != nil {
		return answer{}, err
	}
	after, err := permissionCursor(c.query)
	if err != nil {
		return answer{}, err
	}
	all, err := a.Service.Permissions(c.caller, c.query["organization"])
	if err != nil {
		return answer{}, err
	}
	all = slices.DeleteFunc(all, func(p keystore.Permission) bool { return placeOf(&p) <= after })
	page := PermissionPage{Permissions: []Permission{}}
	for i := range all[:min(limit, len(all))] {
		page.Permissions = append(page.Permissions, permissionOf(&all[i]))
	}
	if len(all) > limit {
		next := base64.RawURLEncoding.EncodeToString([]byte(placeOf(&all[limit-1])))
		page.Next = &next
	}
	return answer{body: page}, nil
}

// placeOf is where a permission stands in the list, whether or not it is still
// there. No name and no id holds a NUL.
func placeOf(p *keystore.Permission) string { return p.Name + "\x00" + p.ID }

func permissionCursor(p map[string]string) (string, error) {
	text, ok := p["after"]
	if !ok {
		return "", nil
	}
	place, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || strings.Count(string(place), "\x00") != 1 {
		return "", errCursor
	}
	return string(place), nil
}

func (a *API) getPermission(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	p, err := a.Service.Permission(c.caller, c.PathValue("id"))
	if err != nil {
		return answer{}, err
	}
	return permissionAnswer(&p), nil
}

func (a *API) updatePermission(c *call) (answer, error) {
	var in permissionFields
	if err := c.body.into(in.members()); err != nil {
		return answer{}, err
	}
	ifMatch, err := a.ifMatchPermission(c)
	if err != nil {
		return answer{}, err
	}
	p, err := a.Service.UpdatePermission(c.Context(), c.attempt(), c.PathValue("id"), ifMatch, in.edit)
	if err != nil {
		return answer{}, err
	}
	return permissionAnswer(&p), nil
}

func (a *API) deletePermission(c *call) (answer, error) {
	if err := c.body.into(nil); err != nil {
		return answer{}, err
	}
	ifMatch, err := a.ifMatchPermission(c)
	if err != nil {
		return answer{}, err
	}
	id := c.PathValue("id")
	revision, err := a.Service.DeletePermission(c.Context(), c.attempt(), id, ifMatch)
	if err != nil {
		return answer{}, err
	}
	return answer{body: DeletedPermission{ID: id, Deleted: true, Revision: revision}}, nil
}

func (a *API) ifMatchPermission(c *call) (keystore.Revision, error) {
	return c.ifMatch(func() (keystore.Revision, error) {
		p, err := a.Service.Permission(c.caller, c.PathValue("id"))
		return p.Revision, err
	})
}

func permissionAnswer(p *keystore.Permission) answer {
	return answer{body: permissionOf(p), revision: p.Revision}
}

func permissionOf(p *keystore.Permission) Permission {
	out := Permission{
		ID: p.ID, Organization: textOf(p.Organization), Name: p.Name, Description: p.Description, Rules: []Rule{},
		Metadata: metadataOf(p.Metadata), CreatedAt: p.Created.Time(), Revision: p.Revision,
	}
	for _, r := range p.Rules {
		out.Rules = append(out.Rules, Rule{Methods: listed(r.Methods), Paths: listed(r.Paths)})
	}
	return out
}
