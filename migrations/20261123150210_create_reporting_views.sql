-- The views for those who report in SQL: the same words as in the JSON.
--
-- What always holds: no view reads into a payload; a view without
-- security_invoker reads with the rights of its owner, so that who may read it
-- need not be let near the tables.
--
-- Every view names all buckets, and that of calls all outcomes and marks, since
-- the indexes begin with them. Terminal and final are told by the order of the
-- statuses in their type, which is that of their ranks.
--
-- Locks: none that matter, it only creates views.

-- Where it has ended, all is in an index; the others are few.
create view reported_calls as
select project_id, direction, first_event_at, outcome as status, has_errors,
    closed_shape as shape, closed_stays as stays
from calls
where bucket = any(callstate_all_buckets())
    and outcome = any('{ERROR,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,CANCELED,EXPIRED,MAX_ATTEMPTS_REACHED,CONCURRENCY_LIMIT_EXCEEDED}')
    and marks = any('{0,1,2,3,4,5,6,7}')
    and closed_shape is not null
union all
select project_id, direction, first_event_at, status, has_errors,
    callstate_shape(attempts, null), closed_stays
from calls
where bucket = any(callstate_all_buckets()) and closed_shape is null and outcome >= 'ERROR'
union all
select project_id, direction, first_event_at, status, has_errors,
    callstate_shape(attempts, null),
    callstate_stays(microseconds_in_status, first_event_at, ended_at)
from calls
where bucket = any(callstate_all_buckets()) and outcome = any('{UNKNOWN,PENDING}')
    and marks = any('{0,1,2,3,4,5,6,7}');

comment on view reported_calls is 'Calls as reports count them.';
comment on column reported_calls.project_id is 'The call''s project.';
comment on column reported_calls.direction is 'Who dialled.';
comment on column reported_calls.first_event_at is 'When its first event happened.';
comment on column reported_calls.status is 'Where it stands.';
comment on column reported_calls.has_errors is 'Whether any event carried errors.';
comment on column reported_calls.shape is 'callstate_shape of the call.';
comment on column reported_calls.stays is 'callstate_stays of the call.';

create view reporting.calls as
select
    project_id,
    call_id,
    direction,
    status,
    status >= 'ERROR' as terminal,
    status >= 'COMPLETED' as final,
    status = 'COMPLETED' and has_errors as completed_with_errors,
    jsonb_array_length(attempts) as attempt_count,
    jsonb_path_query_array(attempts, '$[*].status') as attempt_statuses,
    jsonb_path_query_array(attempts, '$[*].statuses[*]') as told_statuses,
    attempts -> -1 ->> 'call_sid' as call_sid,
    client_id,
    provider_status,
    has_errors,
    event_count,
    anomaly_count,
    (
        select coalesce(jsonb_object_agg(key, value::bigint / 1e6), '{}')
        from jsonb_each_text(microseconds_in_status)
    ) as time_in_status,
    first_event_at,
    last_event_at,
    ended_at,
    extract(epoch from ended_at - first_event_at)::double precision as total_seconds,
    updated_at,
    last_delivered_at
from calls
where bucket = any(callstate_all_buckets())
    and outcome = any('{UNKNOWN,PENDING,ERROR,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,CANCELED,EXPIRED,MAX_ATTEMPTS_REACHED,CONCURRENCY_LIMIT_EXCEEDED}');

