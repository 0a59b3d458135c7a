-- What a key may do, from where and how often.
ALTER TABLE keys ADD COLUMN permissions TEXT NOT NULL DEFAULT ''; -- ids, sorted, separated by spaces
ALTER TABLE keys ADD COLUMN networks    TEXT NOT NULL DEFAULT ''; -- CIDR, likewise
ALTER TABLE keys ADD COLUMN rate_limit  TEXT NOT NULL DEFAULT ''; -- such as 100/s burst 200; empty: the organization's

-- The keys that an imported credential finds, in their order.
CREATE INDEX keys_imported ON keys (number)
	WHERE substr(current_access_key, 1, 9) = 'imported_' OR substr(previous_access_key, 1, 9) = 'imported_';

-- Which keys refer to a permission: keys.permissions, one by one.
CREATE TABLE key_permissions (
	permission TEXT NOT NULL,
	number     INTEGER NOT NULL,
	PRIMARY KEY (permission, number)
) STRICT, WITHOUT ROWID;

ALTER TABLE organizations ADD COLUMN grace               INTEGER NOT NULL DEFAULT 0; -- seconds; 0: as configured
ALTER TABLE organizations ADD COLUMN rate_limit          TEXT NOT NULL DEFAULT '';
ALTER TABLE organizations ADD COLUMN allowed_permissions TEXT; -- a JSON array; NULL: all

-- Who changed what, and who tried to. It is only ever appended to.
CREATE TABLE audit (
	number       INTEGER PRIMARY KEY AUTOINCREMENT,
	at           INTEGER NOT NULL,
	actor        TEXT NOT NULL,
	address      TEXT NOT NULL,
	operation    TEXT NOT NULL,
	kind         TEXT NOT NULL,
	object       TEXT NOT NULL,
	organization TEXT NOT NULL,
	refused      TEXT NOT NULL, -- why; empty: it was done
	revision     INTEGER NOT NULL,
	before       TEXT NOT NULL, -- a JSON object, or empty
	after        TEXT NOT NULL
) STRICT;

-- Each ends with the number, as every index does.
CREATE INDEX audit_organization ON audit (organization);
CREATE INDEX audit_actor ON audit (actor);
CREATE INDEX audit_object ON audit (object);

CREATE TRIGGER audit_unchanged BEFORE UPDATE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is only appended to'); END;
CREATE TRIGGER audit_kept BEFORE DELETE ON audit
BEGIN SELECT raise(ABORT, 'the audit log is only appended to'); END;

-- How often keys were used, by day for a while (20261122) and by month for
-- good (202611). A key that is deleted leaves its rows.
CREATE TABLE usage_days (
	period       INTEGER NOT NULL,
	key          TEXT NOT NULL,
	organization TEXT NOT NULL,
	outcome      INTEGER NOT NULL,
	requests     INTEGER NOT NULL,
	PRIMARY KEY (period, key, organization, outcome)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_months (
	period       INTEGER NOT NULL,
	key          TEXT NOT NULL,
	organization TEXT NOT NULL,
	outcome      INTEGER NOT NULL,
	requests     INTEGER NOT NULL,
	PRIMARY KEY (period, key, organization, outcome)
) STRICT, WITHOUT ROWID;

-- Without the requests: counting up leaves the indexes as they are.
CREATE INDEX usage_days_organization ON usage_days (organization, period);
CREATE INDEX usage_days_key ON usage_days (key, period);
CREATE INDEX usage_months_organization ON usage_months (organization, period);
CREATE INDEX usage_months_key ON usage_months (key, period);

CREATE TABLE last_used (
	key        TEXT NOT NULL,
	generation INTEGER NOT NULL,
	at         INTEGER NOT NULL,
	PRIMARY KEY (key, generation)
) STRICT, WITHOUT ROWID;
