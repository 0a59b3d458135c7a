package keystore

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Service is the management verbs. Each checks what its caller may do, runs
// the rule inside one transaction, and answers when this node has applied
// the change: from then on no request here passes on the older state.
//
// Errors are those of errors.go; a *FieldError names a bad field.
type Service struct {
	Store       ServiceStore
	Follower    *Follower
	Credentials *Credentials
	Replays     *Replays
	Policy      Policy
}

// ServiceStore is what the Service needs of a store.
type ServiceStore interface {
	Records
	Transactor
}

// Policy is what a configuration decides about new secrets.
type Policy struct {
	Prefix string        // of API keys
	Grace  time.Duration // how long a rotated-out secret passes
}

// Issued is a key with its secret: the only time that it is shown.
type Issued struct {
	Record    Record
	APIKey    Secret
	SecretKey Secret
	Replayed  bool // a kept answer to an earlier call
}

// applyTimeout bounds how long an answer waits for this node to apply what it
// has already committed.
const applyTimeout = 5 * time.Second

// NewKey asks for a key. Zero fields take defaults.
type NewKey struct {
	Organization string
	Name         string
	Type         Type
	Scopes       []string
	Metadata     string
	Expires      Instant
}

// CreateKey makes a key of generation 1. once may be nil.
func (s *Service) CreateKey(ctx context.Context, c Caller, in NewKey, once *Once, now time.Time) (Issued, error) {
	if in.Organization == "" {
		in.Organization = c.home()
	}
	return s.issue(ctx, c, once, now, func(tx Tx) (Issued, error) {
		if !c.Administers() && in.Organization != c.Organization {
			return Issued{}, ErrOrganizationNotFound
		}
		org, err := tx.Organization(in.Organization)
		if err != nil {
			return Issued{}, err
		}
		return s.create(tx, c, &org, in, now)
	})
}

// CreateOrganization makes an organization together with its first key.
// Administrators only. once may be nil.
func (s *Service) CreateOrganization(ctx context.Context, c Caller, org Organization, in NewKey, once *Once, now time.Time) (Issued, error) {
	return s.issue(ctx, c, once, now, func(tx Tx) (Issued, error) {
		if !c.Administers() {
			return Issued{}, ErrForbidden
		}
		if err := org.Validate(); err != nil {
			return Issued{}, err
		}
		org.Number, org.Created = 0, InstantOf(now)
		if err := tx.PutOrganization(&org); err != nil {
			return Issued{}, err
		}
		in.Organization = org.Slug
		return s.create(tx, c, &org, in, now)
	})
}

func (s *Service) create(tx Tx, c Caller, org *Organization, in NewKey, now time.Time) (Issued, error) {
	if in.Type == TypeUnknown {
		in.Type = TypeStandard
	}
	if !c.Scopes.Grants(ScopeKeys) || (in.Type == TypeTrial && !c.Administers()) {
		return Issued{}, ErrForbidden
	}
	scopes, err := c.grant(org, in.Scopes)
	if err != nil {
		return Issued{}, err
	}
	expires, err := org.ExpiryOf(in.Type, in.Expires, now)
	if err != nil {
		return Issued{}, err
	}
	access, secret := s.Credentials.NewAccessKey(), s.Credentials.NewSecretKey()
	rec := Record{
		ID: NewKeyID(), Organization: org.Slug, Name: in.Name, Type: in.Type,
		Current: Pair{Generation: 1, AccessKey: access, Digest: s.Credentials.Digest(secret.Reveal())},
		Created: InstantOf(now), Expires: expires, Scopes: scopes, Metadata: in.Metadata,
	}
	if err := rec.Validate(); err != nil {
		return Issued{}, err
	}
	if err := tx.PutKey(&rec); err != nil {
		return Issued{}, err
	}
	return s.issued(rec, secret), nil
}

// Rotation says how to replace a secret.
type Rotation struct {
	Force   bool // the replaced secret is dead at once
	IfMatch Revision
}

// Rotate gives the key a new secret under the same access key; see
// Record.Rotate. once may be nil.
func (s *Service) Rotate(ctx context.Context, c Caller, id KeyID, how Rotation, once *Once, now time.Time) (Issued, error) {
	grace := s.Policy.Grace
	if how.Force {
		grace = 0
	}
	return s.reissue(ctx, c, id, how.IfMatch, once, now, func(_ Tx, r *Record, secret Secret) error {
		return r.Rotate(s.Credentials.Digest(secret.Reveal()), grace, now)
	})
}