comment on view reporting.calls is 'Calls, one row each, as they stand now.';
comment on column reporting.calls.project_id is 'The customer''s project at the provider; ''default'' where a delivery named none.';
comment on column reporting.calls.call_id is 'The provider''s name of the call, unique within its project.';
comment on column reporting.calls.direction is 'Who dialled: outbound or inbound; null while only unrecognized events have come.';
comment on column reporting.calls.status is 'Where the call stands.';
comment on column reporting.calls.terminal is 'Whether the call has ended, at least for now.';
comment on column reporting.calls.final is 'Whether the call never leaves its status.';
comment on column reporting.calls.completed_with_errors is 'Whether it is COMPLETED although any event carried errors.';
comment on column reporting.calls.attempt_count is 'How often it was dialled.';
comment on column reporting.calls.attempt_statuses is 'The status of each attempt in order, a JSON array.';
comment on column reporting.calls.told_statuses is 'The statuses that the events of its attempts said, a JSON array; those of each attempt in the order of rank.';
comment on column reporting.calls.call_sid is 'The telephony provider''s id of the current dial.';
comment on column reporting.calls.client_id is 'The customer''s own id of the party.';
comment on column reporting.calls.provider_status is 'The provider''s own status of the call. Informative only.';
comment on column reporting.calls.has_errors is 'Whether any event carried errors.';
comment on column reporting.calls.event_count is 'How many distinct events it has.';
comment on column reporting.calls.anomaly_count is 'How many of its events are forced, conflicting or unrecognized.';
comment on column reporting.calls.time_in_status is 'Seconds in each status, a JSON object; a stay that has not ended is not counted.';
comment on column reporting.calls.first_event_at is 'When its first event happened. The time that a call is reported under.';
comment on column reporting.calls.last_event_at is 'When its last event happened.';
comment on column reporting.calls.ended_at is 'When the present terminal status began; null while live.';
comment on column reporting.calls.total_seconds is 'Seconds from its first event to its end; null while live.';
comment on column reporting.calls.updated_at is 'When the newest of its events was received.';
comment on column reporting.calls.last_delivered_at is 'When a delivery for it last came, repeated ones included.';

create view reporting.attempts as
select
    calls.project_id,
    calls.call_id,
    calls.direction,
    attempt.number,
    attempt.call_sid,
    attempt.status,
    attempt.started_at,
    attempt.ended_at,
    extract(epoch from attempt.ended_at - attempt.started_at)::double precision as seconds,
    calls.status as call_status,
    calls.first_event_at as call_first_event_at
from calls
cross join lateral jsonb_to_recordset(calls.attempts) as attempt (
    number int,
    call_sid text,
    status call_status,
    started_at timestamptz,
    ended_at timestamptz
)
where calls.bucket = any(callstate_all_buckets());

comment on view reporting.attempts is 'The dials of calls, one row each.';
comment on column reporting.attempts.project_id is 'The call''s project.';
comment on column reporting.attempts.call_id is 'The call.';
comment on column reporting.attempts.direction is 'Who dialled.';
comment on column reporting.attempts.number is 'Its place among the call''s attempts, from 1.';
comment on column reporting.attempts.call_sid is 'The telephony provider''s id of the dial, where it is known.';
comment on column reporting.attempts.status is 'How far the dial came.';
comment on column reporting.attempts.started_at is 'When its first event happened.';
comment on column reporting.attempts.ended_at is 'When it ended; null while it is under way.';
comment on column reporting.attempts.seconds is 'Seconds from its start to its end.';
comment on column reporting.attempts.call_status is 'Where the call as a whole stands.';
comment on column reporting.attempts.call_first_event_at is 'When the first event of the call happened. The time that the call is reported under.';

create view reporting.events as
select
    project_id,
    call_id,
    event_id,
    event_type,
    case when rank >= 0 then lower(split_part(event_type, '_', 1))::call_direction end as direction,
    case when rank >= 0 then regexp_replace(event_type, '^[A-Z]+_CALL_', '')::call_status end
        as status,
    disposition,
    reason,
    from_status,
    to_status,
    attempt,
    call_sid,
    client_id,
    provider_status,
    errors is not null as has_errors,
    occurred_at,
    received_at,
    effective_at,
    delivery_count,
    last_delivered_at,
    endpoint
from events
where bucket = any(callstate_all_buckets());

