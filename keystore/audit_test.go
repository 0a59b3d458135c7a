package keystore_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

func (n *sqliteNode) audit(t *testing.T, q keystore.AuditQuery) []keystore.AuditEntry {
	t.Helper()
	q.Limit = 1000
	page, err := n.service.Audit(t.Context(), admin, q)
	if err != nil {
		t.Fatal(err)
	}
	return page.Entries
}

// Whatever verb changes something, one entry says so for each object.
func TestEveryChangeIsAudited(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := t.Context(), time.Now()
	who := keystore.Caller{Actor: "key_operator", From: "192.0.2.7", Scopes: keystore.ScopeAdmin}
	issued, err := n.service.CreateKey(ctx, who, keystore.NewKey{Name: "demo", Expires: keystore.Days(3).After(now)}, nil, now)
	if err != nil {
		t.Fatal(err)
	}
	key := issued.Record.ID
	permission, err := n.service.CreatePermission(ctx, who, keystore.Permission{Name: "p"}, now)
	if err != nil {
		t.Fatal(err)
	}
	last := n.audit(t, keystore.AuditQuery{})[0].Number
	for _, c := range []struct {
		operation string
		objects   []string
		do        func() error
	}{
		{"keys.update", []string{string(key)}, func() error {
			return second(n.service.Update(ctx, who, key, 0, func(e *keystore.Editable) error { e.Name = "renamed"; return nil }))
		}},
		{"keys.rotate", []string{string(key)}, func() error { return second(n.service.Rotate(ctx, who, key, keystore.Rotation{}, nil, now)) }},
		{"keys.grace", []string{string(key)}, func() error {
			return second(n.service.MoveGraceEnd(ctx, who, key, keystore.InstantOf(now.Add(time.Hour)), 0, now))
		}},
		{"keys.regenerate", []string{string(key)}, func() error {
			return second(n.service.Regenerate(ctx, who, key, keystore.Days(9).After(now), 0, nil, now))
		}},
		{"keys.renew", []string{string(key)}, func() error { return second(n.service.Renew(ctx, who, key, 5, 0, now)) }},
		{"keys.expire", []string{string(key)}, func() error { return second(n.service.Expire(ctx, who, key, 0, now)) }},
		{"keys.deactivate", []string{string(key)}, func() error { return second(n.service.SetDeactivated(ctx, who, key, true, 0)) }},
		{"keys.activate", []string{string(key)}, func() error { return second(n.service.SetDeactivated(ctx, who, key, false, 0)) }},
		{"keys.activate", nil, func() error { return second(n.service.SetDeactivated(ctx, who, key, false, 0)) }}, // is so already
		{"keys.block", []string{string(key)}, func() error { return second(n.service.SetBlocked(ctx, who, key, true, 0)) }},
		{"keys.unblock", []string{string(key)}, func() error { return second(n.service.SetBlocked(ctx, who, key, false, 0)) }},
		{"permissions.update", []string{permission.ID}, func() error {
			return second(n.service.UpdatePermission(ctx, who, permission.ID, 0, func(p *keystore.Permission) error { p.Name = "q"; return nil }))
		}},
		{"permissions.delete", []string{permission.ID}, func() error { return second(n.service.DeletePermission(ctx, who, permission.ID, 0)) }},
		{"organizations.create", []string{"acme", "*"}, func() error {
			return second(n.service.CreateOrganization(ctx, who, keystore.Organization{Slug: "acme"}, keystore.NewKey{}, nil, now))
		}},
		{"organizations.update", []string{"acme"}, func() error {
			return second(n.service.UpdateOrganization(ctx, who, "acme", 0, func(o *keystore.Organization) error { o.Grace = time.Hour; return nil }))
		}},
		{"organizations.delete", []string{"*", "acme"}, func() error { return second(n.service.DeleteOrganization(ctx, who, "acme", 0)) }},
		{"keys.import", []string{"*", "*", "imports"}, func() error {
			return second(n.service.ImportKeys(ctx, who, []keystore.Import{{Credential: "credential-one"}, {Credential: "credential-two"}}, now))
		}},
		{"keys.bulk_delete", nil, func() error {
			return second(n.service.DeleteKeys(ctx, who, keystore.BulkDelete{IDs: []keystore.KeyID{key}, DryRun: true}, now))
		}},
		{"keys.bulk_delete", []string{string(key)}, func() error {
			return second(n.service.DeleteKeys(ctx, who, keystore.BulkDelete{IDs: []keystore.KeyID{key}}, now))
		}},
	} {
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.operation, err)
		}
		all := n.audit(t, keystore.AuditQuery{})
		entries := slices.DeleteFunc(all, func(e keystore.AuditEntry) bool { return e.Number <= last })
		slices.Reverse(entries)
		if len(entries) != len(c.objects) {
			t.Fatalf("%s left %d entries: %+v", c.operation, len(entries), entries)
		}
		for i, e := range entries {
			last = max(last, e.Number)
			if e.Operation != c.operation || e.Actor != "key_operator" || e.From != "192.0.2.7" || e.Refused != "" || e.At == 0 ||
				c.objects[i] != "*" && e.Object != c.objects[i] || e.Before == "" && e.After == "" {
				t.Errorf("%s left %+v", c.operation, e)
			}
		}
	}
	for _, e := range n.audit(t, keystore.AuditQuery{}) {
		for _, secret := range []string{issued.SecretKey.Reveal(), issued.APIKey.Reveal(), "credential-", "igest", "imported_"} {
			if strings.Contains(e.Before+e.After, secret) {
				t.Errorf("%s shows what is secret: %s %s", e.Operation, e.Before, e.After)
			}
		}
	}
}

