package keystore

import "sync/atomic"

// Settings holds in memory what the store says of itself. Safe for concurrent
// use; the zero Settings say nothing.
type Settings struct{ imports atomic.Bool }

// HoldsImported reports whether the store holds imported credentials. Without
// any, none is looked for.
func (s *Settings) HoldsImported() bool { return s.imports.Load() }

// Reset implements Applier.
func (s *Settings) Reset(snap Snapshot) error {
	held := false
	for i := range snap.Documents {
		d := &snap.Documents[i]
		held = held || d.Kind == KindSettings && d.Name == importsDocument
	}
	s.imports.Store(held)
	return nil
}

// Apply implements Applier.
func (s *Settings) Apply(c Change, _ Revision) error {
	if c.Kind == KindSettings && c.Name == importsDocument {
		s.imports.Store(c.Document != nil)
	}
	return nil
}

// Interface guards.
var _ Applier = (*Settings)(nil)
