-- Fills an empty store with :calls calls, as ten months would.
--
-- psql -v calls=1000000 -f calls.sql
--
-- Of these, :live calls are live (default 20000).
--
-- The rows are those that the program would write for the events, so that
-- `callstate verify` finds no difference. Three things are simpler than in a
-- real store: a live call has one event and an ended call two, one of each
-- 250 has a contradicting event besides; fingerprints are random; payloads are
-- empty. Calls and events are inserted in the order of time.
--
-- All random values are derived from the number of the call, so each run gives
-- the same calls, at times relative to now. The proportions: half of the calls
-- in the first of 40 projects, 200 in the last; one in seven inbound; a tenth of
-- the live calls stalled; one in 25 with errors, one in 250 with anomalies; one
-- in ten thousand expired.

\if :{?live} \else
\set live 20000
\endif
\set days 300

create function pg_temp.draw(number bigint, what text) returns double precision
    language sql immutable
    return (('x' || left(md5(number || what), 13))::bit(52)::bigint)::double precision / 2 ^ 52;

-- An array by status id, with the value for one status.
create function pg_temp.only_status(id smallint, value bigint, missing bigint) returns bigint[]
    language sql immutable
    return array_fill(missing, array[id - 1]) || value;

create temporary table drawn as
-- materialized, so that each value is computed once
with
draws as materialized (
    select number,
        pg_temp.draw(number, 'project') as draw_project,
        pg_temp.draw(number, 'delay') as draw_delay,
        pg_temp.draw(number, 'inbound') < 1.0 / 7 as is_inbound,
        pg_temp.draw(number, 'live') as draw_live,
        pg_temp.draw(number, 'outcome') as draw_outcome,
        pg_temp.draw(number, 'client') as draw_client,
        pg_temp.draw(number, 'errors') as draw_errors,
        pg_temp.draw(number, 'anomalies') as draw_anomalies
    from generate_series(1, :calls) as number
),
outcomes as materialized (
    select draws.*,
        case
            when number > :calls - 0.9 * :live or draw_live < 0.1 * :live / :calls then
                case
                    when is_inbound
                        then (array['CONNECTING', 'CONNECTING', 'CALLING', 'CALLING', 'CLOSING'])[1 + number % 5]
                    else (array['PENDING', 'REQUESTED', 'CALLING', 'CALLING', 'CLOSING'])[1 + number % 5]
                end
            when is_inbound and draw_outcome < 0.02 then 'CONCURRENCY_LIMIT_EXCEEDED'
            when is_inbound and draw_outcome < 0.05 then 'ERROR'
            when is_inbound then 'COMPLETED'
            when draw_outcome < 0.0001 then 'EXPIRED'
            when draw_outcome < 0.02 then 'CANCELED'
            when draw_outcome < 0.05 then 'ERROR'
            when draw_outcome < 0.10 then 'UNREACHABLE'
            when draw_outcome < 0.20 then 'BUSY'
            when draw_outcome < 0.30 then 'NO_RESPONSE'
            when draw_outcome < 0.40 then 'MAX_ATTEMPTS_REACHED'
            else 'COMPLETED'
        end as status,
        -- in whole seconds, as the provider states them; most live calls began in the last ten minutes
        date_trunc('second', now() - interval '1 minute' - draw_delay * interval '1 minute' - case
            when number > :calls - 0.9 * :live then draw_delay * interval '9 minutes'
            else :days * interval '1 day' * (1 - number::double precision / :calls)
        end) as first_event_at
    from draws
)
select
    row_number() over (order by outcomes.first_event_at, outcomes.number) as id,
    outcomes.number,
    md5(outcomes.number || 'call')::uuid::text as call_id,
    case
        when outcomes.number % (:calls / 200) = 0 then 'project-40'
        else 'project-' || lpad((1 + floor(39 * outcomes.draw_project ^ 5))::int::text, 2, '0')
    end as project_id,
    (case when outcomes.is_inbound then 'inbound' else 'outbound' end)::call_direction as direction,
    outcomes.is_inbound,
    outcomes.first_event_at,
    case when spec.terminal then outcomes.first_event_at + interval '40 s' end as ended_at,
    -- the status of the first event: one from which the provider describes the step to the last
    first_spec.id as first_status,
    first_spec.status as first_status_name,
    spec.id as status,
    spec.status as status_name,
    spec.terminal,
    spec.belongs_to_attempt,
    spec.outcome,
    case
        when outcomes.draw_client < 0.9
            then md5(floor(200000 * outcomes.draw_client ^ 3) || 'client')::uuid::text
    end as client_id,
    'CA' || md5(outcomes.number || 'dial') as call_sid,
    spec.status = 'ERROR' or outcomes.draw_errors < 0.01 as has_errors,
    outcomes.draw_anomalies < 0.004 as is_anomalous
from outcomes
join status_spec as spec on spec.status = outcomes.status
join status_spec as first_spec on first_spec.status = case
    when not spec.terminal then outcomes.status
    when outcomes.status in ('CANCELED', 'EXPIRED') then 'PENDING'
    else 'CALLING'
end;