func TestAuditSaysWhatDiffers(t *testing.T) {
	n := newSQLiteNode(t, 16)
	key := n.create(t, keystore.NewKey{Name: "demo", Scopes: []string{"a"}}).Record
	if _, err := n.service.Update(t.Context(), admin, key.ID, 0, func(e *keystore.Editable) error { e.Name = "renamed"; return nil }); err != nil {
		t.Fatal(err)
	}
	entries := n.audit(t, keystore.AuditQuery{Object: string(key.ID)})
	if len(entries) != 2 || entries[0].Before != `{"name":"demo"}` || entries[0].After != `{"name":"renamed"}` {
		t.Errorf("%+v", entries)
	}
	if made := entries[1]; made.Before != "" || !strings.Contains(made.After, `"scopes":"a"`) || made.Organization != "default" || made.Revision != key.Revision {
		t.Errorf("%+v", made)
	}
}

// What was refused is there with its reason, and nothing of it was done. What
// failed was not decided.
func TestRefusedAttemptsAreAudited(t *testing.T) {
	n := newSQLiteNode(t, 16)
	ctx, now := t.Context(), time.Now()
	key := n.create(t, keystore.NewKey{Name: "demo"}).Record
	stranger := keystore.Caller{Actor: "key_stranger", From: "198.51.100.1", Organization: "acme", Scopes: keystore.ScopeKeys}
	for reason, err := range map[string]error{
		keystore.ErrKeyNotFound.Error():          second(n.service.Rotate(ctx, stranger, key.ID, keystore.Rotation{}, nil, now)),
		keystore.ErrOrganizationNotFound.Error(): second(n.service.CreateKey(ctx, stranger, keystore.NewKey{Organization: "default"}, nil, now)),
		keystore.ErrForbidden.Error():            second(n.service.UpdateOrganization(ctx, stranger, "default", 0, nil)),
	} {
		if err == nil {
			t.Fatalf("%s: it was let", reason)
		}
		yes := true
		entries := slices.DeleteFunc(n.audit(t, keystore.AuditQuery{Actor: "key_stranger", Refused: &yes}), func(e keystore.AuditEntry) bool { return e.Refused != reason })
		if len(entries) != 1 || entries[0].From != "198.51.100.1" || entries[0].Organization != "acme" || entries[0].Before+entries[0].After != "" {
			t.Errorf("%s: %+v", reason, entries)
		}
	}
	before := len(n.audit(t, keystore.AuditQuery{}))
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := n.service.Expire(gone, admin, key.ID, 0, now); !errors.Is(err, keystore.ErrUnavailable) && !errors.Is(err, context.Canceled) {
		t.Fatalf("a caller that has gone: %v", err)
	}
	if after := len(n.audit(t, keystore.AuditQuery{})); after != before {
		t.Errorf("a failure left %d entries", after-before)
	}
}

