package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// BulkDelete says which keys to delete: the named ones, or all that have
// expired, of one organization (empty: the caller's, or for an administrator
// all).
type BulkDelete struct {
	IDs          []KeyID
	Expired      bool
	Organization string
	DryRun       bool // nothing is deleted; the answer is the same
}

// BulkDeleted is what came of it.
type BulkDeleted struct {
	Deleted []KeyID
	Failed  []BulkFailure
	More    bool // more expired keys are there than one call takes
}

// BulkFailure is a key that stays, and why.
type BulkFailure struct {
	ID  KeyID
	Err error // one of errors.go
}

// MaximumBulk is how many keys one call deletes at most.
const MaximumBulk = 200

// errDryRun ends a transaction that was only to be tried.
var errDryRun = errors.New("dry run")

// DeleteKeys deletes what can be deleted of what in names, in one transaction,
// and says of the rest why not.
func (s *Service) DeleteKeys(ctx context.Context, c Caller, in BulkDelete, now time.Time) (BulkDeleted, error) {
	if in.Expired == (len(in.IDs) > 0) {
		return BulkDeleted{}, &FieldError{"/ids", "must be there, or expired, but not both"}
	}
	if len(in.IDs) > MaximumBulk {
		return BulkDeleted{}, &FieldError{"/ids", "at most 200 keys"}
	}
	if len(in.IDs) > 0 && in.Organization != "" {
		return BulkDeleted{}, &FieldError{"/organization", "cannot stand beside ids"}
	}
	end, err := s.Bulk.take(ctx)
	if err != nil {
		return BulkDeleted{}, fmt.Errorf("waiting for other bulk calls: %w", err)
	}
	defer end()
	var done BulkDeleted
	a := c.does("keys.bulk_delete", KindKey, "")
	_, err = s.transact(ctx, a, func(tx Tx) (err error) {
		if done, err = s.deleteKeys(tx, a, in, now); err == nil && in.DryRun {
			err = errDryRun
		}
		return err
	})
	if errors.Is(err, errDryRun) {
		err = nil
	}
	return done, err
}

// deleteKeys leaves an entry in the audit log for each key that stays, too:
// it was an attempt like any other.
func (s *Service) deleteKeys(tx Tx, a action, in BulkDelete, now time.Time) (done BulkDeleted, err error) {
	ids := in.IDs
	if in.Expired {
		if ids, done.More, err = expired(tx, a.caller, in.Organization, now); err != nil {
			return BulkDeleted{}, err
		}
	}
	for _, id := range ids {
		r, err := managed(tx, a.caller, id, 0)
		if err == nil {
			err = remove(tx, &r)
		}
		reason, refused := refusalReason(err)
		switch {
		case err == nil:
			done.Deleted = append(done.Deleted, id)
		case refused:
			done.Failed = append(done.Failed, BulkFailure{id, err})
			e, kept := s.keptRefusal(a, string(id), reason, now)
			if !kept {
				continue
			}
			if err := tx.AppendAudit(&e); err != nil {
				return BulkDeleted{}, err
			}
		default:
			return BulkDeleted{}, err
		}
	}
	return done, nil
}

func expired(tx Tx, c Caller, organization string, now time.Time) (ids []KeyID, more bool, err error) {
	q := Query{Organization: organization, State: StateExpired, Now: now, Limit: MaximumBulk}
	if q.Organization, err = c.scope(organization); err != nil {
		return nil, false, err
	}
	page, err := tx.Keys(q)
	for i := range page.Records {
		ids = append(ids, page.Records[i].ID)
	}
	return ids, page.More, err
}