comment on view reporting.events is 'Events, one row for each distinct thing that the provider said of a call.';
comment on column reporting.events.project_id is 'The call''s project.';
comment on column reporting.events.call_id is 'The call.';
comment on column reporting.events.event_id is 'The id of the event.';
comment on column reporting.events.event_type is 'What the provider calls it.';
comment on column reporting.events.direction is 'Whose calls have this event; null where its type is unrecognized.';
comment on column reporting.events.status is 'The status that it says; null where its type is unrecognized.';
comment on column reporting.events.disposition is 'What the state machine did with it.';
comment on column reporting.events.reason is 'Why, in one sentence.';
comment on column reporting.events.from_status is 'The status that it took the call out of; null where it changed nothing or the call began with it.';
comment on column reporting.events.to_status is 'The status that it took the call to; null where it changed nothing.';
comment on column reporting.events.attempt is 'The number of the attempt that it counts for.';
comment on column reporting.events.call_sid is 'The dial that it is about.';
comment on column reporting.events.client_id is 'The party that it is about.';
comment on column reporting.events.provider_status is 'The provider''s own status of the call at that moment. Informative only.';
comment on column reporting.events.has_errors is 'Whether it carries errors.';
comment on column reporting.events.occurred_at is 'When it happened, where the provider said so.';
comment on column reporting.events.received_at is 'When its first delivery came.';
comment on column reporting.events.effective_at is 'When it counts as having happened: occurred_at, else received_at.';
comment on column reporting.events.delivery_count is 'How often it was delivered.';
comment on column reporting.events.last_delivered_at is 'When it was last delivered.';
comment on column reporting.events.endpoint is 'The endpoint that took its first delivery.';

create view reporting.payloads as
select project_id, call_id, event_id, event_type, effective_at, received_at, payload
from events
where bucket = any(callstate_all_buckets());

comment on view reporting.payloads is 'What the provider sent, which may hold personal data: nobody may read it unless it is granted.';
comment on column reporting.payloads.project_id is 'The call''s project.';
comment on column reporting.payloads.call_id is 'The call.';
comment on column reporting.payloads.event_id is 'The id of the event.';
comment on column reporting.payloads.event_type is 'What the provider calls it.';
comment on column reporting.payloads.effective_at is 'When it counts as having happened.';
comment on column reporting.payloads.received_at is 'When its first delivery came.';
comment on column reporting.payloads.payload is 'The body of its first delivery, exactly as it came. Ask it by payload_text, as ->> fails on the whole query where one row holds \u0000.';

create view reporting.errors as
select
    project_id,
    call_id,
    calls.direction,
    events.event_id,
    events.event_type,
    error.number::int as number,
    error.value ->> 'code' as code,
    error.value ->> 'message' as message,
    error.value ->> 'phase' as phase,
    error.value ->> 'where' as "where",
    error.value ->> 'timestamp' as "timestamp",
    events.effective_at,
    calls.status as call_status,
    calls.first_event_at as call_first_event_at
from calls
join events using (bucket, call_id, project_id)
cross join lateral jsonb_array_elements(events.errors) with ordinality as error (value, number)
where bucket = any(callstate_all_buckets())
    and calls.has_errors
    and events.errors is not null;

comment on view reporting.errors is 'What went wrong in calls, one row for each error that an event carried.';
comment on column reporting.errors.project_id is 'The call''s project.';
comment on column reporting.errors.call_id is 'The call.';
comment on column reporting.errors.direction is 'Who dialled.';
comment on column reporting.errors.event_id is 'The event that carried it.';
comment on column reporting.errors.event_type is 'What the provider calls the event.';
comment on column reporting.errors.number is 'Its place among the errors of the event, from 1.';
comment on column reporting.errors.code is 'The provider''s code.';
comment on column reporting.errors.message is 'One line for people.';
comment on column reporting.errors.phase is 'The phase of the call in which it happened.';
comment on column reporting.errors."where" is 'The part of the provider''s program in which it happened.';
comment on column reporting.errors."timestamp" is 'When it happened, as the provider wrote it.';
comment on column reporting.errors.effective_at is 'When the event happened.';
comment on column reporting.errors.call_status is 'Where the call stands.';
comment on column reporting.errors.call_first_event_at is 'When the first event of the call happened. The time that the call is reported under.';

