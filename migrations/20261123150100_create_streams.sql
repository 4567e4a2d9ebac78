-- Streams: the order in which events were stored, and what each made of its call.
--
-- Transactions commit in another order than they begin, so no number that is
-- taken while one is under way tells what is new to a reader: a smaller one may
-- appear behind a larger. The number of the transaction itself does, together
-- with the horizon below which none is under way any more.
--
-- Postgres counts transactions anew in another cluster, and takes numbers again
-- after a failover that lost some. So there are epochs: each time that the
-- database turns out to be elsewhere, the numbers are moved up above all that
-- were ever stored.
--
-- Locks: nobody reads or writes events while the columns are added, which is
-- short, as no row is rewritten; deliveries wait while the index is built, about
-- a second for each million events.

create table stream_epochs (
    epoch int primary key,
    database text not null,
    transaction_offset bigint not null,
    begins_at bigint not null
);

comment on table stream_epochs is 'The places where this database has lived, in order. The last one counts.';
comment on column stream_epochs.epoch is 'Its number, from 1.';
comment on column stream_epochs.database is 'callstate_place() there.';
comment on column stream_epochs.transaction_offset is 'What is added there to a transaction''s number to make it events.transaction.';
comment on column stream_epochs.begins_at is 'Greater than events.transaction of all earlier epochs, less than that of all events since.';

-- Whatever sets the numbers back ends the server first: a restored dump or copy of
-- its files, another machine that takes over. So each start counts as a move.
create function callstate_place() returns text
    language sql stable
    return format(
        '%s/%s',
        (select oid from pg_database where datname = current_database()),
        extract(epoch from pg_postmaster_start_time())
    );

comment on function callstate_place() is
    'Where this database is: its oid, and when its server was started.';

alter table events
    add column transaction bigint not null default 0,
    add column place int not null default 0,
    add column call_direction call_direction,
    add column call_status call_status,
    add column call_attempt_count int,
    add column call_has_errors boolean,
    add column call_updated_at timestamptz;

comment on column events.transaction is 'The number of the transaction that stored it, moved up by stream_epochs.transaction_offset; 0 where a release stored it that had no streams.';
comment on column events.place is 'Its place within that transaction.';
comment on column events.call_direction is 'The direction of the call as it stood once the event was stored. Never changed after, as the four that follow.';
comment on column events.call_status is 'The status of the call then.';
comment on column events.call_attempt_count is 'How many attempts the call had then.';
comment on column events.call_has_errors is 'Whether any event of the call had carried errors by then.';
comment on column events.call_updated_at is 'When the newest event of the call had been received then; null where that is this one.';

-- A batch has one transaction, so its entries are kept together and take a few
-- bytes each; what is read of one is sorted by its place.
create index events_as_stored on events (bucket, transaction);

comment on index events_as_stored is 'Events in the order in which they were stored: for reading on from a place in a stream.';

-- In place of event_to_write, which instances of the release before still use.
create type event_to_store as (
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
    client_id text,
    provider_status text,
    errors jsonb,
    endpoint text,
    delivery_count int,
    last_delivered_at timestamptz,
    payload text,
    place int,
    call_direction text,
    call_status text,
    call_attempt_count int,
    call_has_errors boolean,
    call_updated_at timestamptz
);

comment on type event_to_store is 'A new event, what it did, and how its call stood then: the columns of events.';
