package caddymodule

import (
	"strings"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// permissionNames are the permissions that the caller sees, by name. The wire
// knows ids only.
type permissionNames map[string][]managementapi.Permission

const permissionID = "perm_"

// permissionID returns the id of a permission given by id or by name: one of
// the organization, or of everybody if that is empty. A name that means none,
// or two, is refused; place is to blame for it.
func (s *session) permissionID(place, text, organization string) (string, error) {
	if strings.HasPrefix(text, permissionID) {
		return text, nil
	}
	names, err := s.permissionNames()
	if err != nil {
		return "", err
	}
	var found []string
	for _, p := range names[text] {
		if p.Organization == nil || *p.Organization == organization {
			found = append(found, p.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", notFoundf("%s: there is no permission %q here; see permissions list", place, text)
	default:
		return "", usagef("%s: %q names several permissions; give the id of one: %s", place, text, strings.Join(found, ", "))
	}
}

func (s *session) permissionNames() (permissionNames, error) {
	if s.permissions != nil {
		return s.permissions, nil
	}
	all, err := s.all("permissions", nil, 0)
	if err != nil {
		return nil, err
	}
	names := permissionNames{}
	for _, raw := range all {
		p, err := decode[managementapi.Permission](raw)
		if err != nil {
			return nil, err
		}
		names[p.Name] = append(names[p.Name], p)
	}
	s.permissions = names
	return names, nil
}

// readSharedPermissions reads permissions that belong to no organization.
func readSharedPermissions(s *session, flag string) (any, error) {
	return s.permissionIDs(flag, "")
}

// readKeyPermissions reads permissions that the command's key may refer to.
func readKeyPermissions(s *session, flag string) (any, error) {
	organization := ""
	if s.hasNames(flag) {
		var err error
		if organization, err = s.keyOwner(); err != nil {
			return nil, err
		}
	}
	return s.permissionIDs(flag, organization)
}

func (s *session) permissionIDs(flag, organization string) ([]string, error) {
	ids := []string{}
	for _, text := range s.words(flag) {
		id, err := s.permissionID("--"+flag, text, organization)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (s *session) hasNames(flag string) bool {
	for _, text := range s.words(flag) {
		if !strings.HasPrefix(text, permissionID) {
			return true
		}
	}
	return false
}

// keyOwner returns the organization of the key that the command is about: of
// one that is there, what the server says; of a new one, what it will be.
func (s *session) keyOwner() (string, error) {
	switch {
	case len(s.args) > 0:
		raw, err := s.get(nil, "keys", s.args[0])
		if err != nil {
			return "", err
		}
		key, err := decode[managementapi.Key](raw)
		return key.Organization, err
	case s.text("organization") != "":
		return s.text("organization"), nil
	default:
		return s.ownOrganization()
	}
}

// ownOrganization is where the caller's keys are made unless it says otherwise.
func (s *session) ownOrganization() (string, error) {
	raw, err := s.get(nil, "self")
	if err != nil {
		return "", err
	}
	self, err := decode[managementapi.Self](raw)
	return orNull(self.Organization, keystore.DefaultOrganization), err
}