create view reporting.transitions as
select
    project_id,
    call_id,
    lower(split_part(event_type, '_', 1))::call_direction as direction,
    event_id,
    event_type,
    disposition,
    attempt,
    from_status,
    to_status,
    effective_at as at,
    extract(
        epoch from effective_at - lag(effective_at) over (
            partition by bucket, call_id, project_id
            order by effective_at, rank, fingerprint
        )
    )::double precision as seconds_in_from_status
from events
where bucket = any(callstate_all_buckets()) and to_status is not null;

comment on view reporting.transitions is 'The steps of calls: one row for each event that gave its call its status, be it a redial or forced.';
comment on column reporting.transitions.project_id is 'The call''s project.';
comment on column reporting.transitions.call_id is 'The call.';
comment on column reporting.transitions.direction is 'Who dialled.';
comment on column reporting.transitions.event_id is 'The event.';
comment on column reporting.transitions.event_type is 'What the provider calls the event.';
comment on column reporting.transitions.disposition is 'Whether the call was advanced, forced or redialed.';
comment on column reporting.transitions.attempt is 'The number of the attempt that the event counts for.';
comment on column reporting.transitions.from_status is 'The status that the call left; null where it began.';
comment on column reporting.transitions.to_status is 'The status that the call came to.';
comment on column reporting.transitions.at is 'When.';
comment on column reporting.transitions.seconds_in_from_status is 'How long the call had been in from_status: since the step before. Added up by from_status they are its time_in_status.';

create view reporting.durations as
select
    calls.project_id,
    calls.call_id,
    calls.direction,
    (
        '{total,PENDING,REQUESTED,CONNECTING,CALLING,CLOSING,ERROR,NO_RESPONSE,BUSY,UNREACHABLE}'::text[]
    )[(stay & 15) + 1] as status,
    (stay >> 4) / 1e6::double precision as seconds,
    calls.first_event_at
from calls
cross join lateral unnest(
    callstate_stays(microseconds_in_status, first_event_at, ended_at)
) as stay
where calls.bucket = any(callstate_all_buckets())
    and calls.outcome = any('{UNKNOWN,PENDING,ERROR,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,CANCELED,EXPIRED,MAX_ATTEMPTS_REACHED,CONCURRENCY_LIMIT_EXCEEDED}');

comment on view reporting.durations is 'How long calls were in each status, and from their first event to their end: one row for each call and status.';
comment on column reporting.durations.project_id is 'The call''s project.';
comment on column reporting.durations.call_id is 'The call.';
comment on column reporting.durations.direction is 'Who dialled.';
comment on column reporting.durations.status is 'The status, for all stays in it together; ''total'' is from the first event to the end.';
comment on column reporting.durations.seconds is 'How long. A stay that has not ended is not counted.';
comment on column reporting.durations.first_event_at is 'When the first event of the call happened. The time that the call is reported under.';

