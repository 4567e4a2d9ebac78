-- The vocabulary: directions, dispositions, statuses, event types and reasons.
--
-- Statuses and event types are defined in one table in Rust (call::status,
-- call::event_type) and in the same table here, so that views and queries join it
-- instead of listing names. The program compares both when it starts.
-- To add a status: an entry in Rust, its row in the transition table, and a
-- migration that inserts a row here and calls callstate_create_wide_views().
--
-- Locks: none, it only creates types and tables.

create type call_direction as enum ('outbound', 'inbound');

comment on type call_direction is 'Who dialed: the platform (outbound) or the party (inbound).';

create type event_disposition as enum (
    'advanced',
    'nonfatal',
    'forced',
    'redialed',
    'repeated',
    'late',
    'conflicting',
    'unrecognized'
);

comment on type event_disposition is 'What the state machine did with an event.';

create table status_spec (
    id smallint primary key,
    status text not null unique,
    label text not null,
    rank smallint not null,
    kind text not null,
    terminal boolean not null,
    final boolean not null,
    belongs_to_attempt boolean not null,
    outcome smallint not null,
    is_completed boolean not null,
    is_in_conversation boolean not null,
    is_turned_away boolean not null,
    -- Bit `id` of calls.statuses_seen stands for the status.
    check (id between 0 and 62),
    -- 0 and 1 are the outcomes of live calls: the index calls_of_project relies on it.
    check (outcome = case when terminal then id when id = 0 then 0 else 1 end),
    check (not terminal or id > 1)
);

comment on table status_spec is 'The statuses of calls and their properties.';
comment on column status_spec.id is 'The number by which tables refer to the status. Never changes.';
comment on column status_spec.status is 'The name: the event type without its prefix.';
comment on column status_spec.label is 'The name for people.';
comment on column status_spec.rank is 'The order of statuses within an attempt and a call, -1 to 7.';
comment on column status_spec.kind is 'live, redialable, resolvable or final.';
comment on column status_spec.terminal is 'Whether a call in this status has ended, at least for now.';
comment on column status_spec.final is 'Whether a call seldom leaves this status.';
comment on column status_spec.belongs_to_attempt is 'Whether the status is one of an attempt (rank 0 to 6) rather than of the call as a whole.';
comment on column status_spec.outcome is 'The outcome in calls.list_partition: the status itself where it is terminal, 1 for live statuses, 0 for UNKNOWN.';
comment on column status_spec.is_completed is 'Whether reports count a call in this status as completed.';
comment on column status_spec.is_in_conversation is 'Whether reports count a call in this status as concurrent.';
comment on column status_spec.is_turned_away is 'Whether reports count a call in this status as turned away.';

create table event_type_spec (
    id smallint primary key,
    event_type text not null unique,
    direction call_direction not null,
    status smallint not null references status_spec (id),
    begins_call boolean not null,
    starts_dial boolean not null,
    leads_to smallint[] not null,
    -- 0 in events.event_type is a type that the program does not know.
    check (id > 0)
);

comment on table event_type_spec is 'The event types and their properties.';
comment on column event_type_spec.id is 'The number by which tables refer to the event type. Never changes.';
comment on column event_type_spec.event_type is 'The provider''s name of the event type.';
comment on column event_type_spec.direction is 'The direction of the calls that have such events.';
comment on column event_type_spec.status is 'The status that the event reports.';
comment on column event_type_spec.begins_call is 'Whether calls usually begin with this event.';
comment on column event_type_spec.starts_dial is 'Whether the event belongs to the start of a dial.';
comment on column event_type_spec.leads_to is 'The statuses that a call reaches only through this event''s status.';

create table reason_spec (
    id smallint primary key,
    reason text not null unique,
    template text not null
);

comment on table reason_spec is 'Why an event had its effect: the sentences that events.reason refers to.';
comment on column reason_spec.id is 'The number by which events.reason refers to the sentence. Never changes.';
comment on column reason_spec.reason is 'The code.';
comment on column reason_spec.template is 'The sentence, with {status}, {event_status}, {attempt} and {event_attempt} in place of its parameters.';

insert into status_spec (
    id, status, label, rank, kind, terminal, final, belongs_to_attempt, outcome, is_completed,
    is_in_conversation, is_turned_away
)
select id, status, label, rank, kind, kind <> 'live', kind = 'final', rank between 0 and 6,
    case when kind <> 'live' then id when id = 0 then 0 else 1 end, status = 'COMPLETED',
    status = 'CALLING', status = 'CONCURRENCY_LIMIT_EXCEEDED'
from (values
    (0::smallint, 'UNKNOWN', 'Unknown', -1::smallint, 'live'),
    (1, 'PENDING', 'Pending', 0, 'live'),
    (2, 'REQUESTED', 'Requested', 1, 'live'),
    (3, 'CONNECTING', 'Connecting', 1, 'live'),
    (4, 'CALLING', 'Calling', 2, 'live'),
    (5, 'CLOSING', 'Closing', 3, 'live'),
    (6, 'ERROR', 'Error', 4, 'resolvable'),
    (7, 'NO_RESPONSE', 'No response', 5, 'redialable'),
    (8, 'BUSY', 'Busy', 5, 'redialable'),
    (9, 'UNREACHABLE', 'Unreachable', 5, 'redialable'),
    (10, 'COMPLETED', 'Completed', 6, 'final'),
    (11, 'CANCELED', 'Canceled', 7, 'final'),
    (12, 'EXPIRED', 'Expired', 7, 'final'),
    (13, 'MAX_ATTEMPTS_REACHED', 'Max attempts reached', 7, 'final'),
    (14, 'CONCURRENCY_LIMIT_EXCEEDED', 'Concurrency limit exceeded', 7, 'final')
) as spec (id, status, label, rank, kind);

