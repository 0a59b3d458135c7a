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
	lookup, key, head, mark, changes, secret         *sql.Stmt
	organization, organizations, document, documents *sql.Stmt
}

type writeStatements struct {
	head, appendLog, pruneLog, replaceSecret                                  *sql.Stmt
	key, insertKey, updateKey, deleteKey, insertAlias, deleteAlias, nameOwner *sql.Stmt
	organization, insertOrganization, updateOrganization                      *sql.Stmt
	document, putDocument, deleteDocument                                     *sql.Stmt
	reply, putReply, dropReplies, dropSealed                                  *sql.Stmt
}

var (
	keySelection = "keys.number, keys." + strings.Join(keyColumns, ", keys.")
	keyByAlias   = "SELECT " + keySelection + " FROM aliases JOIN keys ON keys.number = aliases.number WHERE aliases.alias = ?"

	headQuery         = "SELECT revision, mark FROM log ORDER BY revision DESC LIMIT 1"
	organizationQuery = "SELECT " + organizationColumns + " FROM organizations"
	documentQuery     = "SELECT " + documentColumns + " FROM documents"
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
		{&r.key, keyByAlias},
		{&r.head, headQuery},
		{&r.mark, "SELECT mark FROM log WHERE revision = ?"},
		{&r.changes, "SELECT revision, mark, kind, name, aliases FROM log WHERE revision > ? ORDER BY revision LIMIT ?"},
		{&r.secret, "SELECT version, sealed, checked FROM store_secret"},
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
		{&w.insertKey, "INSERT INTO keys (" + strings.Join(keyColumns, ", ") + ") VALUES (?" + strings.Repeat(", ?", len(keyColumns)-1) + ")"},
		{&w.updateKey, "UPDATE keys SET " + strings.Join(keyColumns, " = ?, ") + " = ? WHERE number = ?"},
		{&w.deleteKey, "DELETE FROM keys WHERE number = ?"},
		{&w.insertAlias, "INSERT INTO aliases (alias, number) VALUES (?, ?)"},
		{&w.deleteAlias, "DELETE FROM aliases WHERE alias = ?"},
		{&w.nameOwner, "SELECT number FROM keys WHERE organization = ? AND name = ? AND name <> ''"},

		{&w.organization, organizationQuery + " WHERE slug = ?"},
		{&w.insertOrganization, "INSERT INTO organizations (slug, default_expiry, maximum_expiry, allowed_scopes, metadata, created, revision) VALUES (?, ?, ?, ?, ?, ?, ?)"},
		{&w.updateOrganization, "UPDATE organizations SET slug = ?, default_expiry = ?, maximum_expiry = ?, allowed_scopes = ?, metadata = ?, created = ?, revision = ? WHERE number = ?"},

		{&w.document, documentQuery + " WHERE kind = ? AND name = ?"},
		{&w.putDocument, "INSERT INTO documents (kind, name, body, revision) VALUES (?, ?, ?, ?)" +
			" ON CONFLICT (kind, name) DO UPDATE SET body = excluded.body, revision = excluded.revision"},
		{&w.deleteDocument, "DELETE FROM documents WHERE kind = ? AND name = ?"},

		{&w.reply, "SELECT id, request, key, sealed, created FROM replies WHERE id = ?"},
		{&w.putReply, "INSERT OR REPLACE INTO replies (id, request, key, sealed, created) VALUES (?, ?, ?, ?, ?)"},
		{&w.dropReplies, "DELETE FROM replies WHERE created < ?"},
		{&w.dropSealed, "UPDATE replies SET sealed = NULL WHERE created < ? AND sealed IS NOT NULL"},
	}
}