// Regenerate gives the key a new access key and secret and a new life; see
// Record.Regenerate. expires zero takes the default. once may be nil.
func (s *Service) Regenerate(ctx context.Context, c Caller, id KeyID, expires Instant, ifMatch Revision, once *Once, now time.Time) (Issued, error) {
	return s.reissue(ctx, c, id, ifMatch, once, now, func(tx Tx, r *Record, secret Secret) error {
		if err := c.extends(r); err != nil {
			return err
		}
		org, err := tx.Organization(r.Organization)
		if err != nil {
			return err
		}
		until, err := org.ExpiryOf(r.Type, expires, now)
		if err != nil {
			return err
		}
		return r.Regenerate(s.Credentials.NewAccessKey(), s.Credentials.Digest(secret.Reveal()), until)
	})
}

func (s *Service) reissue(ctx context.Context, c Caller, id KeyID, ifMatch Revision, once *Once, now time.Time,
	replace func(Tx, *Record, Secret) error,
) (Issued, error) {
	return s.issue(ctx, c, once, now, func(tx Tx) (Issued, error) {
		secret := s.Credentials.NewSecretKey()
		rec, err := edit(tx, c, id, ifMatch, func(r *Record) error { return replace(tx, r, secret) })
		if err != nil {
			return Issued{}, err
		}
		return s.issued(rec, secret), nil
	})
}

// Renew moves the expiry; see Record.Renew.
func (s *Service) Renew(ctx context.Context, c Caller, id KeyID, days Days, ifMatch Revision, now time.Time) (Record, error) {
	return s.change(ctx, c, id, ifMatch, func(tx Tx, r *Record) error {
		if err := c.extends(r); err != nil {
			return err
		}
		org, err := tx.Organization(r.Organization)
		if err != nil {
			return err
		}
		return r.Renew(days, &org, now)
	})
}

// Expire ends the key's life now; see Record.Expire.
func (s *Service) Expire(ctx context.Context, c Caller, id KeyID, ifMatch Revision, now time.Time) (Record, error) {
	return s.change(ctx, c, id, ifMatch, func(_ Tx, r *Record) error { return r.Expire(now) })
}

// SetDeactivated sets the owner's switch.
func (s *Service) SetDeactivated(ctx context.Context, c Caller, id KeyID, on bool, ifMatch Revision) (Record, error) {
	return s.change(ctx, c, id, ifMatch, func(_ Tx, r *Record) error { r.SetDeactivated(on); return nil })
}

// SetBlocked sets the administrator's switch. Administrators only.
func (s *Service) SetBlocked(ctx context.Context, c Caller, id KeyID, on bool, ifMatch Revision) (Record, error) {
	return s.change(ctx, c, id, ifMatch, func(_ Tx, r *Record) error {
		if !c.Administers() {
			return ErrForbidden
		}
		r.SetBlocked(on)
		return nil
	})
}

// Editable is what Update may change of a key.
type Editable struct {
	Name     string
	Scopes   []string
	Metadata string
}

// Update lets fn edit the key's free fields as they are at commit.
func (s *Service) Update(ctx context.Context, c Caller, id KeyID, ifMatch Revision, fn func(*Editable) error) (Record, error) {
	return s.change(ctx, c, id, ifMatch, func(tx Tx, r *Record) error {
		e := Editable{Name: r.Name, Scopes: r.Scopes.List(), Metadata: r.Metadata}
		if err := fn(&e); err != nil {
			return err
		}
		org, err := tx.Organization(r.Organization)
		if err != nil {
			return err
		}
		if !slices.Equal(e.Scopes, r.Scopes.List()) {
			if r.Scopes, err = c.grant(&org, e.Scopes); err != nil {
				return err
			}
		}
		r.Name, r.Metadata = e.Name, e.Metadata
		return r.Validate()
	})
}

// DeleteKey removes the key for good.
func (s *Service) DeleteKey(ctx context.Context, c Caller, id KeyID, ifMatch Revision) (Revision, error) {
	return s.transact(ctx, func(tx Tx) error {
		r, err := managed(tx, c, id, ifMatch)
		if err != nil {
			return err
		}
		return tx.DeleteKey(r.ID)
	})
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
	return rec, c.reads(&rec)
}

