-- Deliveries that could not be understood, so that nothing authentic is lost.
--
-- Locks: none that matter, it only creates a table.

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

comment on table quarantine is 'Deliveries that were authentic but could not be understood, once per endpoint and distinct body.';
comment on column quarantine.id is 'Made of the endpoint and the body, so that a retry finds its row.';
comment on column quarantine.endpoint is 'The endpoint that took it.';
comment on column quarantine.reason is 'Why it could not be understood.';
comment on column quarantine.headers is 'The headers of its first delivery, without those that prove or carry secrets.';
comment on column quarantine.body is 'The body, byte for byte.';
comment on column quarantine.first_received_at is 'When it first came.';
comment on column quarantine.last_received_at is 'When it last came.';
comment on column quarantine.count is 'How often it came.';
