package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Service is the management verbs. Each checks what its caller may do, runs
// the rule inside one transaction, and answers when this node has applied
// the change: from then on no request here passes on the older state.
// Whatever changes is in the audit log in the same transaction, and an attempt
// that is refused is there too, with its reason.
//
// Errors are those of errors.go; a *FieldError names a bad field.
type Service struct {
	Store       ServiceStore
	Follower    *Follower
	Credentials *Credentials
	Replays     *Replays
	Meters      *Meters
	Bulk        Turn // of imports and bulk deletions
	Refusals    *Refusals
	Directory   *Directory
	Rulebook    *Rulebook
	Policy      Policy
}

// ServiceStore is what the Service needs of a store.
type ServiceStore interface {
	Records
	Transactor
	AuditLog
	UsageLog
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

// issue runs a transaction whose answer holds a secret. With once, the answer
// is kept in the same transaction, and an earlier one is given again.
func (s *Service) issue(ctx context.Context, a action, once *Once, now time.Time, fn func(Tx) (Issued, error)) (Issued, error) {
	var answer Issued
	run := func(tx Tx) (err error) { answer, err = fn(tx); return err }
	if once != nil {
		id := once.id(a.caller)
		end, err := s.Replays.begin(id)
		if err != nil {
			return Issued{}, err
		}
		defer end()
		run = func(tx Tx) (err error) { answer, err = s.issueOnce(tx, a.caller, once, id, now, fn); return err }
	}
	if _, err := s.transact(ctx, a, run); err != nil {
		return Issued{}, err
	}
	return answer, nil
}

func (s *Service) issueOnce(tx Tx, c Caller, once *Once, id ReplyID, now time.Time, fn func(Tx) (Issued, error)) (Issued, error) {
	kept, found, err := tx.Reply(id)
	if err != nil {
		return Issued{}, err
	}
	if found && now.Sub(kept.Created.Time()) < ReplayLife {
		return s.Replays.open(once, c, kept, now)
	}
	answer, err := fn(tx)
	if err != nil {
		return Issued{}, err
	}
	sealed, err := s.Replays.seal(once, id, c, answer)
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

// action is what a caller is about to do, for the audit log.
type action struct {
	caller    Caller
	operation string
	kind      Kind
	object    string // empty: not known before it is done
}

func (c Caller) does(operation string, kind Kind, object string) action {
	return action{c, operation, kind, object}
}

// transact commits, then waits until this node has applied the commit.
func (s *Service) transact(ctx context.Context, a action, fn func(Tx) error) (Revision, error) {
	revision, err := s.commit(ctx, a, fn)
	if err != nil {
		return 0, err
	}
	return revision, s.takeEffect(ctx, revision)
}

func (s *Service) commit(ctx context.Context, a action, fn func(Tx) error) (Revision, error) {
	by := a.caller.Attribution(a.operation)
	revision, err := s.Store.Transact(ctx, func(tx Tx) error { return fn(Audited(tx, by, time.Now())) })
	if err != nil {
		s.Follower.Wake() // it may have been committed all the same: the answer got lost
		s.noteRefusal(ctx, a, err)
		return 0, err
	}
	return revision, nil
}

// takeEffect returns when this node has applied what is committed, even if
// the caller has gone: it has to take effect.
func (s *Service) takeEffect(ctx context.Context, revision Revision) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	if err := s.Follower.Await(ctx, revision); err != nil {
		return fmt.Errorf("%w: %w", ErrNotInForce, unavailable(err))
	}
	return nil
}

// Refused notes in the audit log that a caller was refused before any verb
// was reached.
func (s *Service) Refused(ctx context.Context, c Caller, operation string, err error) {
	s.noteRefusal(ctx, c.does(operation, "", ""), err)
}

// Noted keeps in the audit log what was done to the store itself, and what was
// before and is after; nil: nothing has changed. What cannot be noted is not
// the caller's concern: it is done.
func (s *Service) Noted(ctx context.Context, c Caller, operation string, before, after map[string]any) {
	e := c.Attribution(operation).Entry(KindStore, "", time.Now())
	var err error
	if e.Before, e.After, err = difference(before, after); err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	_, _ = s.Store.Transact(ctx, func(tx Tx) error { return tx.AppendAudit(&e) })
}

// noteRefusal keeps an attempt with its reason. A failure is none: nothing was
// decided. What cannot be noted is not the caller's concern.
func (s *Service) noteRefusal(ctx context.Context, a action, err error) {
	reason, refused := refusalReason(err)
	if !refused {
		return
	}
	e, kept := s.keptRefusal(a, a.object, reason, time.Now())
	if !kept {
		return // and nobody waits for the writer because of it
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), applyTimeout)
	defer cancel()
	_, _ = s.Store.Transact(ctx, func(tx Tx) error { return tx.AppendAudit(&e) })
}

// keptRefusal returns the entry for an attempt on object; false if the caller
// has had too many of them kept.
func (s *Service) keptRefusal(a action, object, reason string, now time.Time) (AuditEntry, bool) {
	reason, kept := s.Refusals.keep(a.caller.Actor, reason, now)
	return a.refused(object, reason, now), kept
}

// refused returns the entry for an attempt on object. A caller's own text can
// stand where a name should, a secret among it: only what has the form of a
// name is kept.
func (a action) refused(object, reason string, now time.Time) AuditEntry {
	if !isObjectName(a.kind, object) {
		object = ""
	}
	e := a.caller.Attribution(a.operation).Entry(a.kind, object, now)
	e.Organization, e.Refused = a.caller.Organization, reason
	return e
}

func isObjectName(kind Kind, name string) bool {
	switch kind {
	case KindKey:
		return isRandomName(keyIDPrefix, name)
	case KindPermission:
		return isRandomName(permissionIDPrefix, name)
	case KindOrganization:
		return validSlug(name)
	default:
		return false
	}
}

// isRandomName reports whether name is one that NewKeyID or NewPermissionID
// could have made.
func isRandomName(prefix, name string) bool {
	random, ok := strings.CutPrefix(name, prefix)
	return ok && len(random) == randomNameLength && strings.Trim(random, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// randomNameLength is what crypto/rand.Text returns: 128 bits of base32.
const randomNameLength = 26

// refusalReason returns the fixed text of a refusal, which names no secret;
// false for a failure.
func refusalReason(err error) (string, bool) {
	if f, ok := errors.AsType[*FieldError](err); ok {
		return f.Error(), true
	}
	for _, refusal := range managementRefusals {
		if errors.Is(err, refusal) {
			return refusal.Error(), true
		}
	}
	return "", false
}
