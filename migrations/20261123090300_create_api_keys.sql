-- API keys: who may ask, and for what.
--
-- A key is 256 random bits, so its SHA-256 can neither be guessed nor looked up
-- in a table made beforehand: a salt or a slow hash, which make up for weak
-- passwords, would add nothing but the time that each request would take. The
-- hash finds the row, so that the comparison is the index's.
--
-- Every request asks for a row here and none is written with calls or events:
-- a distributed database keeps it whole on each node (a reference table).
--
-- Locks: none that matter, it only creates a type and a table.

create type api_key_scope as enum ('read', 'admin');

comment on type api_key_scope is 'What a key lets its bearer do: ask, or ask and administer.';

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
    -- "Of no project" is a key that is good for nothing, and one slip away from null.
    check (cardinality(projects) > 0)
);

comment on table api_keys is 'API keys, one row each, revoked ones included. The keys themselves are nowhere.';
comment on column api_keys.id is 'Names the key; tells nothing of it.';
comment on column api_keys.name is 'What people call it; several may have one name, as while they rotate.';
comment on column api_keys.hash is 'SHA-256 of the key as it is sent, cs_ included.';
comment on column api_keys.scope is 'What it lets its bearer do.';
comment on column api_keys.projects is 'The projects whose calls its bearer may see; null for all.';
comment on column api_keys.created_at is 'When it was made.';
comment on column api_keys.expires_at is 'When it ceases to be good; null for never.';
comment on column api_keys.revoked_at is 'When it was taken back; null while it is good.';
comment on column api_keys.last_used_at is 'When it was last used, to the minute or so; null for never.';
