package keystore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func TestLastKeyOfAnOrganization(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := t.Context(), time.Now()
	first := n.organize(t, keystore.Organization{Slug: "acme"}).Record
	trial, err := n.service.CreateKey(ctx, admin, keystore.NewKey{Organization: "acme", Type: keystore.TypeTrial}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.service.DeleteKey(ctx, admin, first.ID, 0); !errors.Is(err, keystore.ErrLastKey) {
		t.Errorf("the last standard key, beside a trial: %v", err)
	}
	if _, err := n.service.DeleteOrganization(ctx, admin, "acme", 0); !errors.Is(err, keystore.ErrOrganizationInUse) {
		t.Errorf("the organization with a trial key: %v", err)
	}
	if _, err := n.service.DeleteKey(ctx, admin, trial.Record.ID, 0); err != nil {
		t.Errorf("the trial: %v", err)
	}
	next, err := n.service.CreateKey(ctx, admin, keystore.NewKey{Organization: "acme"}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	done, err := n.service.DeleteKeys(ctx, admin, keystore.BulkDelete{IDs: []keystore.KeyID{first.ID, next.Record.ID}}, now)
	if err != nil || len(done.Deleted) != 1 || len(done.Failed) != 1 || !errors.Is(done.Failed[0].Err, keystore.ErrLastKey) {
		t.Errorf("both at once: %+v, %v", done, err)
	}
	for name, c := range map[string]struct {
		caller keystore.Caller
		slug   string
		want   error
	}{
		"its owner":    {keystore.Caller{Organization: "acme", Scopes: keystore.ScopeKeys}, "acme", keystore.ErrForbidden},
		"an unknown":   {admin, "nobody", keystore.ErrOrganizationNotFound},
		"the default":  {admin, "default", keystore.ErrDefaultOrganization},
		"a stale edit": {admin, "acme", keystore.ErrStaleEdit},
	} {
		ifMatch := keystore.Revision(0)
		if name == "a stale edit" {
			ifMatch = 1
		}
		if _, err := n.service.DeleteOrganization(ctx, c.caller, c.slug, ifMatch); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.service.DeleteOrganization(ctx, admin, "acme", 0); err != nil {
		t.Fatal(err)
	}
	if n.directory.Organization("acme") != nil {
		t.Error("it is still known")
	}
	if _, err := n.service.Key(ctx, admin, next.Record.ID); !errors.Is(err, keystore.ErrKeyNotFound) {
		t.Errorf("its last key: %v", err)
	}
}

func TestBulkDeletion(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := t.Context(), time.Now()
	old := n.create(t, keystore.NewKey{Expires: keystore.InstantOf(now.Add(time.Minute))}).Record
	young := n.create(t, keystore.NewKey{}).Record
	mighty := n.create(t, keystore.NewKey{Scopes: []string{keystore.ScopeAdmin}}).Record
	later := now.Add(time.Hour)
	for range 2 {
		done, err := n.service.DeleteKeys(ctx, admin, keystore.BulkDelete{Expired: true, DryRun: true}, later)
		if err != nil || len(done.Deleted) != 1 || done.Deleted[0] != old.ID {
			t.Fatalf("to be tried: %+v, %v", done, err)
		}
	}
	its := keystore.Caller{Actor: string(young.ID), Organization: "default", Scopes: keystore.ScopeKeys}
	done, err := n.service.DeleteKeys(ctx, its, keystore.BulkDelete{IDs: []keystore.KeyID{old.ID, mighty.ID, "key_nobody"}}, now)
	if err != nil || len(done.Deleted) != 1 || len(done.Failed) != 2 ||
		!errors.Is(done.Failed[0].Err, keystore.ErrForbidden) || !errors.Is(done.Failed[1].Err, keystore.ErrKeyNotFound) {
		t.Errorf("by name: %+v, %v", done, err)
	}
	if done, err := n.service.DeleteKeys(ctx, admin, keystore.BulkDelete{Expired: true}, later); err != nil || len(done.Deleted) != 0 {
		t.Errorf("none is left: %+v, %v", done, err)
	}
	for name, in := range map[string]keystore.BulkDelete{
		"nothing": {}, "both": {Expired: true, IDs: []keystore.KeyID{old.ID}}, "too many": {IDs: make([]keystore.KeyID, keystore.MaximumBulk+1)},
	} {
		if _, err := n.service.DeleteKeys(ctx, admin, in, now); !meets(err, anyField) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := n.service.DeleteKeys(ctx, its, keystore.BulkDelete{Expired: true, Organization: "acme"}, now); !errors.Is(err, keystore.ErrOrganizationNotFound) {
		t.Errorf("another's: %v", err)
	}
}

func TestMovingTheGraceEnd(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := t.Context(), time.Now()
	first := n.create(t, keystore.NewKey{Expires: keystore.InstantOf(now.Add(48 * time.Hour))})
	id := first.Record.ID
	move := func(by time.Duration) error {
		return second(n.service.MoveGraceEnd(ctx, admin, id, keystore.InstantOf(now.Add(by)), 0, now))
	}
	if err := move(time.Hour); !errors.Is(err, keystore.ErrNoGracePeriod) {
		t.Errorf("without a previous secret: %v", err)
	}
	if _, err := n.service.Rotate(ctx, admin, id, keystore.Rotation{}, nil, now); err != nil {
		t.Fatal(err)
	}
	passes := func(at time.Duration) bool {
		_, err := n.present(first.APIKey, now.Add(at))
		return err == nil
	}
	for _, c := range []struct{ to, last time.Duration }{{10 * time.Hour, 10 * time.Hour}, {time.Hour, time.Hour}, {100 * time.Hour, 48 * time.Hour}} {
		if err := move(c.to); err != nil || !passes(c.last-time.Second) || passes(c.last) {
			t.Errorf("moved to %s: %v; it has to pass until %s", c.to, err, c.last)
		}
	}
	if err := move(-time.Second); err != nil || passes(0) || passes(-time.Hour) {
		t.Errorf("ended: %v; no clock that is set back may revive it", err)
	}
	if err := move(time.Hour); !errors.Is(err, keystore.ErrNoGracePeriod) || passes(0) {
		t.Errorf("ended for good, and moved: %v", err)
	}
}

// What was ended for good does not come back by moving an end that it no
// longer has.
func TestNoGraceEndRevivesWhatIsDeadForGood(t *testing.T) {
	for name, end := range map[string]func(*sqliteNode, keystore.KeyID) error{
		"a forced rotation": func(n *sqliteNode, id keystore.KeyID) error {
			return second(n.service.Rotate(t.Context(), admin, id, keystore.Rotation{Force: true}, nil, time.Now()))
		},
		"a regeneration": func(n *sqliteNode, id keystore.KeyID) error {
			return second(n.service.Regenerate(t.Context(), admin, id, 0, 0, nil, time.Now()))
		},
		"a moved end": func(n *sqliteNode, id keystore.KeyID) error {
			if err := second(n.service.Rotate(t.Context(), admin, id, keystore.Rotation{}, nil, time.Now())); err != nil {
				return err
			}
			return second(n.service.MoveGraceEnd(t.Context(), admin, id, keystore.InstantOf(time.Now()), 0, time.Now()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newSQLiteNode(t, 16)
			native, foreign := n.create(t, keystore.NewKey{}), n.bring(t, keystore.Import{Credential: "sk_live_4242424242"})[0]
			for id, credential := range map[keystore.KeyID]string{native.Record.ID: native.APIKey.Reveal(), foreign.ID: "sk_live_4242424242"} {
				if err := end(n, id); err != nil {
					t.Fatal(err)
				}
				now := time.Now()
				if _, err := n.service.MoveGraceEnd(t.Context(), admin, id, keystore.InstantOf(now.Add(time.Hour)), 0, now); !errors.Is(err, keystore.ErrNoGracePeriod) {
					t.Errorf("%s: moving the grace end: %v", id, err)
				}
				if _, err := n.presentAs("Token "+credential, now); !errors.Is(err, keystore.ErrSuperseded) {
					t.Errorf("%s: the ended credential: %v", id, err)
				}
			}
		})
	}
}

func TestOrganizationsOwnGrace(t *testing.T) {
	n := newSQLiteNode(t, 16)
	now := time.Now()
	first := n.organize(t, keystore.Organization{Slug: "acme", Grace: time.Minute})
	rotated, err := n.service.Rotate(t.Context(), admin, first.Record.ID, keystore.Rotation{}, nil, now)
	if err != nil || rotated.Record.GraceEnd != keystore.InstantOf(now.Add(time.Minute)) {
		t.Errorf("%+v, %v", rotated.Record, err)
	}
}

// However many imports and bulk deletions are sent, at most one at a time
// stands before a call that is about one key.
func TestBulkCallsTakeTurns(t *testing.T) {
	n := newSQLiteNode(t, 16)
	id := n.create(t, keystore.NewKey{}).Record.ID
	turn := n.service.Bulk
	turn <- struct{}{} // one is under way
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	imported := []keystore.Import{{Credential: "sk_live_4242424242"}}
	if _, err := n.service.ImportKeys(ctx, admin, imported, time.Now()); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a second import: %v", err)
	}
	if _, err := n.service.DeleteKeys(ctx, admin, keystore.BulkDelete{IDs: []keystore.KeyID{id}}, time.Now()); !errors.Is(err, keystore.ErrUnavailable) {
		t.Errorf("a bulk deletion: %v", err)
	}
	if _, err := n.service.SetBlocked(t.Context(), admin, id, true, 0); err != nil {
		t.Errorf("blocking a key beside it: %v", err)
	}
	<-turn
	if _, err := n.service.ImportKeys(t.Context(), admin, imported, time.Now()); err != nil {
		t.Errorf("the next import: %v", err)
	}
	if done, err := n.service.DeleteKeys(t.Context(), admin, keystore.BulkDelete{IDs: []keystore.KeyID{id}}, time.Now()); err != nil || len(done.Deleted) != 1 {
		t.Errorf("the next deletion: %+v, %v", done, err)
	}
}
