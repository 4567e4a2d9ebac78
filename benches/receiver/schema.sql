-- The tables that a team writes for a receiver by hand: every event as it was
-- received, and one row per call with its last status. Duplicates are stored again
-- and order is not kept: the baselines do less than callstate does.

create table calls (
    call_id text primary key,
    project_id text not null,
    status text not null,
    call_sid text,
    client_id text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table events (
    event_id bigint generated always as identity primary key,
    call_id text not null,
    event_type text not null,
    payload jsonb not null,
    received_at timestamptz not null default now()
);

create index events_of_call on events (call_id, event_id);
