-- Calls: one row each, the fold of the call's events.
--
-- A row is updated by each event of the call, and nearly always in place (HOT):
-- that ends where an indexed column changes, which costs a new entry in every
-- index. So no index contains a column that each event changes. list_partition
-- stands in for status, direction, has_errors and anomaly_count, and changes
-- about once in the life of a call. What reports count is null until the call
-- has ended.
--
-- Identifiers are compared by their bytes ("C"), as the program compares them.
--
-- Locks: none, it only creates a table, a sequence and indexes.

create sequence call_ids as bigint cache 1024;

comment on sequence call_ids is 'The values of calls.id. A writer takes 1,024 at a time.';

create table calls (
    id bigint primary key,
    first_event_at timestamptz not null,
    last_event_at timestamptz not null,
    status_since timestamptz,
    updated_at timestamptz not null,
    last_delivered_at timestamptz not null,
    statuses_seen bigint,
    total_microseconds bigint,
    version int not null,
    event_count int not null,
    anomaly_count int not null,
    direction call_direction,
    status smallint not null,
    list_partition smallint not null,
    last_event_rank smallint not null,
    has_errors boolean not null,
    is_status_since_reported boolean not null,
    call_id text collate "C" not null,
    project_id text collate "C" not null,
    client_id text collate "C",
    provider_status text,
    last_event_fingerprint bytea not null,
    attempts jsonb not null,
    microseconds_in_status bigint[] not null,
    attempt_counts int[],
    durations bigint[],
    unique (call_id, project_id)
)
-- Room in each page for the next versions of its rows (HOT).
with (
    fillfactor = 60,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 20000
);

comment on table calls is 'Calls, one row each: the fold of the call''s events.';
comment on column calls.id is 'The number by which events refer to the call. Not shown outside.';
comment on column calls.first_event_at is 'The least effective_at of its events.';
comment on column calls.last_event_at is 'The greatest effective_at of its events.';
comment on column calls.status_since is 'The effective_at of the event that gave the call its status. The end of the call where the status is terminal.';
comment on column calls.updated_at is 'The greatest received_at of its events.';
comment on column calls.last_delivered_at is 'When the last delivery for the call was received, repeated ones included.';
comment on column calls.statuses_seen is 'The statuses that the events of its attempts reported: bit n for status n. Null while the call is live.';
comment on column calls.total_microseconds is 'From its first event to its end. Null while the call is live.';
comment on column calls.version is 'Increases by one with each write. A writer replaces only the version that it read.';
comment on column calls.event_count is 'The number of its events.';
comment on column calls.anomaly_count is 'The number of its events that are forced or conflicting.';
comment on column calls.direction is 'Who dialed. Null while only unrecognized events have been received.';
comment on column calls.status is 'The status: status_spec.id.';
comment on column calls.list_partition is 'The index partition of lists: 8 × status_spec.outcome, + 1 if inbound, + 2 with errors, + 4 with anomalies.';
comment on column calls.last_event_rank is 'The rank of its last event in fold order.';
comment on column calls.has_errors is 'Whether any of its events carried errors or is an ERROR.';
comment on column calls.is_status_since_reported is 'Whether status_since is the provider''s own time rather than that of the receipt.';
comment on column calls.call_id is 'The provider''s id of the call, unique within its project.';
comment on column calls.project_id is 'The customer''s project at the provider.';
comment on column calls.client_id is 'The customer''s own id of the party, from the last event that has one.';
comment on column calls.provider_status is 'The provider''s own status of the call, from the last event that has one. Informative only.';
comment on column calls.last_event_fingerprint is 'The fingerprint of its last event in fold order.';
comment on column calls.attempts is 'The attempts in order: number, call_sid, status, statuses (all that its events reported), started_at, ended_at.';
comment on column calls.microseconds_in_status is 'The time in each status, by status id (element 1 is status 1). Null where the call was not in it; the present status is not counted.';
comment on column calls.attempt_counts is 'The number of attempts in each status, by status id. Null while the call is live.';
comment on column calls.durations is 'microseconds_in_status once the call has ended; null while it is live.';

-- The columns that are included are all that reports count of calls that have ended, so that a
-- report reads the index only.
create index calls_in_order on calls (list_partition, first_event_at, id, project_id)
    include (statuses_seen, total_microseconds, attempt_counts, durations);

comment on index calls_in_order is 'Lists of calls of any project, and what reports count of calls.';

-- Outcomes 0 and 1 are those of live calls, as a check on status_spec ensures.
create index calls_of_project on calls (project_id, list_partition, first_event_at, id)
    where list_partition >= 16;

comment on index calls_of_project is 'Lists of the calls of some projects that have ended; live calls are few and found by calls_in_order.';

create index calls_of_client on calls (client_id, list_partition, first_event_at, id)
    where client_id is not null;

comment on index calls_of_client is 'Lists of the calls of a client.';

-- Every index partition that calls can be in.
create view list_partitions as
select
    (8 * outcome + flags)::smallint as list_partition,
    outcome,
    flags & 1 <> 0 as is_inbound,
    flags & 2 <> 0 as has_errors,
    flags & 4 <> 0 as is_anomalous
from (select distinct outcome from status_spec) as outcomes
cross join generate_series(0, 7) as flags;

comment on view list_partitions is 'The index partitions of lists.';
comment on column list_partitions.list_partition is 'As in calls.list_partition.';
comment on column list_partitions.outcome is 'As in status_spec.outcome.';
comment on column list_partitions.is_inbound is 'Whether its calls are inbound.';
comment on column list_partitions.has_errors is 'Whether its calls have errors.';
comment on column list_partitions.is_anomalous is 'Whether its calls have anomalies.';
