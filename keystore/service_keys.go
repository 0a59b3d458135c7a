package keystore

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// NewKey asks for a key. Zero fields take defaults.
type NewKey struct {
	Organization string
	Name         string
	Type         Type
	Scopes       []string
	Permissions  []string
	Networks     []string
	Limit        Limit // administrators only
	Metadata     string
	Expires      Instant
}

// CreateKey makes a key of generation 1. once may be nil.
func (s *Service) CreateKey(ctx context.Context, c Caller, in NewKey, once *Once, now time.Time) (Issued, error) {
	return s.issue(ctx, c.does("keys.create", KindKey, ""), once, now, func(tx Tx) (Issued, error) {
		org, err := owner(tx, c, in.Organization)
		if err != nil {
			return Issued{}, err
		}
		return s.create(tx, c, &org, in, now)
	})
}

// owner returns the organization in which the caller makes a key: the one
// asked for, else its own. One that it may not see does not exist for it.
func owner(tx Tx, c Caller, asked string) (Organization, error) {
	if asked == "" {
		asked = c.home()
	}
	if !c.Administers() && asked != c.Organization {
		return Organization{}, ErrOrganizationNotFound
	}
	return tx.Organization(asked)
}

func (s *Service) create(tx Tx, c Caller, org *Organization, in NewKey, now time.Time) (Issued, error) {
	secret := s.Credentials.NewSecretKey()
	first := Pair{Generation: 1, AccessKey: s.Credentials.NewAccessKey(), Digest: s.Credentials.Digest(secret.Reveal())}
	rec, err := put(tx, c, org, in, first, now)
	if err != nil {
		return Issued{}, err
	}
	return s.issued(rec, secret), nil
}

// put makes a key with its first credential: the one way in which keys begin.
func put(tx Tx, c Caller, org *Organization, in NewKey, first Pair, now time.Time) (Record, error) {
	if in.Type == TypeUnknown {
		in.Type = TypeStandard
	}
	if !c.Scopes.Grants(ScopeKeys) || !c.Administers() && (in.Type == TypeTrial || in.Limit != (Limit{})) {
		return Record{}, ErrForbidden
	}
	expires, err := c.within(org).ExpiryOf(in.Type, in.Expires, now)
	if err != nil {
		return Record{}, err
	}
	rec := Record{
		ID: NewKeyID(), Organization: org.Slug, Name: in.Name, Type: in.Type, Current: first,
		Created: InstantOf(now), Expires: expires, Limit: in.Limit, Metadata: in.Metadata,
	}
	if rec.Scopes, err = c.grant(org, in.Scopes); err != nil {
		return Record{}, err
	}
	if rec.Permissions, err = grantPermissions(tx, org, in.Permissions); err != nil {
		return Record{}, err
	}
	if rec.Networks, err = NewNetworks(in.Networks); err != nil {
		return Record{}, err
	}
	if err := rec.Validate(); err != nil {
		return Record{}, err
	}
	return rec, tx.PutKey(&rec)
}

// Rotation says how to replace a secret.
type Rotation struct {
	Force   bool // the replaced secret is dead at once
	IfMatch Revision
}

// Rotate gives the key a new secret under the same access key; see
// Record.Rotate. once may be nil.
func (s *Service) Rotate(ctx context.Context, c Caller, id KeyID, how Rotation, once *Once, now time.Time) (Issued, error) {
	a := c.does("keys.rotate", KindKey, string(id))
	return s.reissue(ctx, a, id, how.IfMatch, once, now, func(tx Tx, r *Record, secret Secret) error {
		grace, err := s.graceOf(tx, r, how)
		if err != nil {
			return err
		}
		if r.Current.Imported() {
			return r.RotateImported(s.Credentials.NewAccessKey(), s.Credentials.Digest(secret.Reveal()), grace, now)
		}
		return r.Rotate(s.Credentials.Digest(secret.Reveal()), grace, now)
	})
}

// graceOf returns how long the replaced secret passes: the organization's word
// goes before the configuration's.
func (s *Service) graceOf(tx Tx, r *Record, how Rotation) (time.Duration, error) {
	org, err := tx.Organization(r.Organization)
	switch {
	case err != nil || how.Force:
		return 0, err
	case org.Grace != 0:
		return org.Grace, nil
	default:
		return s.Policy.Grace, nil
	}
}

// MoveGraceEnd moves until when the replaced secret passes; see
// Record.MoveGraceEnd.
func (s *Service) MoveGraceEnd(ctx context.Context, c Caller, id KeyID, end Instant, ifMatch Revision, now time.Time) (Record, error) {
	return s.change(ctx, c.does("keys.grace", KindKey, string(id)), id, ifMatch, func(_ Tx, r *Record) error {
		return r.MoveGraceEnd(end, now)
	})
}

