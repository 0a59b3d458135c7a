//go:build unix

package sqlite

import (
	"context"
	"strings"

	"github.com/warderhq/warder/keystore"
)

// auditColumns, auditTargets and auditValues name the columns of an entry, but
// its number, in one order.
var auditColumns = []string{
	"at", "actor", "address", "operation", "kind", "object", "organization", "refused", "revision", "before", "after",
}

func auditTargets(e *keystore.AuditEntry) []any {
	return []any{
		number(&e.Number),
		number(&e.At), text(&e.Actor), text(&e.From), text(&e.Operation), text(&e.Kind), text(&e.Object),
		text(&e.Organization), text(&e.Refused), number(&e.Revision), text(&e.Before), text(&e.After),
	}
}

func auditValues(e *keystore.AuditEntry) []any {
	return []any{
		int64(e.At), e.Actor, e.From, e.Operation, string(e.Kind), e.Object,
		e.Organization, e.Refused, int64(e.Revision), e.Before, e.After,
	}
}

// AppendAudit implements keystore.AuditTx.
func (t *tx) AppendAudit(e *keystore.AuditEntry) error {
	number, err := t.insert("appending to the audit log", t.store.write.appendAudit, auditValues(e)...)
	if err != nil {
		return err
	}
	e.Number = number
	return nil
}

// Audit implements keystore.AuditLog.
func (s *Store) Audit(ctx context.Context, q keystore.AuditQuery) (keystore.AuditPage, error) {
	var page keystore.AuditPage
	query, args := auditStatement(q)
	if err := s.scan(ctx, "reading the audit log", query, args, into(&page.Entries, auditTargets)); err != nil {
		return keystore.AuditPage{}, err
	}
	if limit := pageLimit(q.Limit); len(page.Entries) > limit {
		page.Entries, page.More = page.Entries[:limit], true
	}
	return page, nil
}

// auditStatement asks for one row more than the page has, as listQuery does.
func auditStatement(q keystore.AuditQuery) (string, []any) {
	which := auditConditions(q)
	return "SELECT number, " + strings.Join(auditColumns, ", ") + " FROM audit" + which.where() + " ORDER BY number DESC LIMIT ?",
		append(which.args, int64(pageLimit(q.Limit))+1)
}

func auditConditions(q keystore.AuditQuery) (which conditions) {
	for _, f := range []struct{ column, value string }{
		{"organization", q.Organization}, {"actor", q.Actor}, {"operation", q.Operation}, {"object", q.Object},
	} {
		if f.value != "" {
			which.add(f.column+" = ?", f.value)
		}
	}
	if q.Refused != nil {
		which.add("(refused <> '') = ?", *q.Refused)
	}
	if q.Since != 0 {
		which.add("at >= ?", int64(q.Since))
	}
	if q.Until != 0 {
		which.add("at < ?", int64(q.Until))
	}
	if q.Before != 0 {
		which.add("number < ?", int64(q.Before))
	}
	return which
}
