-- Erasure: what was erased, without saying whom.
--
-- A later delivery of an erased call or client is recognized by a keyed hash. The key is
-- random and belongs to this database, so that the hashes cannot be computed from known
-- ids without it, nor compared with those of another database.
--
-- Locks: none, it only creates tables and an index.

create table erasure_key (
    is_only boolean primary key default true check (is_only),
    secret bytea not null check (octet_length(secret) = 32)
);

comment on table erasure_key is 'One row: the key of the hashes in erasure_hashes.';
comment on column erasure_key.is_only is 'Always true: there is one row.';
comment on column erasure_key.secret is '32 random bytes, made with the database.';

insert into erasure_key (secret)
select sha256(convert_to(string_agg(gen_random_uuid()::text, ''), 'UTF8'))
from generate_series(1, 4);

create table erasure_hashes (
    hash bytea primary key check (octet_length(hash) = 32)
);

comment on table erasure_hashes is 'What stays erased: a keyed hash of each erased call and client.';
comment on column erasure_hashes.hash is 'HMAC-SHA-256 of the names, by the key in erasure_key.';

create table erasures (
    id bigint generated always as identity primary key,
    erased_at timestamptz not null,
    kind text not null check (kind in ('call', 'client')),
    api_key uuid,
    calls bigint not null,
    events bigint not null,
    quarantine_entries bigint not null
);

comment on table erasures is 'The audit of erasures, one row for each request, without the names that were erased.';
comment on column erasures.id is 'The number of the erasure.';
comment on column erasures.erased_at is 'When it was requested.';
comment on column erasures.kind is 'What was to be erased: a call, or all calls of a client.';
comment on column erasures.api_key is 'The key of the request: api_keys.id. Null where it was made without a key, as by the command line.';
comment on column erasures.calls is 'The number of calls that were erased.';
comment on column erasures.events is 'The number of their events.';
comment on column erasures.quarantine_entries is 'The number of entries of the quarantine that were removed.';
