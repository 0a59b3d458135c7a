//go:build unix

package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	codes "modernc.org/sqlite/lib"

	"github.com/warderhq/warder/keystore"
)

// The statements, prepared once; database/sql keeps each prepared on every
// connection it runs on.
type readStatements struct {
	lookup, keys, head, mark, changes, secret        *sql.Stmt
	organization, organizations, document, documents *sql.Stmt
}

type writeStatements struct {
	head, appendLog, pruneLog, replaceSecret                                  *sql.Stmt
	key, insertKey, updateKey, deleteKey, insertAlias, deleteAlias, nameOwner *sql.Stmt
	insertNames, keys                                                         *sql.Stmt
	insertKeyPermission, deleteKeyPermission                                  *sql.Stmt
	organization, insertOrganization, updateOrganization                      *sql.Stmt
	owned, deleteOrganization                                                 *sql.Stmt
	document, documents, putDocument, deleteDocument                          *sql.Stmt
	appendAudit                                                               *sql.Stmt
	addDay, addMonth, moveLastUse, dropDays                                   *sql.Stmt
	reply, putReply, dropReplies, dropSealed                                  *sql.Stmt
}

var (
	keySelection = "keys.number, keys." + strings.Join(keyColumns, ", keys.")
	keysByAlias  = "SELECT " + keySelection + " FROM json_each(?) AS asked" +
		" CROSS JOIN aliases ON aliases.alias = asked.value CROSS JOIN keys ON keys.number = aliases.number"
	keyByAlias = "SELECT " + keySelection + " FROM aliases JOIN keys ON keys.number = aliases.number WHERE aliases.alias = ?"

	secretQuery       = "SELECT version, sealed, checked FROM store_secret"
	headQuery         = "SELECT revision, mark FROM log ORDER BY revision DESC LIMIT 1"
	organizationQuery = "SELECT number, " + strings.Join(organizationColumns, ", ") + " FROM organizations"
	documentQuery     = "SELECT " + documentColumns + " FROM documents"
	lastUsedQuery     = "SELECT key, generation, at FROM last_used WHERE key IN (SELECT value FROM json_each(?)) ORDER BY key, generation"
)

// statement says where a prepared query goes.
type statement struct {
	to    **sql.Stmt
	query string
}

func (s *Store) prepare(ctx context.Context) error {
	for db, statements := range map[*sql.DB][]statement{s.reads: s.read.list(), s.writes: s.write.list()} {
		for _, st := range statements {
			var err error
			*st.to, err = db.PrepareContext(ctx, st.query)
			if isCode(err, codes.SQLITE_ERROR) { // it names what the schema lacks
				return fmt.Errorf("%w: %w", keystore.ErrCorrupt, err)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *readStatements) list() []statement {
	return []statement{
		// A row comes back whether there is such a key or not.
		{&r.lookup, "SELECT " + keySelection + ", (SELECT max(revision) FROM log)" +
			" FROM (SELECT 1) LEFT JOIN aliases ON aliases.alias = ? LEFT JOIN keys ON keys.number = aliases.number"},
		{&r.keys, keysByAlias},
		{&r.head, headQuery},
		{&r.mark, "SELECT mark FROM log WHERE revision = ?"},
		{&r.changes, "SELECT revision, mark, kind, name, aliases FROM log WHERE revision > ? ORDER BY revision LIMIT ?"},
		{&r.secret, secretQuery},
		{&r.organization, organizationQuery + " WHERE slug = ?"},
		{&r.organizations, organizationQuery + " ORDER BY number"},
		{&r.document, documentQuery + " WHERE kind = ? AND name = ?"},
		{&r.documents, documentQuery + " ORDER BY kind, name"},
	}
}

func (w *writeStatements) list() []statement {
	return []statement{
		{&w.head, headQuery},
		{&w.appendLog, "INSERT INTO log (revision, mark, kind, name, aliases) VALUES (?, ?, ?, ?, ?)"},
		{&w.pruneLog, "DELETE FROM log WHERE revision <= ?"},
		{&w.replaceSecret, "UPDATE store_secret SET version = ?, sealed = ?, checked = ? WHERE version = ? AND sealed = ? AND checked = ?"},

		{&w.key, keyByAlias},
		{&w.keys, keysByAlias},
		{&w.insertKey, insertion("keys", keyColumns) + " ON CONFLICT (organization, name) WHERE name <> '' DO NOTHING"},
		{&w.updateKey, replacement("keys", keyColumns)},
		{&w.deleteKey, "DELETE FROM keys WHERE number = ?"},
		{&w.insertNames, "INSERT INTO aliases (alias, number) VALUES (?, ?), (?, ?)"},
		{&w.insertAlias, "INSERT INTO aliases (alias, number) VALUES (?, ?)"},
		{&w.deleteAlias, "DELETE FROM aliases WHERE alias = ?"},
		{&w.nameOwner, "SELECT number FROM keys WHERE organization = ? AND name = ? AND name <> ''"},
		{&w.insertKeyPermission, "INSERT INTO key_permissions (permission, number) VALUES (?, ?)"},
		{&w.deleteKeyPermission, "DELETE FROM key_permissions WHERE permission = ? AND number = ?"},

		{&w.organization, organizationQuery + " WHERE slug = ?"},
		{&w.insertOrganization, insertion("organizations", organizationColumns)},
		{&w.updateOrganization, replacement("organizations", organizationColumns)},
		{&w.owned, "SELECT number FROM keys WHERE organization = ? LIMIT 1"},
		{&w.deleteOrganization, "DELETE FROM organizations WHERE number = ?"},

		{&w.document, documentQuery + " WHERE kind = ? AND name = ?"},
		{&w.documents, documentQuery + " WHERE kind = ? ORDER BY name"},
		{&w.putDocument, "INSERT INTO documents (kind, name, body, revision) VALUES (?, ?, ?, ?)" +
			" ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body, revision = excluded.revision"},
		{&w.deleteDocument, "DELETE FROM documents WHERE kind = ? AND name = ?"},

		{&w.reply, "SELECT id, request, key, sealed, created FROM replies WHERE id = ?"},
		{&w.putReply, "INSERT OR REPLACE INTO replies (id, request, key, sealed, created) VALUES (?, ?, ?, ?, ?)"},
		{&w.dropReplies, "DELETE FROM replies WHERE created < ?"},
		{&w.dropSealed, "UPDATE replies SET sealed = NULL WHERE created < ? AND sealed IS NOT NULL"},

		{&w.appendAudit, insertion("audit", auditColumns)},

		{&w.addDay, addition("usage_days")},
		{&w.addMonth, addition("usage_months")},
		{&w.moveLastUse, "INSERT INTO last_used (key, generation, at) VALUES (?, ?, ?)" +
			" ON CONFLICT (key, generation) DO UPDATE SET at = excluded.at WHERE excluded.at > at"},
		{&w.dropDays, "DELETE FROM usage_days WHERE period < ?"},
	}
}

func insertion(table string, columns []string) string {
	return "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")"
}

func replacement(table string, columns []string) string {
	return "UPDATE " + table + " SET " + strings.Join(columns, " = ?, ") + " = ? WHERE number = ?"
}

func addition(table string) string {
	return "INSERT INTO " + table + " (period, key, organization, outcome, requests) VALUES (?, ?, ?, ?, ?)" +
		" ON CONFLICT (period, key, organization, outcome) DO UPDATE SET requests = requests + excluded.requests"
}
