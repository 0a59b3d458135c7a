-- Text is compared byte for byte (COLLATE "C"): the same on every system, and
-- no new version of a system's collations breaks an index.

-- The store's one row. Who locks it is the only writer: revisions, and the
-- numbers of keys, organizations and entries, follow commit order.
CREATE TABLE head (
	singleton     integer PRIMARY KEY CHECK (singleton = 1),
	version       integer NOT NULL, -- of this schema
	usable_from   integer NOT NULL, -- the oldest version whose programs may work on it
	revision      bigint NOT NULL,
	mark          bigint NOT NULL,
	prune_at      bigint NOT NULL,  -- the revision at which the log is pruned next
	keys          bigint NOT NULL,  -- the last number given to one
	organizations bigint NOT NULL,
	entries       bigint NOT NULL
) WITH (fillfactor = 20);

-- The store's own secret, sealed under the master key. One row.
CREATE TABLE store_secret (
	singleton integer PRIMARY KEY CHECK (singleton = 1),
	version   integer NOT NULL,
	sealed    bytea NOT NULL,
	checked   bytea NOT NULL
);

-- One row for each change, in commit order and without gaps. Bounded: old
-- rows are pruned, the head never is. Instants are microseconds since 1970,
-- here and below; 0: not set.
CREATE TABLE log (
	revision bigint PRIMARY KEY,
	mark     bigint NOT NULL,
	kind     text COLLATE "C" NOT NULL,
	name     text COLLATE "C" NOT NULL,
	aliases  text[], -- NULL: none
	at       bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
);

CREATE TABLE organizations (
	number              bigint PRIMARY KEY,
	slug                text COLLATE "C" NOT NULL CONSTRAINT organizations_slug UNIQUE,
	default_expiry      bigint NOT NULL, -- days; 0: never
	maximum_expiry      bigint NOT NULL, -- days; 0: none
	grace               bigint NOT NULL, -- seconds; 0: as configured
	rate_limit          text COLLATE "C" NOT NULL,
	allowed_scopes      text[],          -- NULL: all but Warder's own
	allowed_permissions text[],          -- NULL: all
	metadata            text COLLATE "C" NOT NULL,
	created             bigint NOT NULL,
	revision            bigint NOT NULL
);

CREATE TABLE keys (
	number              bigint PRIMARY KEY,
	id                  text COLLATE "C" NOT NULL,
	organization        text COLLATE "C" NOT NULL REFERENCES organizations (slug),
	name                text COLLATE "C" NOT NULL,
	type                bigint NOT NULL,
	current_generation  bigint NOT NULL,
	current_access_key  text COLLATE "C" NOT NULL,
	current_digest      bytea NOT NULL,
	previous_generation bigint NOT NULL,
	previous_access_key text COLLATE "C" NOT NULL,
	previous_digest     bytea NOT NULL,
	grace_end           bigint NOT NULL,
	created             bigint NOT NULL,
	expires             bigint NOT NULL,
	deactivated         boolean NOT NULL,
	blocked             boolean NOT NULL,
	scopes              text COLLATE "C" NOT NULL,
	permissions         text COLLATE "C" NOT NULL, -- ids, sorted, separated by spaces
	networks            text COLLATE "C" NOT NULL, -- CIDR, likewise
	rate_limit          text COLLATE "C" NOT NULL, -- such as 100/s burst 200; empty: the organization's
	metadata            text COLLATE "C" NOT NULL,
	revision            bigint NOT NULL
);

CREATE UNIQUE INDEX keys_name ON keys (organization, name) WHERE name <> '';
CREATE INDEX keys_organization ON keys (organization, number);

-- The keys that an imported credential finds, in their order.
CREATE INDEX keys_imported ON keys (number)
	WHERE substr(current_access_key, 1, 9) = 'imported_' OR substr(previous_access_key, 1, 9) = 'imported_';

-- Everything a key is found by, its id included: one search in one index
-- answers for all of them, and no two keys can share one.
CREATE TABLE aliases (
	alias  text COLLATE "C" PRIMARY KEY,
	number bigint NOT NULL
);

-- Which keys refer to a permission: keys.permissions, one by one.
CREATE TABLE key_permissions (
	permission text COLLATE "C" NOT NULL,
	number     bigint NOT NULL,
	PRIMARY KEY (permission, number)
);

CREATE TABLE documents (
	kind     text COLLATE "C" NOT NULL,
	name     text COLLATE "C" NOT NULL,
	body     bytea NOT NULL,
	revision bigint NOT NULL,
	PRIMARY KEY (kind, name)
);

CREATE TABLE replies (
	id      bytea PRIMARY KEY,
	request bytea NOT NULL,
	key     text COLLATE "C" NOT NULL,
	sealed  bytea, -- NULL: its time is over
	created bigint NOT NULL
);

CREATE INDEX replies_created ON replies (created);
CREATE INDEX replies_sealed ON replies (created) WHERE sealed IS NOT NULL;

-- Who changed what, and who tried to. It is only ever appended to.
CREATE TABLE audit (
	number       bigint PRIMARY KEY,
	at           bigint NOT NULL,
	actor        text COLLATE "C" NOT NULL,
	address      text COLLATE "C" NOT NULL,
	operation    text COLLATE "C" NOT NULL,
	kind         text COLLATE "C" NOT NULL,
	object       text COLLATE "C" NOT NULL,
	organization text COLLATE "C" NOT NULL,
	refused      text COLLATE "C" NOT NULL, -- why; empty: it was done
	revision     bigint NOT NULL,
	before       text COLLATE "C" NOT NULL, -- a JSON object, or empty
	after        text COLLATE "C" NOT NULL
);

CREATE INDEX audit_organization ON audit (organization, number);
CREATE INDEX audit_actor ON audit (actor, number);
CREATE INDEX audit_object ON audit (object, number);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'the audit log is only appended to';
END
$$;

CREATE TRIGGER audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
	FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- How often keys were used, by day for a while (20261122) and by month for
-- good (202611). A key that is deleted leaves its rows.
CREATE TABLE usage_days (
	period       bigint NOT NULL,
	key          text COLLATE "C" NOT NULL,
	organization text COLLATE "C" NOT NULL,
	outcome      bigint NOT NULL,
	requests     bigint NOT NULL,
	PRIMARY KEY (period, key, organization, outcome)
);

CREATE TABLE usage_months (
	period       bigint NOT NULL,
	key          text COLLATE "C" NOT NULL,
	organization text COLLATE "C" NOT NULL,
	outcome      bigint NOT NULL,
	requests     bigint NOT NULL,
	PRIMARY KEY (period, key, organization, outcome)
);

-- Without the requests: counting up leaves the indexes as they are.
CREATE INDEX usage_days_organization ON usage_days (organization, period);
CREATE INDEX usage_days_key ON usage_days (key, period);
CREATE INDEX usage_months_organization ON usage_months (organization, period);
CREATE INDEX usage_months_key ON usage_months (key, period);

CREATE TABLE last_used (
	key        text COLLATE "C" NOT NULL,
	generation bigint NOT NULL,
	at         bigint NOT NULL,
	PRIMARY KEY (key, generation)
);

-- The sidecars that follow this store. No part of the log.
CREATE TABLE nodes (
	id         text COLLATE "C" PRIMARY KEY,
	address    text COLLATE "C" NOT NULL,
	version    text COLLATE "C" NOT NULL,
	revision   bigint NOT NULL, -- applied; 0: nothing
	mark       bigint NOT NULL,
	bound      bigint NOT NULL, -- microseconds
	registered bigint NOT NULL,
	heartbeat  bigint NOT NULL
) WITH (fillfactor = 50);
