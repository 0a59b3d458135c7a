package keystore

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// TakeRevocations makes r, a key as a backup has it, pass nothing that the
// replaced store refused: what decides over its credentials is taken from now,
// the key as the replaced store has it, or, if that has none (the zero Record),
// the key is blocked. Name, scopes, networks and the like stay as they were
// backed up. It reports whether anything differed.
func (r *Record) TakeRevocations(now *Record) bool {
	before := *r
	if now.ID != r.ID {
		r.SetBlocked(true)
		return *r != before
	}
	r.Current, r.Previous, r.GraceEnd, r.Expires = now.Current, now.Previous, now.GraceEnd, now.Expires
	r.SetDeactivated(now.Deactivated)
	r.SetBlocked(now.Blocked)
	return *r != before
}

// sameRights reports whether both may do the same with the same credential.
func (r *Record) sameRights(other *Record) bool {
	return r.Scopes == other.Scopes && r.Permissions == other.Permissions && r.Networks == other.Networks && r.Limit == other.Limit
}

// Reconciled says what a restored store has of the one that it replaces, by
// the keys' ids.
type Reconciled struct {
	Kept    []KeyID // secrets, switches and end are as the replaced store has them
	Blocked []KeyID // they are gone from the replaced store
	Revived []KeyID // what was refused passes again
	Rights  []KeyID // scopes, permissions, networks or limit are those of the backup
	Lost    int     // keys that the backup does not have
	Tokens  int     // access tokens that stay revoked
	Ring    bool    // the signing keys are those of the replaced store
}

// ReconcileStore is what Reconcile needs of the two stores.
type ReconcileStore interface {
	Records
	Transactor
	Snapshotter
}

// Reconcile takes over into a store restored from a backup what the replaced
// one, of the same store secret, has refused since: revoked keys, superseded
// secrets, revoked access tokens and distrusted signing keys. With revive it
// changes nothing, and only says what would have been.
func Reconcile(ctx context.Context, restored, replaced ReconcileStore, by Attribution, revive bool, now time.Time) (Reconciled, error) {
	c := &reconciliation{restored: restored, replaced: replaced, by: by, revive: revive, now: now}
	if err := c.keys(ctx); err != nil {
		return Reconciled{}, fmt.Errorf("comparing the keys: %w", err)
	}
	if err := c.documents(ctx); err != nil {
		return Reconciled{}, fmt.Errorf("comparing the rest: %w", err)
	}
	return c.Reconciled, nil
}

type reconciliation struct {
	Reconciled
	restored, replaced ReconcileStore
	by                 Attribution
	revive             bool
	now                time.Time
}

// reconcilePage is how many keys are compared in one transaction.
const reconcilePage = 1000

// keys goes through both stores in the order of numbers, which a key has for
// good.
func (c *reconciliation) keys(ctx context.Context) error {
	others := &keyCursor{store: c.replaced}
	for after, more := Number(0), true; more; {
		page, err := c.restored.List(ctx, Query{After: after, Limit: reconcilePage})
		if err != nil {
			return err
		}
		changed, err := c.comparePage(ctx, page.Records, others)
		if err != nil {
			return err
		}
		if err := c.write(ctx, changed); err != nil {
			return err
		}
		if more = page.More; more {
			after = page.Records[len(page.Records)-1].Number
		}
	}
	rest, err := others.skipTo(ctx, 0)
	c.Lost += rest
	return err
}

func (c *reconciliation) comparePage(ctx context.Context, records []Record, others *keyCursor) (changed []Record, err error) {
	for i := range records {
		r := records[i]
		skipped, err := others.skipTo(ctx, r.Number)
		if err != nil {
			return nil, err
		}
		c.Lost += skipped
		other, err := others.take(ctx, r.Number)
		if err != nil {
			return nil, err
		}
		if other.ID != "" && other.ID != r.ID {
			c.Lost++ // two histories gave the number to two keys
		}
		if c.compare(&r, &other) {
			changed = append(changed, r)
		}
	}
	return changed, nil
}

// compare reports whether r, now changed, has to be written.
func (c *reconciliation) compare(r, other *Record) bool {
	if other.ID == r.ID && !r.sameRights(other) {
		c.Rights = append(c.Rights, r.ID)
	}
	passes := r.State(c.now) == StateActive
	if !r.TakeRevocations(other) {
		return false
	}
	switch {
	case c.revive && passes:
		c.Revived = append(c.Revived, r.ID)
	case c.revive:
	case other.ID == r.ID:
		c.Kept = append(c.Kept, r.ID)
	default:
		c.Blocked = append(c.Blocked, r.ID)
	}
	return !c.revive
}

func (c *reconciliation) write(ctx context.Context, changed []Record) error {
	if len(changed) == 0 {
		return nil
	}
	_, err := c.restored.Transact(ctx, func(tx Tx) error {
		audited := Audited(tx, c.by, c.now)
		for i := range changed {
			if err := audited.PutKey(&changed[i]); err != nil {
				return fmt.Errorf("taking over what was revoked of key %s: %w", changed[i].ID, err)
			}
		}
		return nil
	})
	return err
}

// documents takes over the revoked access tokens that the backup does not
// have, and the signing ring: the one of the backup may hold what was
// distrusted since.
func (c *reconciliation) documents(ctx context.Context) error {
	if c.revive {
		return nil
	}
	old, err := c.replaced.Snapshot(ctx)
	if err != nil {
		return err
	}
	_, err = c.restored.Transact(ctx, func(tx Tx) error {
		c.Tokens, c.Ring = 0, false
		audited := Audited(tx, c.by, c.now)
		for _, d := range old.Documents {
			if err := c.takeOver(audited, d); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

func (c *reconciliation) takeOver(tx Tx, d Document) error {
	if d.Kind != KindRevokedToken && d.Kind != KindSigningRing {
		return nil
	}
	there, err := tx.Document(d.Kind, d.Name)
	if err != nil || there.Revision != 0 && bytes.Equal(there.Body, d.Body) {
		return err
	}
	if d.Kind == KindSigningRing {
		c.Ring = true
	} else {
		c.Tokens++
	}
	return tx.PutDocument(&d)
}

// keyCursor goes once through the keys of a store.
type keyCursor struct {
	store Records
	page  Page
	after Number
	begun bool
}

// next makes sure that the page holds a key, if there is one more.
func (k *keyCursor) next(ctx context.Context) (err error) {
	if len(k.page.Records) > 0 || k.begun && !k.page.More {
		return nil
	}
	k.begun = true
	k.page, err = k.store.List(ctx, Query{After: k.after, Limit: reconcilePage})
	return err
}

func (k *keyCursor) drop() {
	k.after = k.page.Records[0].Number
	k.page.Records = k.page.Records[1:]
}

// skipTo passes over the keys of lower numbers, zero: over all, and returns how
// many they were.
func (k *keyCursor) skipTo(ctx context.Context, number Number) (skipped int, err error) {
	for {
		if err := k.next(ctx); err != nil {
			return skipped, err
		}
		if len(k.page.Records) == 0 || number != 0 && k.page.Records[0].Number >= number {
			return skipped, nil
		}
		k.drop()
		skipped++
	}
}

// take returns the key of the number, or the zero Record.
func (k *keyCursor) take(ctx context.Context, number Number) (Record, error) {
	if err := k.next(ctx); err != nil || len(k.page.Records) == 0 || k.page.Records[0].Number != number {
		return Record{}, err
	}
	r := k.page.Records[0]
	k.drop()
	return r, nil
}