-- The events of the calls, numbered in the order of receipt.
create temporary table happened as
select row_number() over (order by happened_at, id, step) as position, *
from (
    select id, 1 as step, first_event_at as happened_at, first_status as status,
        first_status_name as status_name, direction,
        has_errors and status_name <> 'ERROR' as has_errors
    from drawn
    union all
    -- an event of the other direction contradicts any call
    select drawn.id, 2, first_event_at + interval '20 s', calling.id, calling.status,
        (case when is_inbound then 'outbound' else 'inbound' end)::call_direction, false
    from drawn
    join status_spec as calling on calling.status = 'CALLING'
    where is_anomalous
    union all
    select id, 3, ended_at, status, status_name, direction, status_name = 'ERROR'
    from drawn
    where terminal
) as steps;

insert into calls (
    id, call_id, project_id, version, direction, status, list_partition, attempts, client_id,
    provider_status, has_errors, event_count, anomaly_count, microseconds_in_status, status_since,
    is_status_since_reported, first_event_at, last_event_at, last_event_rank,
    last_event_fingerprint, updated_at, last_delivered_at, statuses_seen, total_microseconds,
    attempt_counts, durations
)
select drawn.id, call_id, project_id, last.step_count, drawn.direction, drawn.status,
    8 * outcome + is_inbound::int + 2 * drawn.has_errors::int + 4 * is_anomalous::int,
    jsonb_build_array(jsonb_build_object(
        'number', 1,
        'call_sid', call_sid,
        'status', attempt.status_name,
        'statuses', case
            when attempt.status = first_status then jsonb_build_array(first_status_name)
            else jsonb_build_array(first_status_name, attempt.status_name)
        end,
        'started_at', to_char(first_event_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        'ended_at', case
            when attempt.status <> first_status
                then to_char(ended_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        end
    )),
    client_id, drawn.status_name, drawn.has_errors, last.step_count, is_anomalous::int,
    coalesce(in_status, '{}'), coalesce(ended_at, first_event_at), true, first_event_at,
    last.happened_at, ranks.rank, sha256((number || ' ' || last.step)::bytea),
    last.happened_at + interval '1 s', last.happened_at + interval '1 s',
    case when terminal then (1::bigint << first_status) | (1::bigint << attempt.status) end,
    case when terminal then 40000000 end,
    case when terminal then pg_temp.only_status(attempt.status, 1, 0)::int[] end,
    in_status
from drawn
cross join lateral (
    select
        case when belongs_to_attempt then status else first_status end as status,
        case when belongs_to_attempt then status_name else first_status_name end as status_name,
        case when terminal then pg_temp.only_status(first_status, 40000000, null) end as in_status
) as attempt
cross join lateral (
    select
        1 + is_anomalous::int + terminal::int as step_count,
        case when terminal then 3 when is_anomalous then 2 else 1 end as step,
        case
            when terminal then ended_at
            when is_anomalous then first_event_at + interval '20 s'
            else first_event_at
        end as happened_at,
        case when is_anomalous and not terminal then 'CALLING' else drawn.status_name end as status_name
) as last
join (select status as name, rank from status_spec) as ranks on ranks.name = last.status_name
order by drawn.id;

insert into events (
    call, position, fingerprint, event_type, occurred_at, received_at, effective_at, disposition,
    reason, reason_status, reason_attempt, from_status, to_status, attempt, call_sid,
    repeats_call_sid, moves_call, changes_client, client_id, provider_status, errors, endpoint, delivery_count,
    last_delivered_at, payload, call_direction, call_status, call_attempt_count, call_has_errors
)
select happened.id, position, sha256((number || ' ' || step)::bytea), event_type_spec.id,
    happened_at, happened_at + interval '1 s', happened_at,
    (case when step = 2 then 'conflicting' else 'advanced' end)::event_disposition,
    reason_spec.id,
    -- a call without events is UNKNOWN, which has the id 0
    case when step = 1 then 0 else first_status end,
    case when step > 1 then 1 end,
    case when step = 3 then first_status end,
    case when step <> 2 then happened.status end,
    case when step = 1 or (step = 3 and drawn.belongs_to_attempt) then 1 end,
    case when step <> 2 then call_sid end,
    step = 3, false, false, client_id,
    case when step <> 2 then happened.status_name end,
    case when happened.has_errors then jsonb_build_array(jsonb_build_object(
        'code', 'NETWORK_ERROR', 'message', 'the line went dead', 'phase', 'CALLING',
        'where', null, 'timestamp', null
    )) end,
    'default', 1, happened_at + interval '1 s', '{}', drawn.direction,
    case when step = 3 then drawn.status else first_status end, 1,
    drawn.has_errors and (step = 3 or drawn.status_name <> 'ERROR')
from happened
join drawn using (id)
join event_type_spec
    on event_type_spec.status = happened.status and event_type_spec.direction = happened.direction
join reason_spec on reason_spec.reason = case
    when step = 1 then 'began'
    when step = 3 then 'advanced'
    when drawn.is_inbound then 'outbound_event'
    else 'inbound_event'
end
order by position;

select setval('feed_positions', (select count(*) from happened)) as last_position \gset

select setval('call_ids', :calls) as last_id \gset

drop table happened;
drop table drawn;