-- A status leads to another where the provider's own description has no other way. The outcomes
-- of a dial lead nowhere.
insert into event_type_spec (
    id, event_type, direction, status, begins_call, starts_dial, leads_to
)
values
    (1, 'OUTBOUND_CALL_PENDING', 'outbound', 1, true, true, '{2,4,5,6,7,8,9,10,11,12,13}'),
    (2, 'OUTBOUND_CALL_REQUESTED', 'outbound', 2, false, true, '{4,5,7,8,9,10,13}'),
    (3, 'OUTBOUND_CALL_CALLING', 'outbound', 4, false, true, '{5,7,8,9,10,13}'),
    (4, 'OUTBOUND_CALL_CLOSING', 'outbound', 5, false, false, '{10}'),
    (5, 'OUTBOUND_CALL_COMPLETED', 'outbound', 10, false, false, '{}'),
    (6, 'OUTBOUND_CALL_EXPIRED', 'outbound', 12, false, false, '{}'),
    (7, 'OUTBOUND_CALL_NO_RESPONSE', 'outbound', 7, false, false, '{}'),
    (8, 'OUTBOUND_CALL_CANCELED', 'outbound', 11, false, false, '{}'),
    (9, 'OUTBOUND_CALL_BUSY', 'outbound', 8, false, false, '{}'),
    (10, 'OUTBOUND_CALL_UNREACHABLE', 'outbound', 9, false, false, '{}'),
    (11, 'OUTBOUND_CALL_MAX_ATTEMPTS_REACHED', 'outbound', 13, false, false, '{}'),
    (12, 'OUTBOUND_CALL_ERROR', 'outbound', 6, false, false, '{}'),
    (13, 'INBOUND_CALL_CONNECTING', 'inbound', 3, true, false, '{4,5,6,10}'),
    (14, 'INBOUND_CALL_CALLING', 'inbound', 4, false, false, '{5,10}'),
    (15, 'INBOUND_CALL_CLOSING', 'inbound', 5, false, false, '{10}'),
    (16, 'INBOUND_CALL_COMPLETED', 'inbound', 10, false, false, '{}'),
    (17, 'INBOUND_CALL_CONCURRENCY_LIMIT_EXCEEDED', 'inbound', 14, false, false, '{}'),
    (18, 'INBOUND_CALL_ERROR', 'inbound', 6, false, false, '{}');

insert into reason_spec (id, reason, template)
values
    (1, 'began', 'the call began as {event_status}'),
    (2, 'first_known', 'the call became {event_status} with its first event of a known type'),
    (3, 'advanced', 'the call went from {status} to {event_status}'),
    (4, 'advanced_in_attempt', 'the call went from {status} to {event_status} in attempt {event_attempt}'),
    (5, 'advanced_in_other_leg', 'the call went from {status} to {event_status} in another leg of attempt {event_attempt}'),
    (6, 'ended_after_attempt', 'the call went from {status} to {event_status} after attempt {attempt}'),
    (7, 'recovered', 'attempt {event_attempt} began as {status} and went on as {event_status}'),
    (8, 'advanced_despite_error', 'the call went from {status} to {event_status} despite an ERROR in between'),
    (9, 'forced', 'the call went from {status} to {event_status}, a step that the provider does not describe'),
    (10, 'forced_in_attempt', 'the call went from {status} to {event_status} in attempt {event_attempt}, a step that the provider does not describe'),
    (11, 'went_ahead', 'the call was {status}, but its dial went ahead: {event_status} happened later'),
    (12, 'dialed_again', 'the call was {status} and was dialed again later, so attempt {event_attempt} began as {event_status}'),
    (13, 'other_call_sid', 'the call_sid is not that of attempt {attempt}, so attempt {event_attempt} began as {event_status}'),
    (14, 'status_again', 'attempt {attempt} had been {event_status} and had ended as {status}, so attempt {event_attempt} began as {event_status}'),
    (15, 'second_outcome', 'attempt {attempt} had ended as {status}, so {event_status} is the outcome of attempt {event_attempt}'),
    (16, 'repeated', 'the call was {status} before and still is'),
    (17, 'repeated_despite_error', 'the call was {status} before an ERROR and still is'),
    (18, 'late', 'the call was already {status}'),
    (19, 'earlier_attempt', 'the call_sid is that of attempt {attempt}, and a later attempt had begun'),
    (20, 'late_before_error', 'the call was already {status} before its ERROR'),
    (21, 'contradicts', 'the call was already {status}, which {event_status} contradicts'),
    (22, 'contradicts_attempt', 'the call was already {status} in attempt {attempt}, which {event_status} contradicts'),
    (23, 'inbound_event', 'the event is inbound, but the call is outbound'),
    (24, 'outbound_event', 'the event is outbound, but the call is inbound'),
    (25, 'unknown_type', 'the type is not one of the 18 that callstate knows'),
    (26, 'went_on', 'a later event shows that the call went on from {status}');
