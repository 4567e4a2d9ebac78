-- What the reports count calls by.
--
-- A call is written a few times while it lives and hardly ever after. So what is
-- counted of it is taken out of its JSON once, when it has ended; until then
-- these columns do not change, nor does outcome, and the row is rewritten in
-- place (HOT). The index holds all of it, so that a report reads neither rows nor JSON.
--
-- The functions are in PL/pgSQL, which is not inlined: Postgres prepares the
-- expressions of generated columns anew for each statement that writes.
--
-- Locks: calls is rewritten. Whoever reads or writes it waits meanwhile, about
-- fifteen seconds for a million calls.

create function callstate_shape(attempts jsonb, at_most int) returns text
    language plpgsql immutable parallel safe
    as $$
    declare
        shape text := '[' || jsonb_path_query_array(attempts, '$[*].status')::text
            || ',' || jsonb_path_query_array(attempts, '$[*].statuses[*]')::text || ']';
    begin
        return case when octet_length(shape) <= at_most or at_most is null then shape end;
    end
    $$;

comment on function callstate_shape(jsonb, int) is
    'The status of each attempt, and all that the attempts were told, as JSON; null where that has more bytes.';

create function callstate_stays(
    microseconds_in_status jsonb,
    first_event_at timestamptz,
    ended_at timestamptz
)
    returns bigint[]
    language plpgsql immutable parallel safe
    as $$
    begin
        return array_remove(
            array[
                (extract(epoch from ended_at - first_event_at) * 1000000)::bigint * 16,
                (microseconds_in_status -> 'PENDING')::bigint * 16 + 1,
                (microseconds_in_status -> 'REQUESTED')::bigint * 16 + 2,
                (microseconds_in_status -> 'CONNECTING')::bigint * 16 + 3,
                (microseconds_in_status -> 'CALLING')::bigint * 16 + 4,
                (microseconds_in_status -> 'CLOSING')::bigint * 16 + 5,
                (microseconds_in_status -> 'ERROR')::bigint * 16 + 6,
                (microseconds_in_status -> 'NO_RESPONSE')::bigint * 16 + 7,
                (microseconds_in_status -> 'BUSY')::bigint * 16 + 8,
                (microseconds_in_status -> 'UNREACHABLE')::bigint * 16 + 9
            ],
            null
        );
    end
    $$;

comment on function callstate_stays(jsonb, timestamptz, timestamptz) is
    'How long a call was in each status that it left (1 PENDING to 9 UNREACHABLE), and from its first event to its end (0): microseconds times 16, plus that number.';

alter table calls
    add column closed_shape text
        generated always as (case when status >= 'ERROR' then callstate_shape(attempts, 400) end)
        stored,
    add column closed_stays bigint[]
        generated always as (
            case
                when status >= 'ERROR' then
                    callstate_stays(microseconds_in_status, first_event_at, ended_at)
            end
        ) stored;

comment on column calls.closed_shape is 'callstate_shape of the call; null while it is live, and where an entry of the index has no room for it.';
comment on column calls.closed_stays is 'callstate_stays of the call; null while it is live.';

-- One for both: a second index that begins with bucket and outcome would be taken
-- for lists too, in an order that is not theirs.
create index calls_in_order
    on calls (bucket, outcome, marks, first_event_at, call_id, project_id)
    include (direction, has_errors, closed_shape, closed_stays);

comment on index calls_in_order is 'Lists of calls, whatever their project; and all that reports count of calls.';

create index calls_of_many_attempts on calls (bucket)
    where closed_shape is null and outcome >= 'ERROR';

comment on index calls_of_many_attempts is 'The few calls that have ended and whose closed_shape would be too long.';
