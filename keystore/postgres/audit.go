package postgres

import (
	"context"
	"strings"

	"github.com/warderhq/warder/keystore"
)

// auditColumns, auditTargets and auditValues name the columns of an entry in
// one order.
var auditColumns = []string{
	"number", "at", "actor", "address", "operation", "kind", "object", "organization", "refused", "revision", "before", "after",
}

func auditTargets(e *keystore.AuditEntry) []any {
	return []any{
		number(&e.Number), number(&e.At), text(&e.Actor), text(&e.From), text(&e.Operation), text(&e.Kind), text(&e.Object),
		text(&e.Organization), text(&e.Refused), number(&e.Revision), text(&e.Before), text(&e.After),
	}
}

func auditValues(e *keystore.AuditEntry) []any {
	return []any{
		int64(e.Number), int64(e.At), written(e.Actor), written(e.From), written(e.Operation), string(e.Kind), written(e.Object),
		written(e.Organization), written(e.Refused), int64(e.Revision), written(e.Before), written(e.After),
	}
}

// written is text as it can be stored. Who tries to change a thing whose name
// is no text shall not escape the log by that.
func written(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// AppendAudit implements keystore.AuditTx.
func (t *tx) AppendAudit(e *keystore.AuditEntry) error {
	const doing = "appending to the audit log"
	if err := t.usable(doing); err != nil {
		return err
	}
	t.head.entries++
	e.Number = t.head.entries
	return t.exec(doing, appendAudit, auditValues(e)...)
}

// Audit implements keystore.AuditLog.
func (s *Store) Audit(ctx context.Context, q keystore.AuditQuery) (keystore.AuditPage, error) {
	query, args := auditStatement(q)
	entries, err := collect(ctx, s, "reading the audit log", query, args, auditTargets)
	if err != nil {
		return keystore.AuditPage{}, err
	}
	page := keystore.AuditPage{Entries: entries}
	if limit := pageLimit(q.Limit); len(entries) > limit {
		page.Entries, page.More = entries[:limit], true
	}
	return page, nil
}

// auditStatement asks for one row more than the page has, as listQuery does.
func auditStatement(q keystore.AuditQuery) (string, []any) {
	which := auditConditions(q)
	limit := which.parameter(int64(pageLimit(q.Limit)) + 1)
	return "SELECT " + strings.Join(auditColumns, ", ") + " FROM audit" + which.where() + " ORDER BY number DESC LIMIT " + limit, which.args
}

func auditConditions(q keystore.AuditQuery) (which conditions) {
	for _, f := range []struct{ column, value string }{
		{"organization", q.Organization}, {"actor", q.Actor}, {"operation", q.Operation}, {"object", q.Object},
	} {
		if f.value != "" {
			which.add(f.column+" = ?", written(f.value))
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