// Regenerate gives the key a new access key and secret and a new life; see
// Record.Regenerate. expires zero takes the default. once may be nil.
func (s *Service) Regenerate(ctx context.Context, c Caller, id KeyID, expires Instant, ifMatch Revision, once *Once, now time.Time) (Issued, error) {
	a := c.does("keys.regenerate", KindKey, string(id))
	return s.reissue(ctx, a, id, ifMatch, once, now, func(tx Tx, r *Record, secret Secret) error {
		if err := c.extends(r); err != nil {
			return err
		}
		org, err := tx.Organization(r.Organization)
		if err != nil {
			return err
		}
		until, err := c.within(&org).ExpiryOf(r.Type, expires, now)
		if err != nil {
			return err
		}
		return r.Regenerate(s.Credentials.NewAccessKey(), s.Credentials.Digest(secret.Reveal()), until)
	})
}

func (s *Service) reissue(ctx context.Context, a action, id KeyID, ifMatch Revision, once *Once, now time.Time,
	replace func(Tx, *Record, Secret) error,
) (Issued, error) {
	return s.issue(ctx, a, once, now, func(tx Tx) (Issued, error) {
		secret := s.Credentials.NewSecretKey()
		rec, err := edit(tx, a.caller, id, ifMatch, func(r *Record) error { return replace(tx, r, secret) })
		if err != nil {
			return Issued{}, err
		}
		return s.issued(rec, secret), nil
	})
}

// Renew moves the expiry; see Record.Renew.
func (s *Service) Renew(ctx context.Context, c Caller, id KeyID, days Days, ifMatch Revision, now time.Time) (Record, error) {
	return s.change(ctx, c.does("keys.renew", KindKey, string(id)), id, ifMatch, func(tx Tx, r *Record) error {
		if err := c.extends(r); err != nil {
			return err
		}
		org, err := tx.Organization(r.Organization)
		if err != nil {
			return err
		}
		return r.Renew(days, c.within(&org), now)
	})
}

// Expire ends the key's life now; see Record.Expire.
func (s *Service) Expire(ctx context.Context, c Caller, id KeyID, ifMatch Revision, now time.Time) (Record, error) {
	return s.change(ctx, c.does("keys.expire", KindKey, string(id)), id, ifMatch, func(_ Tx, r *Record) error { return r.Expire(now) })
}

// SetDeactivated sets the owner's switch.
func (s *Service) SetDeactivated(ctx context.Context, c Caller, id KeyID, on bool, ifMatch Revision) (Record, error) {
	a := c.does(switched("keys.activate", "keys.deactivate", on), KindKey, string(id))
	return s.change(ctx, a, id, ifMatch, func(_ Tx, r *Record) error { r.SetDeactivated(on); return nil })
}

// SetBlocked sets the administrator's switch. Administrators only.
func (s *Service) SetBlocked(ctx context.Context, c Caller, id KeyID, on bool, ifMatch Revision) (Record, error) {
	a := c.does(switched("keys.unblock", "keys.block", on), KindKey, string(id))
	return s.change(ctx, a, id, ifMatch, func(_ Tx, r *Record) error {
		if !c.Administers() {
			return ErrForbidden
		}
		r.SetBlocked(on)
		return nil
	})
}

func switched(off, on string, to bool) string {
	if to {
		return on
	}
	return off
}

// Editable is what Update may change of a key.
type Editable struct {
	Name        string
	Scopes      []string
	Permissions []string
	Networks    []string
	Limit       Limit // administrators only
	Metadata    string
}

// Update lets fn edit the key's free fields as they are at commit.
func (s *Service) Update(ctx context.Context, c Caller, id KeyID, ifMatch Revision, fn func(*Editable) error) (Record, error) {
	return s.change(ctx, c.does("keys.update", KindKey, string(id)), id, ifMatch, func(tx Tx, r *Record) error {
		e := Editable{
			Name: r.Name, Scopes: r.Scopes.List(), Permissions: r.Permissions.List(), Networks: r.Networks.List(),
			Limit: r.Limit, Metadata: r.Metadata,
		}
		if err := fn(&e); err != nil {
			return err
		}
		org, err := tx.Organization(r.Organization)
		if err != nil {
			return err
		}
		return e.into(tx, c, &org, r)
	})
}

// into asks what the caller may grant only for what it changes: what the key
// already has, somebody else has granted.
func (e *Editable) into(tx Tx, c Caller, org *Organization, r *Record) (err error) {
	if !slices.Equal(e.Scopes, r.Scopes.List()) {
		if r.Scopes, err = c.grant(org, e.Scopes); err != nil {
			return err
		}
	}
	if !slices.Equal(e.Permissions, r.Permissions.List()) {
		if r.Permissions, err = grantPermissions(tx, org, e.Permissions); err != nil {
			return err
		}
	}
	if !slices.Equal(e.Networks, r.Networks.List()) {
		if r.Networks, err = NewNetworks(e.Networks); err != nil {
			return err
		}
	}
	if e.Limit != r.Limit && !c.Administers() {
		return ErrForbidden
	}
	r.Name, r.Limit, r.Metadata = e.Name, e.Limit, e.Metadata
	return r.Validate()
}

