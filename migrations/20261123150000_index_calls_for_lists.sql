-- What `GET /calls` finds calls by.
--
-- A row of calls is rewritten with each event, nearly always in place (HOT):
-- that ends where an indexed column changes, which costs a new entry in every
-- index. So nothing here is over what each event changes. outcome and marks
-- change about once in the life of a call, and stand in for status, direction,
-- has_errors and anomaly_count, of which only some values are asked for at a
-- time: a list merges the few ranges of an index that its filters leave, each of
-- which is in the order of the list. The index over all calls is made later, where
-- what reports want to be in it exists.
--
-- Locks: calls is rewritten. Whoever reads or writes it waits meanwhile, some
-- tens of seconds for a million calls.

alter table calls
    add column outcome call_status not null
        -- any status that is added behind CLOSING is terminal
        generated always as (
            case when status between 'PENDING' and 'CLOSING' then 'PENDING' else status end
        ) stored,
    add column marks smallint not null
        generated always as (
            ((direction is not distinct from 'inbound')::int
                + 2 * has_errors::int
                + 4 * (anomaly_count > 0)::int)::smallint
        ) stored,
    add column moved_at timestamptz;

comment on column calls.outcome is 'The status where it is terminal; PENDING while the call is under way, UNKNOWN while nothing is known of it.';
comment on column calls.marks is 'What else a list tells calls apart by, as a sum: 1 inbound, 2 has errors, 4 has anomalies.';
comment on column calls.moved_at is 'When a delivery last moved first_event_at back; null where it has not moved.';

create index calls_of_project
    on calls (bucket, project_id, outcome, marks, first_event_at, call_id);

comment on index calls_of_project is 'Lists of the calls of some projects.';

-- Three ids of 255 characters would not fit in an entry, which has 2,704 bytes.
create index calls_of_client
    on calls (bucket, md5(client_id), outcome, marks, first_event_at, call_id, project_id)
    where client_id is not null;

comment on index calls_of_client is 'Lists of the calls of a client.';

create index calls_moved on calls (bucket, moved_at) where moved_at is not null;

comment on index calls_moved is 'The few calls that have moved since somebody began to read a list.';
