package keystore

import (
	"cmp"
	"maps"
	"slices"
	"sync/atomic"
)

// Directory holds the organizations in memory. Safe for concurrent use; the
// zero Directory knows none.
type Directory struct {
	bySlug atomic.Pointer[map[string]*Organization] // replaced, never changed
}

// Organization returns the organization, or nil. Not to be changed.
func (d *Directory) Organization(slug string) *Organization {
	if m := d.bySlug.Load(); m != nil {
		return (*m)[slug]
	}
	return nil
}

// Organizations returns all of them in the order of their numbers. Not to be
// changed.
func (d *Directory) Organizations() []*Organization {
	m := d.bySlug.Load()
	if m == nil {
		return nil
	}
	return slices.SortedFunc(maps.Values(*m), func(x, y *Organization) int { return cmp.Compare(x.Number, y.Number) })
}

// Reset implements Applier.
func (d *Directory) Reset(s Snapshot) error {
	m := make(map[string]*Organization, len(s.Organizations))
	for _, o := range s.Organizations {
		m[o.Slug] = &o
	}
	d.bySlug.Store(&m)
	return nil
}

// Apply implements Applier.
func (d *Directory) Apply(c Change, _ Revision) error {
	if c.Kind != KindOrganization {
		return nil
	}
	m := maps.Clone(*d.bySlug.Load())
	if c.Organization == nil {
		delete(m, c.Name)
	} else {
		m[c.Name] = c.Organization
	}
	d.bySlug.Store(&m)
	return nil
}

// Interface guards.
var (
	_ Applier = (*Directory)(nil)
	_ Applier = (*View)(nil)
)
