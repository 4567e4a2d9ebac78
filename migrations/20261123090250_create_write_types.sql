-- The rows of a batch, as the program hands them to the one statement that
-- writes them.
--
-- One array of rows costs Postgres a tenth of what an array for each column
-- does. These are types of their own rather than the tables', so that a column
-- that a later migration adds to a table does not lock out the instances that
-- still run the program from before: who changes what is handed over makes a new
-- type, and drops the old one a release later.
--
-- Locks: none, it only creates types.

create type call_to_write as (
    call_id text,
    project_id text,
    version bigint,
    direction text,
    status text,
    attempts jsonb,
    client_id text,
    provider_status text,
    has_errors boolean,
    event_count int,
    anomaly_count int,
    microseconds_in_status jsonb,
    status_since timestamptz,
    first_event_at timestamptz,
    last_event_at timestamptz,
    last_event_rank smallint,
    last_event_fingerprint bytea,
    ended_at timestamptz,
    updated_at timestamptz,
    last_delivered_at timestamptz
);

comment on type call_to_write is 'A call as it is to be: the columns of calls.';

create type event_to_write as (
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
    payload text
);

comment on type event_to_write is 'A new event and what it did: the columns of events.';
