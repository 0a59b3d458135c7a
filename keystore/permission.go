package keystore

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Permission is a named set of rules that keys refer to by its id. A key
// that refers to permissions may do what any rule of any of them allows.
type Permission struct {
	ID           string
	Organization string // whose keys alone may refer to it; empty: everybody's
	Name         string // unique in its organization
	Description  string
	Rules        []Rule
	Metadata     string // a JSON object
	Created      Instant
	Revision     Revision
}

// Rule allows methods on paths.
type Rule struct {
	Methods []string `json:"methods,omitempty"` // none: all
	Paths   []string `json:"paths"`             // see PathPattern
}

// PermissionSet is a set of permission ids in one string: sorted, separated
// by single spaces.
type PermissionSet string

// Bounds of permissions. All of them are in the memory of every node.
const (
	maxPermissions             = 32 // of a key
	maxRules                   = 64
	maxRulePaths               = 64
	maxRuleMethods             = 16
	maxDescription             = 1024
	maxOrganizationPermissions = 1000
	maxAllowedPermissions      = 256
)

const permissionIDPrefix = "perm_"

// NewPermissionID returns a fresh id.
func NewPermissionID() string { return permissionIDPrefix + strings.ToLower(rand.Text()) }

// NewPermissionSet returns the set of the ids, or a *FieldError if there are
// too many. Whether they exist is for the store to say.
func NewPermissionSet(pointer string, ids []string) (PermissionSet, error) {
	if len(ids) > maxPermissions {
		return "", &FieldError{pointer, "at most 32 permissions"}
	}
	for _, id := range ids {
		if len(id) > 64 || !strings.HasPrefix(id, permissionIDPrefix) || strings.ContainsAny(id, " \t\r\n") {
			return "", &FieldError{pointer, "must be ids of permissions"}
		}
	}
	set := slices.Clone(ids)
	slices.Sort(set)
	return PermissionSet(strings.Join(slices.Compact(set), " ")), nil
}

// List returns the ids one by one.
func (s PermissionSet) List() []string { return strings.Fields(string(s)) }

// Validate refuses, with a *FieldError, a permission whose fields are out of
// bounds or whose rules could never match.
func (p *Permission) Validate() error {
	switch {
	case p.Name == "" || !validName(p.Name):
		return &FieldError{"/name", "must be 1 to 128 bytes of UTF-8 without control characters"}
	case len(p.Description) > maxDescription:
		return &FieldError{"/description", "must be at most 1024 bytes"}
	case len(p.Rules) > maxRules:
		return &FieldError{"/rules", "at most 64 rules"}
	}
	for i, rule := range p.Rules {
		if err := rule.validate(fmt.Sprintf("/rules/%d", i)); err != nil {
			return err
		}
	}
	return validateMetadata(p.Metadata, MaximumMetadata)
}

func (r *Rule) validate(pointer string) error {
	switch {
	case len(r.Methods) > maxRuleMethods:
		return &FieldError{pointer + "/methods", "at most 16 methods"}
	case len(r.Paths) == 0 || len(r.Paths) > maxRulePaths:
		return &FieldError{pointer + "/paths", "must be 1 to 64 paths"}
	}
	for i, m := range r.Methods {
		if !validMethod(m) {
			return &FieldError{fmt.Sprintf("%s/methods/%d", pointer, i), "must be a method in upper case, such as GET"}
		}
	}
	for i, path := range r.Paths {
		if _, ok := ParsePathPattern(path); !ok {
			return &FieldError{fmt.Sprintf("%s/paths/%d", pointer, i), "must be a path such as /v1/hello, /v1/* or /v1/*/items, in normal form"}
		}
	}
	return nil
}

func validMethod(m string) bool {
	for i := range len(m) {
		if c := m[i]; (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return m != "" && len(m) <= 32
}

// permissionBody is a permission as its document holds it.
type permissionBody struct {
	Organization string          `json:"organization,omitempty"`
	Name         string          `json:"name"`
	Description  string          `json:"description,omitempty"`
	Rules        []Rule          `json:"rules,omitempty"`
	Metadata     json.RawMessage `json:"metadata,omitempty"`
	Created      Instant         `json:"created"`
}

func (p *Permission) document() (Document, error) {
	body, err := json.Marshal(permissionBody{
		p.Organization, p.Name, p.Description, p.Rules, json.RawMessage(p.Metadata), p.Created,
	})
	if err != nil {
		return Document{}, fmt.Errorf("encoding permission %s: %w", p.ID, err)
	}
	return Document{Kind: KindPermission, Name: p.ID, Body: body}, nil
}

func permissionOf(d *Document) (Permission, error) {
	var b permissionBody
	if err := json.Unmarshal(d.Body, &b); err != nil {
		return Permission{}, fmt.Errorf("decoding permission %s: %w: %w", d.Name, ErrCorrupt, err)
	}
	return Permission{
		ID: d.Name, Organization: b.Organization, Name: b.Name, Description: b.Description, Rules: b.Rules,
		Metadata: string(b.Metadata), Created: b.Created, Revision: d.Revision,
	}, nil
}
