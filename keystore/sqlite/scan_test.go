//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/warderhq/warder/keystore"
)

// What is asked often is found by an index, not by reading everything.
func TestQueryPlans(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	list := func(q keystore.Query) func() (string, []any) { return func() (string, []any) { return listQuery(q) } }
	audit := func(q keystore.AuditQuery) func() (string, []any) {
		return func() (string, []any) { return auditStatement(q) }
	}
	usage := func(q keystore.UsageQuery) func() (string, []any) {
		return func() (string, []any) {
			query, args, err := usageQuery(q)
			if err != nil {
				t.Fatal(err)
			}
			return query, args
		}
	}
	for name, c := range map[string]struct {
		query func() (string, []any)
		by    string
		sorts bool
	}{
		"all":                   {list(keystore.Query{}), "keys USING INTEGER PRIMARY KEY", false},
		"before":                {list(keystore.Query{Before: 9}), "keys USING INTEGER PRIMARY KEY", false},
		"name":                  {list(keystore.Query{Organization: "acme", Name: "n"}), "keys_name", true},
		"permission":            {list(keystore.Query{Permission: "p"}), "key_permissions USING PRIMARY KEY", false},
		"permission before":     {list(keystore.Query{Permission: "p", Before: 9}), "key_permissions USING PRIMARY KEY", false},
		"imported":              {list(keystore.Query{Imported: true}), "keys_imported", false},
		"audit":                 {audit(keystore.AuditQuery{Before: 9}), "audit USING INTEGER PRIMARY KEY", false},
		"audit by organization": {audit(keystore.AuditQuery{Organization: "o", Before: 9}), "audit_organization", false},
		"audit by actor":        {audit(keystore.AuditQuery{Actor: "a"}), "audit_actor", false},
		"audit by object":       {audit(keystore.AuditQuery{Object: "a"}), "audit_object", false},
		"usage":                 {usage(keystore.UsageQuery{FromDay: 1, ToDay: 2}), "usage_days USING PRIMARY KEY", true},
		"usage by organization": {usage(keystore.UsageQuery{FromDay: 1, ToDay: 2, Organization: "o"}), "usage_days_organization", true},
		"usage by key":          {usage(keystore.UsageQuery{FromMonth: 1, ToMonth: 2, Key: "k"}), "usage_months_key", true},
		"last use":              {func() (string, []any) { return lastUsedQuery, []any{"[]"} }, "last_used USING PRIMARY KEY", false},
	} {
		t.Run(name, func(t *testing.T) {
			query, args := c.query()
			plan := explain(t, s.reads, query, args)
			if !strings.Contains(plan, "SEARCH "+c.by) && !strings.Contains(plan, "INDEX "+c.by) || !c.sorts && strings.Contains(plan, "TEMP B-TREE") {
				t.Errorf("%s\n%s", query, plan)
			}
		})
	}
}

func explain(t *testing.T, db *sql.DB, query string, args []any) (plan string) {
	t.Helper()
	err := eachRow(t.Context(), db, "EXPLAIN QUERY PLAN "+query, args, func(rows *sql.Rows) error {
		var id, parent, unused int
		var detail string
		err := rows.Scan(&id, &parent, &unused, &detail)
		plan += detail + "\n"
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// What a key refers to goes with it: nothing else would ever remove it.
func TestPermissionsGoWithTheirKey(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	r := testKey("key_a")
	r.Permissions = "perm_a perm_b"
	_, err := s.Transact(t.Context(), func(tx keystore.Tx) error {
		return errors.Join(tx.PutKey(&r), tx.DeleteKey(r.ID))
	})
	var left int
	if err := errors.Join(err, s.reads.QueryRow("SELECT count(*) FROM key_permissions").Scan(&left)); err != nil || left != 0 {
		t.Errorf("%d left, %v", left, err)
	}
}

// Audit and usage wait for a place among the longer reads, and give up with
// their caller; adding usage waits for the writer.
func TestManagementPlaces(t *testing.T) {
	s := openAt(t, filepath.Join(t.TempDir(), "warder.db"))
	for _, places := range []slots{s.scans, s.writer} {
		for range cap(places) {
			places <- struct{}{}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, countErr := s.Count(ctx, keystore.Query{})
	_, auditErr := s.Audit(ctx, keystore.AuditQuery{Limit: 1})
	_, usageErr := s.Usage(ctx, keystore.UsageQuery{FromDay: 1, ToDay: 1})
	_, lastErr := s.LastUsed(ctx, []keystore.KeyID{"key_a"})
	addErr := s.AddUsage(ctx, keystore.UsageBatch{})
	for what, err := range map[string]error{"Count": countErr, "Audit": auditErr, "Usage": usageErr, "LastUsed": lastErr, "AddUsage": addErr} {
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, places := range []slots{s.scans, s.writer} {
		for range cap(places) {
			places.leave()
		}
	}
}