create view reporting.outcomes_hourly as
with
-- far fewer than calls, and all that is counted of them
shapes as (
    select date_trunc('hour', first_event_at, 'UTC') as bucket_start, project_id, direction,
        status, has_errors, shape, count(*) as calls
    from reported_calls
    group by 1, 2, 3, 4, 5, 6
),
counted as (
    select *, status >= 'ERROR' as terminal, jsonb_array_length(shape::jsonb -> 0) as attempts
    from shapes
)
select
    bucket_start,
    project_id,
    direction,
    sum(calls)::bigint as calls,
    coalesce(sum(calls) filter (where not terminal), 0)::bigint as live,
    coalesce(sum(calls) filter (where terminal), 0)::bigint as terminal,
    coalesce(sum(calls) filter (where status = 'COMPLETED'), 0)::bigint as completed,
    coalesce(sum(calls) filter (where status = 'COMPLETED' and has_errors), 0)::bigint
        as completed_with_errors,
    coalesce(sum(calls) filter (where status = 'COMPLETED'), 0)::double precision
        / (sum(calls) filter (where terminal))::double precision as completion_rate,
    coalesce(sum(calls) filter (where status = 'ERROR'), 0)::bigint as error,
    coalesce(sum(calls) filter (where status = 'NO_RESPONSE'), 0)::bigint as no_response,
    coalesce(sum(calls) filter (where status = 'BUSY'), 0)::bigint as busy,
    coalesce(sum(calls) filter (where status = 'UNREACHABLE'), 0)::bigint as unreachable,
    coalesce(sum(calls) filter (where status = 'CANCELED'), 0)::bigint as canceled,
    coalesce(sum(calls) filter (where status = 'EXPIRED'), 0)::bigint as expired,
    coalesce(sum(calls) filter (where status = 'MAX_ATTEMPTS_REACHED'), 0)::bigint as max_attempts_reached,
    coalesce(sum(calls) filter (where status = 'CONCURRENCY_LIMIT_EXCEEDED'), 0)::bigint as concurrency_limit_exceeded,
    sum(calls * attempts)::bigint as attempts
from counted
group by bucket_start, project_id, direction;

create view reporting.outcomes_daily as
select
    date_trunc('day', bucket_start, 'UTC') as bucket_start,
    project_id,
    direction,
    sum(calls)::bigint as calls,
    sum(live)::bigint as live,
    sum(terminal)::bigint as terminal,
    sum(completed)::bigint as completed,
    sum(completed_with_errors)::bigint as completed_with_errors,
    sum(completed)::double precision / nullif(sum(terminal), 0)::double precision as completion_rate,
    sum(error)::bigint as error,
    sum(no_response)::bigint as no_response,
    sum(busy)::bigint as busy,
    sum(unreachable)::bigint as unreachable,
    sum(canceled)::bigint as canceled,
    sum(expired)::bigint as expired,
    sum(max_attempts_reached)::bigint as max_attempts_reached,
    sum(concurrency_limit_exceeded)::bigint as concurrency_limit_exceeded,
    sum(attempts)::bigint as attempts
from reporting.outcomes_hourly
group by 1, 2, 3;

do $$
declare
    outcomes text;
begin
    foreach outcomes in array array['outcomes_hourly', 'outcomes_daily'] loop
        execute format('comment on view reporting.%I is %L', outcomes,
            'What became of calls, by the ' || case outcomes when 'outcomes_hourly' then 'hour' else 'day' end
            || ' (UTC) of their first event, project and direction. Hours without calls have no row.');
        execute format('comment on column reporting.%I.bucket_start is %L', outcomes, 'When the hour or day begins, in UTC.');
        execute format('comment on column reporting.%I.project_id is %L', outcomes, 'The project.');
        execute format('comment on column reporting.%I.direction is %L', outcomes, 'Who dialled.');
        execute format('comment on column reporting.%I.calls is %L', outcomes, 'How many calls began.');
        execute format('comment on column reporting.%I.live is %L', outcomes, 'How many of them have not ended.');
        execute format('comment on column reporting.%I.terminal is %L', outcomes, 'How many of them have ended, at least for now.');
        execute format('comment on column reporting.%I.completed is %L', outcomes, 'How many of them are COMPLETED, with errors or without.');
        execute format('comment on column reporting.%I.completed_with_errors is %L', outcomes, 'How many of the completed ones had errors.');
        execute format('comment on column reporting.%I.completion_rate is %L', outcomes, 'completed ÷ terminal, 0 to 1; null where none has ended.');
        execute format('comment on column reporting.%I.error is %L', outcomes, 'How many of them are ERROR.');
        execute format('comment on column reporting.%I.no_response is %L', outcomes, 'How many of them are NO_RESPONSE.');
        execute format('comment on column reporting.%I.busy is %L', outcomes, 'How many of them are BUSY.');
        execute format('comment on column reporting.%I.unreachable is %L', outcomes, 'How many of them are UNREACHABLE.');
        execute format('comment on column reporting.%I.canceled is %L', outcomes, 'How many of them are CANCELED.');
        execute format('comment on column reporting.%I.expired is %L', outcomes, 'How many of them are EXPIRED.');
        execute format('comment on column reporting.%I.max_attempts_reached is %L', outcomes, 'How many of them are MAX_ATTEMPTS_REACHED.');
        execute format('comment on column reporting.%I.concurrency_limit_exceeded is %L', outcomes, 'How many of them are CONCURRENCY_LIMIT_EXCEEDED.');
        execute format('comment on column reporting.%I.attempts is %L', outcomes, 'How often they were dialled.');
    end loop;
