-- The quarantine: authentic deliveries that could not be parsed, kept for replay.
--
-- It is listed from the newest entry on, and the oldest entries are dropped when
-- it is full or they are too old. The time of the first receipt never changes,
-- so a cursor stays right however often the same delivery is repeated.
--
-- Locks: none, it only creates a table and an index.

create table quarantine (
    id uuid primary key,
    endpoint text not null,
    reason text not null,
    headers jsonb not null,
    body bytea not null,
    first_received_at timestamptz not null,
    last_received_at timestamptz not null,
    count bigint not null,
    check (count > 0)
);

comment on table quarantine is 'Authentic deliveries that could not be parsed, one row for each endpoint and distinct body.';
comment on column quarantine.id is 'Made of the endpoint and the body, so that a retry finds its row.';
comment on column quarantine.endpoint is 'The endpoint that received it.';
comment on column quarantine.reason is 'Why it could not be parsed.';
comment on column quarantine.headers is 'The headers of its first delivery, without those that carry credentials.';
comment on column quarantine.body is 'The body, byte for byte.';
comment on column quarantine.first_received_at is 'When it was first received.';
comment on column quarantine.last_received_at is 'When it was last received.';
comment on column quarantine.count is 'The number of its deliveries.';

create index quarantine_in_order on quarantine (first_received_at, id);

comment on index quarantine_in_order is 'The quarantine by age, for listing it and for dropping the oldest entries.';
