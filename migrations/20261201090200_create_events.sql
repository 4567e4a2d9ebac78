-- Events: append-only, one row for each distinct event of a call.
--
-- No foreign key to calls: it would lock the row of the call once more for each
-- event. `callstate verify` finds an event without its call.
--
-- New events are added at the right edge of nearly every index, so that storing
-- one costs the same however many there are.
--
-- Locks: none, it only creates a table and indexes.

create table events (
    call bigint not null,
    position bigint not null,
    received_at timestamptz not null,
    effective_at timestamptz not null,
    last_delivered_at timestamptz not null,
    occurred_at timestamptz,
    call_updated_at timestamptz,
    payload_removed_at timestamptz,
    disposition event_disposition not null,
    delivery_count int not null,
    attempt int,
    reason_attempt int,
    call_attempt_count int not null,
    call_direction call_direction,
    event_type smallint not null,
    reason smallint not null,
    reason_status smallint,
    from_status smallint,
    to_status smallint,
    call_status smallint not null,
    time_problem smallint,
    call_has_errors boolean not null,
    repeats_call_sid boolean not null,
    moves_call boolean not null,
    changes_client boolean not null,
    fingerprint bytea not null,
    unrecognized_type text,
    call_sid text collate "C",
    client_id text collate "C",
    provider_status text,
    endpoint text not null,
    errors jsonb,
    payload json,
    primary key (call, fingerprint)
)
with (
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000
);

comment on table events is 'Events, append-only: one row for each distinct event of a call.';
comment on column events.call is 'The call: calls.id.';
comment on column events.position is 'The position in the change feed: from 1, in the order of commits, with gaps.';
comment on column events.received_at is 'When its first delivery was received.';
comment on column events.effective_at is 'occurred_at, or received_at where that is null.';
comment on column events.last_delivered_at is 'When its last delivery was received.';
comment on column events.occurred_at is 'When it happened by the provider''s clock: the Time: line of body.text. Null where there is none that can be used.';
comment on column events.call_updated_at is 'The updated_at of the call after the event was stored; null where that is received_at. Like the other call_ columns it never changes.';
comment on column events.payload_removed_at is 'When retention removed the payload; null where it has not.';
comment on column events.disposition is 'What the state machine did with it.';
comment on column events.delivery_count is 'The number of its deliveries.';
comment on column events.attempt is 'The number of the attempt that it counts for.';
comment on column events.reason_attempt is 'The attempt that the reason names.';
comment on column events.call_attempt_count is 'The number of attempts of the call after the event was stored.';
comment on column events.call_direction is 'The direction of the call after the event was stored.';
comment on column events.event_type is 'The event type: event_type_spec.id; 0 where it is unrecognized.';
comment on column events.reason is 'Why it had its effect: reason_spec.id.';
comment on column events.reason_status is 'The status that the reason names: status_spec.id.';
comment on column events.from_status is 'The status that it took the call from. Null where it changed nothing, or the call began with it.';
comment on column events.to_status is 'The status that it took the call to. Null where it changed nothing.';
comment on column events.call_status is 'The status of the call after the event was stored.';
comment on column events.time_problem is 'Why the Time: line was not used: 1 unreadable, 2 implausible. Null where it was used or there was none.';
comment on column events.call_has_errors is 'Whether the call had errors after the event was stored.';
comment on column events.repeats_call_sid is 'Whether an attempt of the call had this call_sid before, so that another event leads from the call_sid to the call.';
comment on column events.moves_call is 'Whether it moved first_event_at of its call back, and with it the call''s position in lists.';
comment on column events.changes_client is 'Whether its client differs from that of the events of its call before it, so that the call is also found by a client that it no longer has.';
comment on column events.fingerprint is 'SHA-256 of the canonical JSON of projectId, eventType and body: what makes the event distinct within its call.';
comment on column events.unrecognized_type is 'The provider''s name of the event type where it is unrecognized.';
comment on column events.call_sid is 'The telephony provider''s id of the dial.';
comment on column events.client_id is 'The customer''s own id of the party.';
comment on column events.provider_status is 'The provider''s own status of the call at that moment. Informative only.';
comment on column events.endpoint is 'The endpoint that received its first delivery.';
comment on column events.errors is 'The errors that it carries (code, message, phase, where, timestamp), with U+FFFD for what text cannot hold. Null where there are none.';
comment on column events.payload is 'The body of its first delivery, exactly as received; null where retention removed it. May contain \u0000 and lone surrogates, on which -> and ->> fail: cast it to text.';

create unique index events_in_feed on events (position);

comment on index events_in_feed is 'The change feed.';

create index events_in_time on events (effective_at)
    include (call, event_type, from_status, to_status);

comment on index events_in_time is 'Which event types occur when, and when calls enter a status or leave it.';

create index events_of_unrecognized_types on events (effective_at) where event_type = 0;

comment on index events_of_unrecognized_types is 'The few events whose type the state machine does not know.';

create index events_of_call_sid on events (call_sid)
    where call_sid is not null and not repeats_call_sid;

comment on index events_of_call_sid is 'The call that a telephony provider''s id of a dial belongs to.';

create index events_with_errors on events (call) where errors is not null;

comment on index events_with_errors is 'The few events of a call that carry errors.';

create index events_that_moved_calls on events (position) where moves_call;

comment on index events_that_moved_calls is 'The calls whose position in lists has changed since a position of the feed.';

create index events_that_changed_clients on events (call) where changes_client;

comment on index events_that_changed_clients is 'The few calls whose events name several clients.';

-- The id of an event: a UUID of version 8 made of its call and its fingerprint. The twin of
-- call::event_id. Not immutable, as convert_to is not.
create function callstate_event_id(project_id text, call_id text, fingerprint bytea) returns uuid
    language sql stable parallel safe
    return overlay(
        overlay(
            left(
                encode(
                    sha256(
                        convert_to(project_id || e'\n' || call_id || e'\n', 'UTF8') || fingerprint
                    ),
                    'hex'
                ),
                32
            ) placing '8' from 13 for 1
        ) placing '8' from 17 for 1
    )::uuid;

comment on function callstate_event_id(text, text, bytea) is 'The id of an event, made of its call and its fingerprint.';

create function callstate_reason(
    template text, status text, event_status text, attempt int, event_attempt int
)
    returns text
    language sql immutable parallel safe
    return replace(
        replace(
            replace(
                replace(template, '{event_status}', coalesce(event_status, '')),
                '{status}', coalesce(status, '')
            ),
            '{event_attempt}', coalesce(event_attempt::text, '')
        ),
        '{attempt}', coalesce(attempt::text, '')
    );

comment on function callstate_reason(text, text, text, int, int) is 'The sentence of a reason: its template with the parameters filled in.';