end
$$;

create view reporting.calling_changes as
select
    project_id,
    lower(split_part(event_type, '_', 1))::call_direction as direction,
    effective_at as at,
    (to_status = 'CALLING')::int - coalesce((from_status = 'CALLING')::int, 0) as change
from events
where bucket = any(callstate_all_buckets())
    and (from_status = 'CALLING' or to_status = 'CALLING');

comment on view reporting.calling_changes is 'When calls came to CALLING and left it, in no order: 1 for each that came, -1 for each that left. Added up until a time, they are the calls in CALLING at that time.';
comment on column reporting.calling_changes.project_id is 'The call''s project.';
comment on column reporting.calling_changes.direction is 'Who dialled.';
comment on column reporting.calling_changes.at is 'When.';
comment on column reporting.calling_changes.change is '1 where a call came to CALLING, -1 where it left, 0 where it was redialled from CALLING to CALLING.';

create view reporting.concurrency as
select
    project_id,
    direction,
    at,
    sum(change) as change,
    sum(sum(change)) over (partition by project_id, direction order by at)::bigint as calling,
    extract(
        epoch from lead(at) over (partition by project_id, direction order by at) - at
    )::double precision as seconds
from reporting.calling_changes
group by project_id, direction, at;

comment on view reporting.concurrency is 'How many calls were in CALLING at once, by project and direction: one row for each moment at which that changed.';
comment on column reporting.concurrency.project_id is 'The project.';
comment on column reporting.concurrency.direction is 'Who dialled.';
comment on column reporting.concurrency.at is 'The moment from which it counts.';
comment on column reporting.concurrency.change is 'How many more it are than before. Those of several projects may be added up.';
comment on column reporting.concurrency.calling is 'How many calls of the project and direction are in CALLING from then on.';
comment on column reporting.concurrency.seconds is 'For how long; null for the last, which goes on.';