// DeleteKey removes the key for good. ErrLastKey for the last standard key of
// an organization, the default one apart, which may be without any.
func (s *Service) DeleteKey(ctx context.Context, c Caller, id KeyID, ifMatch Revision) (Revision, error) {
	return s.transact(ctx, c.does("keys.delete", KindKey, string(id)), func(tx Tx) error {
		r, err := managed(tx, c, id, ifMatch)
		if err != nil {
			return err
		}
		return remove(tx, &r)
	})
}

// remove is the one way in which keys end.
func remove(tx Tx, r *Record) error {
	if r.Type == TypeStandard && r.Organization != DefaultOrganization {
		page, err := tx.Keys(Query{Organization: r.Organization, Type: TypeStandard, Limit: 2})
		if err != nil {
			return err
		}
		if len(page.Records) < 2 {
			return ErrLastKey
		}
	}
	if err := tx.DeleteKey(r.ID); err != nil {
		return err
	}
	return settleImports(tx, r, &Record{})
}

// Key returns one key as the store has it.
func (s *Service) Key(ctx context.Context, c Caller, id KeyID) (Record, error) {
	if !isKeyID(LookupID(id)) {
		return Record{}, ErrKeyNotFound // an access key would find it, too
	}
	rec, _, err := s.Store.Lookup(ctx, LookupID(id))
	switch {
	case err != nil:
		return Record{}, fmt.Errorf("looking up key %s: %w", id, err)
	case rec.ID == "":
		return Record{}, ErrKeyNotFound
	}
	if err := c.reads(&rec); err != nil {
		return Record{}, err
	}
	return rec, nil
}

// Self returns the key that calls, whatever it may do; false for a caller that
// is no key, or none any more.
func (s *Service) Self(ctx context.Context, c Caller) (Record, bool, error) {
	if !isKeyID(LookupID(c.Actor)) {
		return Record{}, false, nil
	}
	rec, _, err := s.Store.Lookup(ctx, LookupID(c.Actor))
	if err != nil {
		return Record{}, false, fmt.Errorf("looking up the calling key %s: %w", c.Actor, err)
	}
	return rec, rec.ID != "", nil
}

// ListKeys returns a page of the keys that the caller may see.
func (s *Service) ListKeys(ctx context.Context, c Caller, q Query) (Page, error) {
	if !c.Scopes.Grants(ScopeRead) {
		return Page{}, ErrForbidden
	}
	var err error
	if q.Organization, err = c.scope(q.Organization); err != nil {
		return Page{}, err
	}
	return s.Store.List(ctx, q)
}

// CountKeys returns how many keys a list would hold in all.
func (s *Service) CountKeys(ctx context.Context, c Caller, q Query) (int, error) {
	if !c.Scopes.Grants(ScopeRead) {
		return 0, ErrForbidden
	}
	var err error
	if q.Organization, err = c.scope(q.Organization); err != nil {
		return 0, err
	}
	return s.Store.Count(ctx, q)
}

// change runs a transition and returns the record as it was committed.
func (s *Service) change(ctx context.Context, a action, id KeyID, ifMatch Revision, fn func(Tx, *Record) error) (Record, error) {
	var rec Record
	_, err := s.transact(ctx, a, func(tx Tx) (err error) {
		rec, err = edit(tx, a.caller, id, ifMatch, func(r *Record) error { return fn(tx, r) })
		return err
	})
	return rec, err
}

// edit is the one way in which a stored key changes.
func edit(tx Tx, c Caller, id KeyID, ifMatch Revision, fn func(*Record) error) (Record, error) {
	rec, err := managed(tx, c, id, ifMatch)
	if err != nil {
		return Record{}, err
	}
	before := rec
	if err := fn(&rec); err != nil {
		return Record{}, err
	}
	if err := tx.PutKey(&rec); err != nil {
		return Record{}, err
	}
	return rec, settleImports(tx, &before, &rec)
}

func managed(tx Tx, c Caller, id KeyID, ifMatch Revision) (Record, error) {
	rec, err := tx.Key(id)
	if err != nil {
		return Record{}, err
	}
	if err := c.manages(&rec); err != nil {
		return Record{}, err
	}
	if ifMatch != 0 && ifMatch != rec.Revision {
		return Record{}, ErrStaleEdit
	}
	return rec, nil
}
