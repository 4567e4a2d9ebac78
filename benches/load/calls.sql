-- Fills an empty store with :calls calls as ten months of them would be, each with
-- its last event alone: lists read calls, and of events the errors and dials.
--
-- psql -v calls=1000000 -f calls.sql
--
-- Of them :live are under way, 20000 unless it is said.
--
-- What is drawn is drawn from the number of the call, so it is the same each
-- time, but for when it is. The proportions: half of the calls in the first of 40 projects, 200 in
-- the last; one in seven inbound; a tenth of the live ones for longer than they
-- should be; one in 25 with errors, one in 250 with anomalies; one in ten
-- thousand expired.

\if :{?live} \else
\set live 20000
\endif
\set days 300

create function pg_temp.draw(number bigint, what text) returns double precision
    language sql immutable
    return (('x' || left(md5(number || what), 13))::bit(52)::bigint)::double precision / 2 ^ 52;

create temporary table drawn as
select number,
    md5(number || 'call')::uuid::text as call_id,
    case
        when number % (:calls / 200) = 0 then 'project-40'
        else 'project-' || lpad((1 + floor(39 * draw_project ^ 5))::int::text, 2, '0')
    end as project_id,
    -- in whole seconds, as the provider has them; most of the live ones of the last ten minutes
    date_trunc('second', now() - interval '1 minute' - draw_delay * interval '1 minute' - case
        when number > :calls - 0.9 * :live then draw_delay * interval '9 minutes'
        else :days * interval '1 day' * (1 - number::double precision / :calls)
    end) as first_event_at,
    (case when is_inbound then 'inbound' else 'outbound' end)::call_direction as direction,
    (case
        when number > :calls - 0.9 * :live or (draw_live < 0.1 * :live / :calls)
            then (array['PENDING', 'REQUESTED', 'CALLING', 'CALLING', 'CLOSING'])[1 + number % 5]
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
    end)::call_status as status,
    case when draw_client < 0.9 then md5(floor(200000 * draw_client ^ 3) || 'client')::uuid::text end
        as client_id,
    'CA' || md5(number || 'dial') as call_sid,
    draw_errors < 0.04 as has_errors,
    (draw_anomalies < 0.004)::int as anomaly_count
from (
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
) as draws;

insert into calls (
    bucket, call_id, project_id, version, direction, status, attempts, client_id, provider_status,
    has_errors, event_count, anomaly_count, microseconds_in_status, status_since, first_event_at,
    last_event_at, last_event_rank, last_event_fingerprint, ended_at, updated_at, last_delivered_at,
    closed_shape, closed_stays
)
select 0, call_id, project_id, 5, direction,
    (case when direction = 'inbound' and status in ('PENDING', 'REQUESTED') then 'CONNECTING' else status end)::call_status,
    jsonb_build_array(jsonb_build_object(
        'number', 1, 'call_sid', call_sid, 'status', 'CALLING', 'statuses', jsonb_build_array('CALLING'),
        'started_at', first_event_at, 'ended_at', null)),
    client_id, 'CALLING', has_errors, 1, anomaly_count, '{"PENDING": 2000000, "CALLING": 18000000}',
    first_event_at, first_event_at, first_event_at + interval '40 s', 6, sha256(number::text::bytea),
    case when status >= 'ERROR' then first_event_at + interval '40 s' end,
    first_event_at + interval '41 s', first_event_at + interval '41 s',
    case when status >= 'ERROR' then '[["CALLING"],["CALLING"]]' end,
    case when status >= 'ERROR' then '{640000000,32000001,288000004}'::bigint[] end
from drawn
-- as they were stored when they came
order by number;

insert into events (
    bucket, call_id, project_id, fingerprint, event_id, event_type, rank, occurred_at, received_at,
    effective_at, disposition, reason, from_status, to_status, attempt, call_sid, client_id,
    provider_status, errors, endpoint, delivery_count, last_delivered_at, payload
)
select 0, call_id, project_id, sha256(number::text::bytea), md5(number || 'event')::uuid,
    upper(direction::text) || '_CALL_CALLING', 2, first_event_at, first_event_at + interval '1 s',
    first_event_at, 'advanced', 'the call began as CALLING', null, 'CALLING', 1, call_sid, client_id,
    'CALLING',
    case when has_errors then '[{"code": "NETWORK_ERROR", "message": "the line went dead", "phase": "CALLING"}]'::jsonb end,
    'default', 1, first_event_at + interval '1 s', '{}'
from drawn
order by number;

drop table drawn;