-- A status leads to another where the provider's own description knows no way
-- past it. The outcomes of a dial are on no way that others have to take.
create view reporting.event_types as
select event_type, direction::call_direction, status::call_status, leads_to::call_status[]
from (
    values
        ('OUTBOUND_CALL_PENDING', 'outbound', 'PENDING',
            '{REQUESTED,CALLING,CLOSING,ERROR,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,CANCELED,EXPIRED,MAX_ATTEMPTS_REACHED}'),
        ('OUTBOUND_CALL_REQUESTED', 'outbound', 'REQUESTED',
            '{CALLING,CLOSING,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,MAX_ATTEMPTS_REACHED}'),
        ('OUTBOUND_CALL_CALLING', 'outbound', 'CALLING',
            '{CLOSING,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,MAX_ATTEMPTS_REACHED}'),
        ('OUTBOUND_CALL_CLOSING', 'outbound', 'CLOSING', '{COMPLETED}'),
        ('OUTBOUND_CALL_COMPLETED', 'outbound', 'COMPLETED', '{}'),
        ('OUTBOUND_CALL_EXPIRED', 'outbound', 'EXPIRED', '{}'),
        ('OUTBOUND_CALL_NO_RESPONSE', 'outbound', 'NO_RESPONSE', '{}'),
        ('OUTBOUND_CALL_CANCELED', 'outbound', 'CANCELED', '{}'),
        ('OUTBOUND_CALL_BUSY', 'outbound', 'BUSY', '{}'),
        ('OUTBOUND_CALL_UNREACHABLE', 'outbound', 'UNREACHABLE', '{}'),
        ('OUTBOUND_CALL_MAX_ATTEMPTS_REACHED', 'outbound', 'MAX_ATTEMPTS_REACHED', '{}'),
        ('OUTBOUND_CALL_ERROR', 'outbound', 'ERROR', '{}'),
        ('INBOUND_CALL_CONNECTING', 'inbound', 'CONNECTING', '{CALLING,CLOSING,ERROR,COMPLETED}'),
        ('INBOUND_CALL_CALLING', 'inbound', 'CALLING', '{CLOSING,COMPLETED}'),
        ('INBOUND_CALL_CLOSING', 'inbound', 'CLOSING', '{COMPLETED}'),
        ('INBOUND_CALL_COMPLETED', 'inbound', 'COMPLETED', '{}'),
        ('INBOUND_CALL_CONCURRENCY_LIMIT_EXCEEDED', 'inbound', 'CONCURRENCY_LIMIT_EXCEEDED', '{}'),
        ('INBOUND_CALL_ERROR', 'inbound', 'ERROR', '{}')
) as known (event_type, direction, status, leads_to);

comment on view reporting.event_types is 'The 18 types of events that the provider describes.';
comment on column reporting.event_types.event_type is 'What the provider calls it.';
comment on column reporting.event_types.direction is 'Whose calls have it.';
comment on column reporting.event_types.status is 'The status that it says.';
comment on column reporting.event_types.leads_to is 'The statuses to which no call comes but through this one.';

create view reporting.coverage as
with
projects as (select distinct project_id from reported_calls),
-- far fewer than calls, and all that it depends on which types a call skipped
shapes as (
    select project_id, direction, status, shape, count(*) as calls
    from reported_calls
    group by project_id, direction, status, shape
),
told as (
    select project_id, direction, status, shape::jsonb -> 1 as told_statuses, calls from shapes
),
skipped as (
    select told.project_id, known.event_type, sum(told.calls)::bigint as calls
    from told
    join reporting.event_types as known using (direction)
    where not told_statuses ? known.status::text
        and (told.status = any(known.leads_to) or told_statuses ?| known.leads_to::text[])
    group by told.project_id, known.event_type
),
seen as (
    select project_id, event_type, count(*) as events,
        min(effective_at) as first_seen_at, max(effective_at) as last_seen_at
    from reporting.events
    group by project_id, event_type
)
select
    projects.project_id,
    known.event_type,
    coalesce(seen.events, 0) as events,
    seen.first_seen_at,
    seen.last_seen_at,
    coalesce(skipped.calls, 0) as calls_that_skipped
from projects
cross join reporting.event_types as known
left join seen using (project_id, event_type)
left join skipped using (project_id, event_type);

comment on view reporting.coverage is 'Which types of events come: one row for each project and each of the 18 types. Shows which are switched off.';
comment on column reporting.coverage.project_id is 'The project.';
comment on column reporting.coverage.event_type is 'What the provider calls it.';
comment on column reporting.coverage.events is 'How many have come.';
comment on column reporting.coverage.first_seen_at is 'When the first of them happened; null where there is none.';
comment on column reporting.coverage.last_seen_at is 'When the last of them happened; null where there is none.';
comment on column reporting.coverage.calls_that_skipped is 'How many calls came to a status beyond it, none of whose attempts was told of it.';
