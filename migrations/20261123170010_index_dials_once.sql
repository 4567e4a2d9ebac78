-- One event leads from a dial to its call, in place of each that names the dial.
--
-- Locks: nobody reads or writes events while the column is added, which is
-- short, as no row is rewritten; deliveries wait while the index is built, about a
-- second for each million events.

alter table events add column repeats_dial boolean not null default false;

comment on column events.repeats_dial is 'Whether an attempt of the call had this call_sid before the event was stored, so that another event leads from the dial to the call. Events stored by the releases before say no.';

drop index events_of_dial;

create index events_of_dial on events (bucket, call_sid)
    where call_sid is not null and not repeats_dial;

comment on index events_of_dial is 'The call that a telephony provider''s id of a dial belongs to.';

-- In place of event_to_store, which instances of the release before still use.
create type new_event as (
    call_id text,
    project_id text,
    fingerprint bytea,
    event_id uuid,
    event_type text,
    rank smallint,
    occurred_at timestamptz,
    received_at timestamptz,
    disposition text,
    reason text,
    from_status text,
    to_status text,
    attempt int,
    call_sid text,
    repeats_dial boolean,
    client_id text,
    provider_status text,
    errors jsonb,
    endpoint text,
    delivery_count int,
    last_delivered_at timestamptz,
    payload json,
    place int,
    call_direction text,
    call_status text,
    call_attempt_count int,
    call_has_errors boolean,
    call_updated_at timestamptz
);

comment on type new_event is 'A new event, what it did, and how its call stood then: the columns of events.';

drop type event_to_write;
