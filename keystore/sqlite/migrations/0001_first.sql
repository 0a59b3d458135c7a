-- The store's own secret, sealed under the master key. One row.
CREATE TABLE store_secret (
	only    INTEGER PRIMARY KEY CHECK (only = 1),
	version INTEGER NOT NULL,
	sealed  BLOB NOT NULL,
	checked BLOB NOT NULL
) STRICT;

-- One row for each change, in commit order and without gaps. Bounded: old
-- rows are pruned, the head never is.
CREATE TABLE log (
	revision INTEGER PRIMARY KEY,
	mark     INTEGER NOT NULL,
	kind     TEXT NOT NULL,
	name     TEXT NOT NULL,
	aliases  TEXT NOT NULL -- a JSON array, or empty
) STRICT;

CREATE TABLE organizations (
	number         INTEGER PRIMARY KEY AUTOINCREMENT,
	slug           TEXT NOT NULL UNIQUE,
	default_expiry INTEGER NOT NULL, -- days; 0: never
	maximum_expiry INTEGER NOT NULL, -- days; 0: none
	allowed_scopes TEXT,             -- a JSON array; NULL: all but Warder's own
	metadata       TEXT NOT NULL,
	created        INTEGER NOT NULL,
	revision       INTEGER NOT NULL
) STRICT;

-- AUTOINCREMENT: a number is not given again after its key is deleted.
-- Instants are microseconds since 1970; 0: not set.
CREATE TABLE keys (
	number              INTEGER PRIMARY KEY AUTOINCREMENT,
	id                  TEXT NOT NULL,
	organization        TEXT NOT NULL REFERENCES organizations (slug),
	name                TEXT NOT NULL,
	type                INTEGER NOT NULL,
	current_generation  INTEGER NOT NULL,
	current_access_key  TEXT NOT NULL,
	current_digest      BLOB NOT NULL,
	previous_generation INTEGER NOT NULL,
	previous_access_key TEXT NOT NULL,
	previous_digest     BLOB NOT NULL,
	grace_end           INTEGER NOT NULL,
	created             INTEGER NOT NULL,
	expires             INTEGER NOT NULL,
	deactivated         INTEGER NOT NULL,
	blocked             INTEGER NOT NULL,
	scopes              TEXT NOT NULL,
	metadata            TEXT NOT NULL,
	revision            INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX keys_name ON keys (organization, name) WHERE name <> '';
CREATE INDEX keys_organization ON keys (organization);

-- Everything a key is found by, its id included: one search in one index
-- answers for all of them, and no two keys can share one.
CREATE TABLE aliases (
	alias  TEXT PRIMARY KEY,
	number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE documents (
	kind     TEXT NOT NULL,
	name     TEXT NOT NULL,
	body     BLOB NOT NULL,
	revision INTEGER NOT NULL,
	PRIMARY KEY (kind, name)
) STRICT;

CREATE TABLE replies (
	id      BLOB PRIMARY KEY,
	request BLOB NOT NULL,
	key     TEXT NOT NULL,
	sealed  BLOB, -- NULL: its time is over
	created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX replies_created ON replies (created);
CREATE INDEX replies_sealed ON replies (created) WHERE sealed IS NOT NULL;
