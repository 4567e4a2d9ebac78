-- API keys.
--
-- A key is 256 random bits, so its SHA-256 can neither be guessed nor looked up
-- in a prepared table: a salt or a slow hash, which make up for weak passwords,
-- would add nothing but time to each request. The hash finds the row, so that
-- the comparison is the index's.
--
-- Locks: none, it only creates a type and a table.

create type api_key_scope as enum ('read', 'admin');

comment on type api_key_scope is 'What a key permits: reading, or reading and administration.';

create table api_keys (
    id uuid primary key,
    name text not null,
    hash bytea not null unique,
    scope api_key_scope not null,
    projects text[],
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    check (name <> ''),
    check (octet_length(hash) = 32),
    -- A key of no project permits nothing, and is easily mistaken for null.
    check (cardinality(projects) > 0)
);

comment on table api_keys is 'API keys, one row each, revoked ones included. The keys themselves are not stored.';
comment on column api_keys.id is 'Identifies the key; reveals nothing of it.';
comment on column api_keys.name is 'The name for people. Several keys may have one name, as while they rotate.';
comment on column api_keys.hash is 'SHA-256 of the key as it is sent, cs_ included.';
comment on column api_keys.scope is 'What the key permits.';
comment on column api_keys.projects is 'The projects that the key is limited to; null for all.';
comment on column api_keys.created_at is 'When it was created.';
comment on column api_keys.expires_at is 'When it expires; null for never.';
comment on column api_keys.revoked_at is 'When it was revoked; null while it is valid.';
comment on column api_keys.last_used_at is 'When it was last used, to about a minute; null for never.';
