package postgres

import (
	"fmt"
	"strings"
)

// The statements that do not depend on what is asked for. Each connection
// prepares them as it meets them.
var (
	keySelection = "keys." + strings.Join(keyColumns, ", keys.")
	insertKey    = insertion("keys", keyColumns)
	updateKey    = replacement("keys", keyColumns)

	keysByAliases = "SELECT DISTINCT " + keySelection + " FROM unnest($1::text[]) AS asked (alias)" +
		" JOIN aliases ON aliases.alias = asked.alias JOIN keys ON keys.number = aliases.number"

	organizationSelection = "organizations." + strings.Join(organizationColumns, ", organizations.")
	organizationQuery     = "SELECT " + organizationSelection + " FROM organizations"
	insertOrganization    = insertion("organizations", organizationColumns)
	updateOrganization    = replacement("organizations", organizationColumns)

	appendAudit = insertion("audit", auditColumns)

	addDays   = addition("usage_days", "day")
	addMonths = addition("usage_months", "day / 100")
)

const (
	deleteKey           = "DELETE FROM keys WHERE number = $1"
	insertAlias         = "INSERT INTO aliases (alias, number) VALUES ($1, $2)"
	deleteAlias         = "DELETE FROM aliases WHERE alias = $1"
	nameOwner           = "SELECT number FROM keys WHERE organization = $1 AND name = $2 AND name <> ''"
	insertKeyPermission = "INSERT INTO key_permissions (permission, number) VALUES ($1, $2)"
	deleteKeyPermission = "DELETE FROM key_permissions WHERE permission = $1 AND number = $2"

	owned              = "SELECT number FROM keys WHERE organization = $1 LIMIT 1"
	deleteOrganization = "DELETE FROM organizations WHERE number = $1"

	documentSelection = "documents.kind, documents.name, documents.body, documents.revision"
	documentQuery     = "SELECT " + documentSelection + " FROM documents"
	putDocument       = "INSERT INTO documents (kind, name, body, revision) VALUES ($1, $2, $3, $4)" +
		" ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body, revision = excluded.revision"
	deleteDocument = "DELETE FROM documents WHERE kind = $1 AND name = $2"

	replyQuery = "SELECT id, request, key, sealed, created FROM replies WHERE id = $1"
	putReply   = "INSERT INTO replies (id, request, key, sealed, created) VALUES ($1, $2, $3, $4, $5)" +
		" ON CONFLICT (id) DO UPDATE SET request = excluded.request, key = excluded.key, sealed = excluded.sealed, created = excluded.created"
	dropReplies = "DELETE FROM replies WHERE created < $1"
	dropSealed  = "UPDATE replies SET sealed = NULL WHERE created < $1 AND sealed IS NOT NULL"

	moveLastUses = "INSERT INTO last_used (key, generation, at)" +
		" SELECT key, generation, max(at) FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS use (key, generation, at)" +
		" GROUP BY key, generation ORDER BY key, generation" + // as addition
		" ON CONFLICT (key, generation) DO UPDATE SET at = excluded.at WHERE excluded.at > last_used.at"
	// Who drops the same days at the same time does it for us.
	dropDays = "DELETE FROM usage_days WHERE ctid = ANY (ARRAY(SELECT ctid FROM usage_days WHERE period < $1 FOR UPDATE SKIP LOCKED))"

	lastUsedQuery = "SELECT key, generation, at FROM last_used WHERE key = ANY ($1::text[]) ORDER BY key, generation"

	appendLog = "INSERT INTO log (revision, mark, kind, name, aliases) VALUES ($1, $2, $3, $4, $5)"

	secretQuery   = "SELECT version, sealed, checked FROM store_secret"
	insertSecret  = "INSERT INTO store_secret (singleton, version, sealed, checked) VALUES (1, $1, $2, $3)"
	replaceSecret = "UPDATE store_secret SET version = $1, sealed = $2, checked = $3 WHERE version = $4 AND sealed = $5 AND checked = $6"

	notify = "SELECT pg_notify($1, $2)"
)

// wholeTables ask for every column that the statements name, and for no row.
var wholeTables = []string{
	"SELECT " + keySelection + " FROM keys LIMIT 0",
	organizationQuery + " LIMIT 0",
	documentQuery + " LIMIT 0",
	"SELECT " + strings.Join(auditColumns, ", ") + " FROM audit LIMIT 0",
	"SELECT revision, mark, kind, name, aliases, at FROM log LIMIT 0",
	"SELECT alias, number FROM aliases LIMIT 0",
	"SELECT permission, number FROM key_permissions LIMIT 0",
	"SELECT id, request, key, sealed, created FROM replies LIMIT 0",
	"SELECT period, key, organization, outcome, requests FROM usage_days LIMIT 0",
	"SELECT period, key, organization, outcome, requests FROM usage_months LIMIT 0",
	"SELECT key, generation, at FROM last_used LIMIT 0",
	"SELECT " + nodeColumns + ", registered FROM nodes LIMIT 0",
}

func insertion(table string, columns []string) string {
	return "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES (" + placeholders(1, len(columns)) + ")"
}

// replacement sets all columns but the first, by which it finds the row.
func replacement(table string, columns []string) string {
	return "UPDATE " + table + " SET (" + strings.Join(columns[1:], ", ") + ") = (" + placeholders(2, len(columns)) + ") WHERE " + columns[0] + " = $1"
}

func placeholders(first, last int) string {
	out := make([]string, 0, last)
	for n := first; n <= last; n++ {
		out = append(out, fmt.Sprint("$", n))
	}
	return strings.Join(out, ", ")
}

// addition adds up what a batch says of one row, for a statement may touch it
// once, and goes through the rows in one order, so that two nodes never wait
// for each other.
func addition(table, period string) string {
	return "INSERT INTO " + table + " AS kept (period, key, organization, outcome, requests)" +
		" SELECT " + period + ", key, organization, outcome, sum(requests)::bigint" +
		" FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::bigint[]) AS count (day, key, organization, outcome, requests)" +
		" GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4" +
		" ON CONFLICT (period, key, organization, outcome) DO UPDATE SET requests = kept.requests + excluded.requests"
}
