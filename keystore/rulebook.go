package keystore

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"
)

// Rulebook holds the permissions in memory, ready to be asked: a change of one
// counts at once for all keys that refer to it. Safe for concurrent use; the
// zero Rulebook knows none, and allows nothing to keys that refer to any.
type Rulebook struct {
	byID atomic.Pointer[map[string]*rules] // replaced, never changed
}

// rules is a permission, compiled.
type rules struct {
	permission Permission
	rules      []rule
}

type rule struct {
	methods []string // none: all
	paths   []PathPattern
}

// Allows reports whether a key with these permissions, of this organization,
// may use method on path, which is in normal form. What the organization does
// not allow its keys does not count, whenever it was granted. It does not
// allocate.
func (b *Rulebook) Allows(granted PermissionSet, org *Organization, method, path string) bool {
	switch {
	case org == nil:
		return false
	case granted != "":
		return b.anyOf(granted, org, method, path)
	case org.AllowedPermissions == nil:
		return true
	}
	for _, id := range org.AllowedPermissions {
		if b.rules(id).allow(org, method, path) {
			return true
		}
	}
	return false
}

func (b *Rulebook) anyOf(granted PermissionSet, org *Organization, method, path string) bool {
	rest, id, more := string(granted), "", true
	for more {
		id, rest, more = strings.Cut(rest, " ")
		if org.allowsPermission(id) && b.rules(id).allow(org, method, path) {
			return true
		}
	}
	return false
}

func (b *Rulebook) rules(id string) *rules {
	if m := b.byID.Load(); m != nil {
		return (*m)[id]
	}
	return nil
}

// Permission returns the permission, or nil. Not to be changed.
func (b *Rulebook) Permission(id string) *Permission {
	if r := b.rules(id); r != nil {
		return &r.permission
	}
	return nil
}

// Permissions returns those that keys of the organization may refer to, in the
// order of their names; all of them if organization is empty.
func (b *Rulebook) Permissions(organization string) []Permission {
	var out []Permission
	if m := b.byID.Load(); m != nil {
		for _, r := range *m {
			if r != nil && (organization == "" || r.permission.servesOnly(organization)) {
				out = append(out, r.permission)
			}
		}
	}
	slices.SortFunc(out, func(x, y Permission) int {
		if c := strings.Compare(x.Name, y.Name); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return out
}

// allow is false for nil: a permission that is not known allows nothing.
func (r *rules) allow(org *Organization, method, path string) bool {
	if r == nil || !r.permission.servesOnly(org.Slug) {
		return false
	}
	for i := range r.rules {
		if r.rules[i].allows(method, path) {
			return true
		}
	}
	return false
}

func (r *rule) allows(method, path string) bool {
	if len(r.methods) > 0 && !slices.Contains(r.methods, method) && (method != "HEAD" || !slices.Contains(r.methods, "GET")) {
		return false
	}
	for i := range r.paths {
		if r.paths[i].Matches(path) {
			return true
		}
	}
	return false
}

// servesOnly reports whether keys of the organization may refer to it at all.
func (p *Permission) servesOnly(organization string) bool {
	return p.Organization == "" || p.Organization == organization
}

func (o *Organization) allowsPermission(id string) bool {
	return o.AllowedPermissions == nil || slices.Contains(o.AllowedPermissions, id)
}

// Reset implements Applier.
func (b *Rulebook) Reset(s Snapshot) error {
	m := make(map[string]*rules)
	for i := range s.Documents {
		if d := &s.Documents[i]; d.Kind == KindPermission {
			m[d.Name] = compile(d)
		}
	}
	b.byID.Store(&m)
	return nil
}

// Apply implements Applier.
func (b *Rulebook) Apply(c Change, _ Revision) error {
	if c.Kind != KindPermission {
		return nil
	}
	m := maps.Clone(*b.byID.Load())
	if c.Document == nil {
		delete(m, c.Name)
	} else {
		m[c.Name] = compile(c.Document)
	}
	b.byID.Store(&m)
	return nil
}

// compile prepares a permission. One that cannot be read allows nothing, and
// nor does a rule with a path that could not match: a newer node may know
// more of them.
func compile(d *Document) *rules {
	p, err := permissionOf(d)
	if err != nil {
		return nil
	}
	out := &rules{permission: p}
	for _, r := range p.Rules {
		compiled := rule{methods: r.Methods}
		for _, path := range r.Paths {
			if pattern, ok := ParsePathPattern(path); ok {
				compiled.paths = append(compiled.paths, pattern)
			}
		}
		out.rules = append(out.rules, compiled)
	}
	return out
}

// Interface guards.
var _ Applier = (*Rulebook)(nil)