// ListKeys returns a page of the keys that the caller may see.
func (s *Service) ListKeys(ctx context.Context, c Caller, q Query) (Page, error) {
	if !c.Scopes.Grants(ScopeRead) {
		return Page{}, ErrForbidden
	}
	if !c.Administers() {
		if c.Organization == "" {
			return Page{}, ErrForbidden // an empty organization would list all
		}
		if q.Organization != "" && q.Organization != c.Organization {
			return Page{}, ErrOrganizationNotFound
		}
		q.Organization = c.Organization
	}
	return s.Store.List(ctx, q)
}

// UpdateOrganization lets fn edit an organization as it is at commit; its
// slug and numbers stay. Administrators only.
func (s *Service) UpdateOrganization(ctx context.Context, c Caller, slug string, ifMatch Revision, fn func(*Organization) error) (Organization, error) {
	var org Organization
	_, err := s.transact(ctx, func(tx Tx) (err error) {
		if !c.Administers() {
			return ErrForbidden
		}
		if org, err = tx.Organization(slug); err != nil {
			return err
		}
		if ifMatch != 0 && ifMatch != org.Revision {
			return ErrStaleEdit
		}
		was := org
		if err := fn(&org); err != nil {
			return err
		}
		org.Slug, org.Number, org.Created, org.Revision = was.Slug, was.Number, was.Created, was.Revision
		if err := org.Validate(); err != nil {
			return err
		}
		return tx.PutOrganization(&org)
	})
	return org, err
}

// change runs a transition and returns the record as it was committed.
func (s *Service) change(ctx context.Context, c Caller, id KeyID, ifMatch Revision, fn func(Tx, *Record) error) (Record, error) {
	var rec Record
	_, err := s.transact(ctx, func(tx Tx) (err error) {
		rec, err = edit(tx, c, id, ifMatch, func(r *Record) error { return fn(tx, r) })
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
	if err := fn(&rec); err != nil {
		return Record{}, err
	}
	return rec, tx.PutKey(&rec)
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

// issue runs a transaction whose answer holds a secret. With once, the answer
// is kept in the same transaction, and an earlier one is given again.
func (s *Service) issue(ctx context.Context, c Caller, once *Once, now time.Time, fn func(Tx) (Issued, error)) (Issued, error) {
	var answer Issued
	run := func(tx Tx) (err error) { answer, err = fn(tx); return err }
	if once != nil {
		id := once.id(c)
		end, err := s.Replays.begin(id)
		if err != nil {
			return Issued{}, err
		}
		defer end()
		run = func(tx Tx) (err error) { answer, err = s.issueOnce(tx, once, id, now, fn); return err }
	}
	if _, err := s.transact(ctx, run); err != nil {
		return Issued{}, err
	}
	return answer, nil
}

func (s *Service) issueOnce(tx Tx, once *Once, id ReplyID, now time.Time, fn func(Tx) (Issued, error)) (Issued, error) {
	kept, found, err := tx.Reply(id)
	if err != nil {
		return Issued{}, err
	}
	if found && now.Sub(kept.Created.Time()) < ReplayLife {
		return s.Replays.open(once, kept, now)
	}
	answer, err := fn(tx)
	if err != nil {
		return Issued{}, err
	}
	sealed, err := s.Replays.seal(once, id, answer)
	if err != nil {
		return Issued{}, err
	}
	return answer, tx.PutReply(Reply{
		ID: id, Request: once.Request, Key: answer.Record.ID, Sealed: sealed, Created: InstantOf(now),
	})
}

func (s *Service) issued(rec Record, secret Secret) Issued {
	return Issued{Record: rec, SecretKey: secret, APIKey: FormatAPIKey(s.Policy.Prefix, rec.Current.AccessKey, secret)}
}

// transact commits, then waits until this node has applied the commit, even
// if the caller has gone: what is committed has to take effect.
func (s *Service) transact(ctx context.Context, fn func(Tx) error) (Revision, error) {
	revision, err := s.Store.Transact(ctx, fn)
	if err != nil {
		s.Follower.Wake() // it may have been committed all the same: the answer got lost
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	if err := s.Follower.Await(ctx, revision); err != nil {
		return 0, fmt.Errorf("committed, but not yet in force: %w", unavailable(err))
	}
	return revision, nil
}

func (c Caller) home() string {
	if c.Organization != "" {
		return c.Organization
	}
	return DefaultOrganization
}
