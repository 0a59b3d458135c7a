package keystore

import (
	"bytes"
	"context"
	"fmt"
	"slices"
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

// TakeRefusals makes r, a key as a backup has it, pass nothing that either of
// two stores refused, of which neither went on from the other. Which of two
// switches was set last is then not known, so a key is off if it is off in one
// of them, and ends at the earlier end. Of its secrets those stay that were
// replaced more often: what they took the place of passes in neither. It
// reports whether anything differed.
func (r *Record) TakeRefusals(other *Record) bool {
	before := *r
	if other.ID != r.ID {
		r.SetBlocked(true)
		return *r != before
	}
	switch {
	case other.Current.Generation > r.Current.Generation:
		r.Current, r.Previous, r.GraceEnd = other.Current, other.Previous, other.GraceEnd
	case other.Current.Generation == r.Current.Generation:
		r.GraceEnd = min(r.GraceEnd, other.GraceEnd) // zero: it passes no more
	}
	if r.Expires == 0 || other.Expires != 0 && other.Expires < r.Expires {
		r.Expires = other.Expires
	}
	r.SetDeactivated(r.Deactivated || other.Deactivated)
	r.SetBlocked(r.Blocked || other.Blocked)
	return *r != before
}

// sameRights reports whether both may do the same with the same credential.
func (r *Record) sameRights(other *Record) bool {
	return r.Scopes == other.Scopes && r.Permissions == other.Permissions && r.Networks == other.Networks && r.Limit == other.Limit
}

// Lineage is how the store that is replaced stands to the backup, by their
// logs. The zero Lineage trusts neither.
type Lineage uint8

const (
	LineageApart   Lineage = iota // neither is known to have gone on from the other
	LineageLater                  // the replaced store went on from the backup
	LineageEarlier                // the backup was taken after all that the replaced store knows
)

var lineageNames = [...]string{LineageApart: "apart", LineageLater: "later", LineageEarlier: "earlier"}

func (l Lineage) String() string {
	if int(l) < len(lineageNames) {
		return lineageNames[l]
	}
	return lineageNames[LineageApart]
}

// Reconciled says what a restored store has of the one that it replaces, by
// the keys' ids.
type Reconciled struct {
	Lineage Lineage // of the replaced store

	Kept    []KeyID  // secrets, switches and end are as the replaced store has them
	Blocked []KeyID  // they are gone from the replaced store
	Revived []KeyID  // what was refused passes again
	Rights  []KeyID  // scopes, permissions, networks or limit are those of the backup
	Rules   []string // permissions and organizations of which what they allow is that of the backup
	Lost    int      // keys that the backup does not have
	Tokens  int      // access tokens that stay revoked
	Ring    bool     // the signing keys are those of the replaced store
}

// ReconcileStore is what Reconcile needs of the two stores.
type ReconcileStore interface {
	Records
	Transactor
	Snapshotter
}

// Reconciliation is one restored store beside the one that it replaces, of the
// same store secret.
type Reconciliation struct {
	Restored, Replaced ReconcileStore
	Lineage            Lineage
	Revive             bool // change nothing, and only say what would have been
	By                 Attribution
	Now                time.Time
}

// Reconcile takes over into the restored store what the replaced one has
// refused since: revoked keys, superseded secrets, revoked access tokens and
// distrusted signing keys. Of a backup that is the later one nothing is, since
// it has all of it; of two that are apart, what either refused stays so.
func (r Reconciliation) Reconcile(ctx context.Context) (Reconciled, error) {
	c := &reconciliation{Reconciliation: r, Reconciled: Reconciled{Lineage: r.Lineage}}
	if r.Lineage == LineageEarlier {
		return c.Reconciled, nil
	}
	if err := c.keys(ctx); err != nil {
		return Reconciled{}, fmt.Errorf("comparing the keys: %w", err)
	}
	if err := c.documents(ctx); err != nil {
		return Reconciled{}, fmt.Errorf("comparing the rest: %w", err)
	}
	return c.Reconciled, nil
}

type reconciliation struct {
	Reconciliation
	Reconciled
}

// reconcilePage is how many keys are compared in one transaction.
const reconcilePage = 1000

// keys goes through both stores in the order of numbers, which a key has for
// good.
func (c *reconciliation) keys(ctx context.Context) error {
	others := &keyCursor{store: c.Replaced}
	for after, more := Number(0), true; more; {
		page, err := c.Restored.List(ctx, Query{After: after, Limit: reconcilePage})
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
	passes := r.State(c.Now) == StateActive
	if !c.takeOverKey(r, other) {
		return false
	}
	switch {
	case c.Revive && passes:
		c.Revived = append(c.Revived, r.ID)
	case c.Revive:
	case other.ID == r.ID:
		c.Kept = append(c.Kept, r.ID)
	default:
		c.Blocked = append(c.Blocked, r.ID)
	}
	return !c.Revive
}

func (c *reconciliation) takeOverKey(r, other *Record) bool {
	if c.Reconciliation.Lineage == LineageLater {
		return r.TakeRevocations(other)
	}
	return r.TakeRefusals(other)
}

func (c *reconciliation) write(ctx context.Context, changed []Record) error {
	if len(changed) == 0 {
		return nil
	}
	_, err := c.Restored.Transact(ctx, func(tx Tx) error {
		audited := Audited(tx, c.By, c.Now)
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
	old, err := c.Replaced.Snapshot(ctx)
	if err != nil {
		return err
	}
	_, err = c.Restored.Transact(ctx, func(tx Tx) error {
		c.Tokens, c.Ring, c.Rules = 0, false, nil
		if err := c.compareRules(tx, &old); err != nil || c.Revive {
			return err
		}
		audited := Audited(tx, c.By, c.Now)
		for _, d := range old.Documents {
			if err := c.takeOver(audited, d); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// compareRules notes which permissions and organizations allow something else
// in the backup: whoever refers to them may do that again.
func (c *reconciliation) compareRules(tx Tx, old *Snapshot) error {
	for i := range old.Documents {
		d := &old.Documents[i]
		if d.Kind != KindPermission {
			continue
		}
		there, err := tx.Document(d.Kind, d.Name)
		if err != nil {
			return err
		}
		if there.Revision != 0 && !bytes.Equal(there.Body, d.Body) {
			c.Rules = append(c.Rules, d.Name)
		}
	}
	for i := range old.Organizations {
		o := &old.Organizations[i]
		there, err := tx.Organization(o.Slug)
		if err != nil {
			return err
		}
		if there.Number != 0 && !there.sameRules(o) {
			c.Rules = append(c.Rules, o.Slug)
		}
	}
	return nil
}

// sameRules reports whether keys of either may do the same.
func (o *Organization) sameRules(other *Organization) bool {
	return o.Limit == other.Limit && (o.AllowedPermissions == nil) == (other.AllowedPermissions == nil) &&
		slices.Equal(o.AllowedPermissions, other.AllowedPermissions)
}

func (c *reconciliation) takeOver(tx Tx, d Document) error {
	if d.Kind != KindRevokedToken && d.Kind != KindSigningRing {
		return nil
	}
	there, err := tx.Document(d.Kind, d.Name)
	if err != nil || there.Revision != 0 && bytes.Equal(there.Body, d.Body) {
		return err
	}
	if d.Kind == KindRevokedToken {
		c.Tokens++
		return tx.PutDocument(&d)
	}
	if c.Reconciliation.Lineage != LineageLater && there.Revision > d.Revision {
		return nil // the backup's was changed last: a restore goes on behind the revisions of what it replaces
	}
	c.Ring = true
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