// A key that may do nothing cannot fill the disk with what it was refused. The
// last attempt that is kept says so, and another caller's are kept still.
func TestRefusedAttemptsAreBounded(t *testing.T) {
	n := newSQLiteNode(t, 16)
	n.service.Refusals = keystore.NewRefusals()
	flood := keystore.Caller{Actor: "key_flood", Organization: "acme", Scopes: keystore.ScopeRead}
	for range 1100 {
		n.service.Refused(t.Context(), flood, "keys.create", keystore.ErrForbidden)
	}
	// What is not kept does not wait for the writer either, and keeps no change waiting.
	busy, leave := make(chan struct{}), make(chan struct{})
	go n.store.Transact(t.Context(), func(keystore.Tx) error { close(busy); <-leave; return nil })
	<-busy
	noted := make(chan struct{})
	go func() {
		defer close(noted)
		n.service.Refused(t.Context(), flood, "keys.create", keystore.ErrForbidden)
	}()
	select {
	case <-noted:
	case <-time.After(3 * time.Second):
		t.Error("an attempt that is not kept waits for the writer")
	}
	close(leave)
	<-noted
	other := flood
	other.Actor = "key_other"
	n.service.Refused(t.Context(), other, "keys.create", keystore.ErrForbidden)
	kept := n.audit(t, keystore.AuditQuery{Actor: "key_flood"})
	if len(kept) != 1000 || !strings.HasSuffix(kept[0].Refused, "not kept for a while") || kept[1].Refused != keystore.ErrForbidden.Error() {
		t.Errorf("%d are kept, the last as %q", len(kept), kept[0].Refused)
	}
	if kept := n.audit(t, keystore.AuditQuery{Actor: "key_other"}); len(kept) != 1 {
		t.Errorf("%d of another caller", len(kept))
	}
}

func TestAuditIsOnesOwn(t *testing.T) {
	n := newSQLiteNode(t, 16)
	n.create(t, keystore.NewKey{})
	its := n.organize(t, keystore.Organization{Slug: "acme"}).Record
	owner := keystore.Caller{Actor: string(its.ID), Organization: "acme", Scopes: keystore.ScopeKeys}
	page, err := n.service.Audit(t.Context(), owner, keystore.AuditQuery{Limit: 10})
	if err != nil || len(page.Entries) != 2 {
		t.Fatalf("%+v, %v", page, err)
	}
	for _, e := range page.Entries {
		if e.Organization != "acme" {
			t.Errorf("another's: %+v", e)
		}
	}
	for name, c := range map[string]struct {
		caller keystore.Caller
		q      keystore.AuditQuery
		want   error
	}{
		"another's":             {owner, keystore.AuditQuery{Organization: "default"}, keystore.ErrOrganizationNotFound},
		"a reader":              {keystore.Caller{Organization: "acme", Scopes: keystore.ScopeRead}, keystore.AuditQuery{}, keystore.ErrForbidden},
		"nobody":                {keystore.Caller{}, keystore.AuditQuery{}, keystore.ErrForbidden},
		"of no organization":    {keystore.Caller{Scopes: keystore.ScopeKeys}, keystore.AuditQuery{}, keystore.ErrForbidden},
		"usage of nobody":       {keystore.Caller{}, keystore.AuditQuery{}, keystore.ErrForbidden},
		"everything for a root": {admin, keystore.AuditQuery{Organization: "acme"}, nil},
	} {
		c.q.Limit = 1
		if _, err := n.service.Audit(t.Context(), c.caller, c.q); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
