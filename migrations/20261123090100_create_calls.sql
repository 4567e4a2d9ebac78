-- Calls and their events: the heart of the store.
--
-- What holds from the first row on, so that the tables can be distributed by
-- bucket: the bucket comes first in every key, no triggers, no sequences, no
-- foreign keys that would lock the call once more for each event. `callstate
-- verify` finds an event without a call.
--
-- The keys read (bucket, call_id, project_id), so that the one index also finds
-- a call by its id alone. They are compared by their bytes ("C"), as the
-- program compares them.
--
-- Postgres prepares every check anew for each statement that writes, so there is
-- but one, of what only the database can hold the program to. `callstate verify`
-- finds the rest.
--
-- Locks: none that matter, it only creates types and tables.

create type call_direction as enum ('outbound', 'inbound');

comment on type call_direction is 'Who dialled.';

create type call_status as enum (
    'UNKNOWN',
    'PENDING',
    'REQUESTED',
    'CONNECTING',
    'CALLING',
    'CLOSING',
    'ERROR',
    'NO_RESPONSE',
    'BUSY',
    'UNREACHABLE',
    'COMPLETED',
    'CANCELED',
    'EXPIRED',
    'MAX_ATTEMPTS_REACHED',
    'CONCURRENCY_LIMIT_EXCEEDED'
);

comment on type call_status is
    'Where a call stands: the event type without its prefix, in the order of rank.';

create type event_disposition as enum (
    'advanced',
    'forced',
    'redialed',
    'repeated',
    'late',
    'conflicting',
    'unrecognized'
);

comment on type event_disposition is 'What the state machine did with an event.';

create table calls (
    bucket int not null,
    call_id text collate "C" not null,
    project_id text collate "C" not null,
    version bigint not null,
    direction call_direction,
    status call_status not null,
    attempts jsonb not null,
    client_id text,
    provider_status text,
    has_errors boolean not null,
    event_count int not null,
    anomaly_count int not null,
    microseconds_in_status jsonb not null,
    status_since timestamptz,
    first_event_at timestamptz not null,
    last_event_at timestamptz not null,
    last_event_rank smallint not null,
    last_event_fingerprint bytea not null,
    ended_at timestamptz,
    updated_at timestamptz not null,
    last_delivered_at timestamptz not null,
    primary key (bucket, call_id, project_id),
    check (bucket = callstate_bucket(project_id, call_id))
)
-- A call is rewritten a few times soon after it was written: the room left in
-- each page keeps the new versions there and out of the index (HOT).
with (fillfactor = 70);

comment on table calls is 'Calls, one row each: the fold of the call''s events.';
comment on column calls.bucket is 'callstate_bucket(project_id, call_id): where the call lives in a distributed database, 0 elsewhere.';
comment on column calls.call_id is 'The provider''s name of the call, unique within its project.';
comment on column calls.project_id is 'The customer''s project at the provider; ''default'' where a delivery named none.';
comment on column calls.version is 'Goes up by one with each write. A writer replaces only the version that it read.';
comment on column calls.direction is 'Who dialled; null while only unrecognized events have come.';
comment on column calls.status is 'Where the call stands.';
comment on column calls.attempts is 'The dials in order: number, call_sid, status, statuses (all that its events said), started_at, ended_at.';
comment on column calls.client_id is 'The customer''s own id of the party, as the last event that has one says.';
comment on column calls.provider_status is 'The provider''s own status of the call, as the last event that has one says. Informative only.';
comment on column calls.has_errors is 'Whether any event carried errors.';
comment on column calls.event_count is 'How many distinct events the call has.';
comment on column calls.anomaly_count is 'How many of its events are forced, conflicting or unrecognized.';
comment on column calls.microseconds_in_status is 'Microseconds spent in each status, open stays not counted.';
comment on column calls.status_since is 'When the event happened that last changed the status.';
comment on column calls.first_event_at is 'The least effective_at of its events.';
comment on column calls.last_event_at is 'The greatest effective_at of its events.';
comment on column calls.last_event_rank is 'The rank of its last event: with last_event_at and last_event_fingerprint its place in the fold order.';
comment on column calls.last_event_fingerprint is 'The fingerprint of its last event in fold order.';
comment on column calls.ended_at is 'When the event happened that brought the present terminal status; null while live.';
comment on column calls.updated_at is 'When the newest of its events was received.';
comment on column calls.last_delivered_at is 'When a delivery for the call last came, repeated ones included.';

create table events (
    bucket int not null,
    call_id text collate "C" not null,
    project_id text collate "C" not null,
    fingerprint bytea not null,
    event_id uuid not null,
    event_type text not null,
    rank smallint not null,
    occurred_at timestamptz,
    received_at timestamptz not null,
    effective_at timestamptz not null,
    disposition event_disposition not null,
    reason text not null,
    from_status call_status,
    to_status call_status,
    attempt int,
    call_sid text,
    client_id text,
    provider_status text,
    errors jsonb,
    endpoint text not null,
    delivery_count int not null,
    last_delivered_at timestamptz not null,
    payload json not null,
    primary key (bucket, call_id, project_id, fingerprint),
    check (bucket = callstate_bucket(project_id, call_id))
);

comment on table events is 'Events, append-only, one row for each distinct thing that the provider said of a call.';
comment on column events.bucket is 'The bucket of the call.';
comment on column events.call_id is 'The call.';
comment on column events.project_id is 'The call''s project.';
comment on column events.fingerprint is 'SHA-256 of the canonical JSON of projectId, eventType and body: what makes the event distinct within its call.';
comment on column events.event_id is 'The id of the event, made of its call and its fingerprint.';
comment on column events.event_type is 'What the provider calls it, be the type known or not.';
comment on column events.rank is 'The rank of the status that it says, -1 where its type is unrecognized. The fold order is effective_at, rank, fingerprint.';
comment on column events.occurred_at is 'When it happened: the Time: line of body.text; null where there is none that can be believed.';
comment on column events.received_at is 'When its first delivery came.';
comment on column events.effective_at is 'When it counts as having happened: occurred_at, else received_at.';
comment on column events.disposition is 'What the state machine did with it.';
comment on column events.reason is 'Why, in one sentence.';
comment on column events.from_status is 'The status that it took the call out of; null where it changed nothing or the call began with it.';
comment on column events.to_status is 'The status that it took the call to; null where it changed nothing.';
comment on column events.attempt is 'The number of the attempt that it counts for.';
comment on column events.call_sid is 'The dial that it is about.';
comment on column events.client_id is 'The party that it is about.';
comment on column events.provider_status is 'The provider''s own status of the call at that moment. Informative only.';
comment on column events.errors is 'The errors that it carries (code, message, phase, where, timestamp), with U+FFFD for what text cannot hold; null where there are none.';
comment on column events.endpoint is 'The endpoint that took its first delivery.';
comment on column events.delivery_count is 'How often it was delivered.';
comment on column events.last_delivered_at is 'When it was last delivered.';
comment on column events.payload is 'The body of its first delivery, exactly as it came. May hold \u0000 and lone surrogates, so ask nothing of it with -> or ->>: cast it to text.';
