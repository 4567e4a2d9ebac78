-- The views for people who write SQL: the same words as in the JSON.
--
-- No view reads into a payload, and none names a status or an event type: they
-- join status_spec and event_type_spec. A view without security_invoker reads
-- with the rights of its owner, so its readers need no access to the tables.
--
-- Locks: none, it only creates views and a function.

-- Calls as reports count them. What has ended is read from calls_in_order alone; live calls are
-- few, so their rows are read.
create view reported_calls as
select
    project_id,
    (case when list_partition & 1 <> 0 then 'inbound' else 'outbound' end)::call_direction
        as direction,
    first_event_at,
    (list_partition / 8)::smallint as status,
    list_partition & 2 <> 0 as has_errors,
    statuses_seen,
    total_microseconds,
    attempt_counts,
    durations
from calls
where list_partition = any(array(select list_partition from list_partitions where outcome > 1))
union all
select
    project_id,
    direction,
    first_event_at,
    status,
    has_errors,
    (
        select coalesce(bit_or(1::bigint << status_spec.id), 0)
        from jsonb_path_query(attempts, '$[*].statuses[*]') as seen (status)
        join status_spec on status_spec.status = seen.status #>> '{}'
    ),
    null,
    array(
        select count(attempt.status)::int
        from generate_series(1, (select max(id) from status_spec)) as spec (id)
        join status_spec using (id)
        left join jsonb_path_query(attempts, '$[*].status') as attempt (status)
            on attempt.status #>> '{}' = status_spec.status
        group by id
        order by id
    ),
    microseconds_in_status
from calls
where list_partition = any(array(select list_partition from list_partitions where outcome <= 1));

comment on view reported_calls is 'Calls as reports count them.';
comment on column reported_calls.project_id is 'The call''s project.';
comment on column reported_calls.direction is 'Who dialed.';
comment on column reported_calls.first_event_at is 'The effective_at of its first event.';
comment on column reported_calls.status is 'The status: status_spec.id.';
comment on column reported_calls.has_errors is 'Whether the call has errors.';
comment on column reported_calls.statuses_seen is 'The statuses that the events of its attempts reported: bit n for status n.';
comment on column reported_calls.total_microseconds is 'From its first event to its end; null while it is live.';
comment on column reported_calls.attempt_counts is 'The number of attempts in each status, by status id.';
comment on column reported_calls.durations is 'Microseconds in each status, by status id.';

create view reporting.statuses as
select id, status, label, rank, kind, terminal, final, belongs_to_attempt
from status_spec;

comment on view reporting.statuses is 'The statuses of calls.';
comment on column reporting.statuses.id is 'Its number.';
comment on column reporting.statuses.status is 'Its name.';
comment on column reporting.statuses.label is 'Its name for people.';
comment on column reporting.statuses.rank is 'Its order within an attempt and a call, -1 to 7.';
comment on column reporting.statuses.kind is 'live, redialable, resolvable or final.';
comment on column reporting.statuses.terminal is 'Whether a call in this status has ended, at least for now.';
comment on column reporting.statuses.final is 'Whether a call seldom leaves this status.';
comment on column reporting.statuses.belongs_to_attempt is 'Whether the status is one of an attempt.';

create view reporting.event_types as
select
    known.event_type,
    known.direction,
    status_spec.status,
    array(
        select reached.status
        from status_spec as reached
        where reached.id = any(known.leads_to)
        order by reached.id
    ) as leads_to
from event_type_spec as known
join status_spec on status_spec.id = known.status;

comment on view reporting.event_types is 'The event types that the provider describes.';
comment on column reporting.event_types.event_type is 'The provider''s name.';
comment on column reporting.event_types.direction is 'The direction of the calls that have such events.';
comment on column reporting.event_types.status is 'The status that it reports.';
comment on column reporting.event_types.leads_to is 'The statuses that a call reaches only through this event''s status.';

create view reporting.calls as
select
    calls.project_id,
    calls.call_id,
    calls.direction,
    status_spec.status,
    status_spec.terminal,
    status_spec.final,
    status_spec.is_completed and calls.has_errors as completed_with_errors,
    jsonb_array_length(calls.attempts) as attempt_count,
    jsonb_path_query_array(calls.attempts, '$[*].status') as attempt_statuses,
    jsonb_path_query_array(calls.attempts, '$[*].statuses[*]') as reported_statuses,
    calls.attempts -> -1 ->> 'call_sid' as call_sid,
    calls.client_id,
    calls.provider_status,
    calls.has_errors,
    calls.event_count,
    calls.anomaly_count,
    (
        select coalesce(jsonb_object_agg(of_time.status, microseconds / 1e6), '{}')
        from unnest(calls.microseconds_in_status) with ordinality as spent (microseconds, id)
        join status_spec as of_time using (id)
        where microseconds is not null
    ) as time_in_status,
    calls.first_event_at,
    calls.last_event_at,
    case when status_spec.terminal then calls.status_since end as ended_at,
    case
        when status_spec.terminal
            then extract(epoch from calls.status_since - calls.first_event_at)::double precision
    end as total_seconds,
    calls.updated_at,
    calls.last_delivered_at
from calls
join status_spec on status_spec.id = calls.status;

comment on view reporting.calls is 'Calls, one row each, in their present state.';
comment on column reporting.calls.project_id is 'The customer''s project at the provider.';
comment on column reporting.calls.call_id is 'The provider''s id of the call, unique within its project.';
comment on column reporting.calls.direction is 'Who dialed: outbound or inbound. Null while only unrecognized events have been received.';
comment on column reporting.calls.status is 'The status.';
comment on column reporting.calls.terminal is 'Whether the call has ended, at least for now.';
comment on column reporting.calls.final is 'Whether the call seldom leaves its status.';
comment on column reporting.calls.completed_with_errors is 'Whether it is COMPLETED and has errors.';
comment on column reporting.calls.attempt_count is 'The number of attempts. An attempt may never have been dialed.';
comment on column reporting.calls.attempt_statuses is 'The status of each attempt in order, a JSON array.';
comment on column reporting.calls.reported_statuses is 'The statuses that the events of its attempts reported, a JSON array; those of each attempt in the order of rank.';
comment on column reporting.calls.call_sid is 'The telephony provider''s id of the current attempt.';
comment on column reporting.calls.client_id is 'The customer''s own id of the party.';
comment on column reporting.calls.provider_status is 'The provider''s own status of the call. Informative only.';
comment on column reporting.calls.has_errors is 'Whether any of its events carried errors or is an ERROR.';
comment on column reporting.calls.event_count is 'The number of its events.';
comment on column reporting.calls.anomaly_count is 'The number of its events that are forced or conflicting.';
comment on column reporting.calls.time_in_status is 'Seconds in each status, a JSON object; the present status is not counted.';
comment on column reporting.calls.first_event_at is 'When its first event happened. Reports place the call at this time.';
comment on column reporting.calls.last_event_at is 'When its last event happened.';
comment on column reporting.calls.ended_at is 'When the present terminal status began; null while live.';
comment on column reporting.calls.total_seconds is 'Seconds from its first event to its end; null while live.';
comment on column reporting.calls.updated_at is 'When the newest of its events was received.';
comment on column reporting.calls.last_delivered_at is 'When the last delivery for it was received, repeated ones included.';

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
    status_spec.status as call_status,
    calls.first_event_at as call_first_event_at
from calls
join status_spec on status_spec.id = calls.status
cross join lateral jsonb_to_recordset(calls.attempts) as attempt (
    number int,
    call_sid text,
    status text,
    started_at timestamptz,
    ended_at timestamptz
);

comment on view reporting.attempts is 'The attempts of calls, one row each. An attempt may never have been dialed: a call canceled while PENDING has one.';
comment on column reporting.attempts.project_id is 'The call''s project.';
comment on column reporting.attempts.call_id is 'The call.';
comment on column reporting.attempts.direction is 'Who dialed.';
comment on column reporting.attempts.number is 'Its number among the call''s attempts, from 1.';
comment on column reporting.attempts.call_sid is 'The telephony provider''s id of the dial, where it is known.';
comment on column reporting.attempts.status is 'The status of highest rank that its events reported.';
comment on column reporting.attempts.started_at is 'When its first event happened.';
comment on column reporting.attempts.ended_at is 'When it ended; null while it lasts.';
comment on column reporting.attempts.seconds is 'Seconds from its start to its end.';
comment on column reporting.attempts.call_status is 'The status of the call.';
comment on column reporting.attempts.call_first_event_at is 'When the first event of the call happened. Reports place the call at this time.';

create view reporting.events as
select
    calls.project_id,
    calls.call_id,
    callstate_event_id(calls.project_id, calls.call_id, events.fingerprint) as event_id,
    events.position,
    coalesce(known.event_type, events.unrecognized_type) as event_type,
    known.direction,
    reported.status,
    events.disposition,
    callstate_reason(
        reason_spec.template, named.status, coalesce(reported.status, 'UNKNOWN'),
        events.reason_attempt, events.attempt
    ) as reason,
    origin.status as from_status,
    target.status as to_status,
    events.attempt,
    events.call_sid,
    events.client_id,
    events.provider_status,
    events.errors is not null as has_errors,
    events.occurred_at,
    case events.time_problem when 1 then 'unreadable' when 2 then 'implausible' end as time_problem,
    events.received_at,
    events.effective_at,
    events.delivery_count,
    events.last_delivered_at,
    events.endpoint
from events
join calls on calls.id = events.call
left join event_type_spec as known on known.id = events.event_type
left join status_spec as reported on reported.id = known.status
left join status_spec as origin on origin.id = events.from_status
left join status_spec as target on target.id = events.to_status
left join status_spec as named on named.id = events.reason_status
left join reason_spec on reason_spec.id = events.reason;

comment on view reporting.events is 'Events, one row for each distinct event of a call.';
comment on column reporting.events.project_id is 'The call''s project.';
comment on column reporting.events.call_id is 'The call.';
comment on column reporting.events.event_id is 'The id of the event.';
comment on column reporting.events.position is 'Its position in the change feed.';
comment on column reporting.events.event_type is 'The provider''s name of its type.';
comment on column reporting.events.direction is 'The direction of calls that have such events; null where the type is unrecognized.';
comment on column reporting.events.status is 'The status that it reports; null where the type is unrecognized.';
comment on column reporting.events.disposition is 'What the state machine did with it.';
comment on column reporting.events.reason is 'Why, in one sentence.';
comment on column reporting.events.from_status is 'The status that it took the call from; null where it changed nothing, or the call began with it.';
comment on column reporting.events.to_status is 'The status that it took the call to; null where it changed nothing.';
comment on column reporting.events.attempt is 'The number of the attempt that it counts for.';
comment on column reporting.events.call_sid is 'The telephony provider''s id of the dial.';
comment on column reporting.events.client_id is 'The customer''s own id of the party.';
comment on column reporting.events.provider_status is 'The provider''s own status of the call at that moment. Informative only.';
comment on column reporting.events.has_errors is 'Whether it counts as an error.';
comment on column reporting.events.occurred_at is 'When it happened by the provider''s clock; null where unknown.';
comment on column reporting.events.time_problem is 'Why the Time: line was not used: unreadable or implausible; null where it was used or there was none.';
comment on column reporting.events.received_at is 'When its first delivery was received.';
comment on column reporting.events.effective_at is 'occurred_at, or received_at where that is null.';
comment on column reporting.events.delivery_count is 'The number of its deliveries.';
comment on column reporting.events.last_delivered_at is 'When its last delivery was received.';
comment on column reporting.events.endpoint is 'The endpoint that received its first delivery.';

create view reporting.payloads as
select
    calls.project_id,
    calls.call_id,
    callstate_event_id(calls.project_id, calls.call_id, events.fingerprint) as event_id,
    coalesce(known.event_type, events.unrecognized_type) as event_type,
    events.effective_at,
    events.received_at,
    events.payload
from events
join calls on calls.id = events.call
left join event_type_spec as known on known.id = events.event_type;

comment on view reporting.payloads is 'The bodies as received. They may contain personal data: nobody may read this view unless it is granted.';
comment on column reporting.payloads.project_id is 'The call''s project.';
comment on column reporting.payloads.call_id is 'The call.';
comment on column reporting.payloads.event_id is 'The id of the event.';
comment on column reporting.payloads.event_type is 'The provider''s name of its type.';
comment on column reporting.payloads.effective_at is 'occurred_at, or received_at where that is null.';
comment on column reporting.payloads.received_at is 'When its first delivery was received.';
comment on column reporting.payloads.payload is 'The body of its first delivery, exactly as received. Read it with payload_text: ->> fails on the whole query where one row contains \u0000.';

create view reporting.errors as
select
    calls.project_id,
    calls.call_id,
    calls.direction,
    callstate_event_id(calls.project_id, calls.call_id, events.fingerprint) as event_id,
    coalesce(known.event_type, events.unrecognized_type) as event_type,
    error.number::int as number,
    error.value ->> 'code' as code,
    error.value ->> 'message' as message,
    error.value ->> 'phase' as phase,
    error.value ->> 'where' as "where",
    error.value ->> 'timestamp' as "timestamp",
    events.effective_at,
    status_spec.status as call_status,
    calls.first_event_at as call_first_event_at
from calls
join events on events.call = calls.id
left join event_type_spec as known on known.id = events.event_type
join status_spec on status_spec.id = calls.status
cross join lateral jsonb_array_elements(events.errors) with ordinality as error (value, number)
where calls.list_partition = any(array(select list_partition from list_partitions where has_errors))
    and events.errors is not null;

comment on view reporting.errors is 'Errors of calls, one row for each error that an event carried. An ERROR without a list of errors counts as one, without code and phase.';
comment on column reporting.errors.project_id is 'The call''s project.';
comment on column reporting.errors.call_id is 'The call.';
comment on column reporting.errors.direction is 'Who dialed.';
comment on column reporting.errors.event_id is 'The event that carried it.';
comment on column reporting.errors.event_type is 'The provider''s name of the event''s type.';
comment on column reporting.errors.number is 'Its number among the errors of the event, from 1.';
comment on column reporting.errors.code is 'The provider''s code.';
comment on column reporting.errors.message is 'One line for people.';
comment on column reporting.errors.phase is 'The phase of the call in which it happened.';
comment on column reporting.errors."where" is 'The part of the provider''s program in which it happened.';
comment on column reporting.errors."timestamp" is 'When it happened, as the provider wrote it.';
comment on column reporting.errors.effective_at is 'When the event happened.';
comment on column reporting.errors.call_status is 'The status of the call.';
comment on column reporting.errors.call_first_event_at is 'When the first event of the call happened. Reports place the call at this time.';

create view reporting.transitions as
select
    calls.project_id,
    calls.call_id,
    known.direction,
    callstate_event_id(calls.project_id, calls.call_id, events.fingerprint) as event_id,
    coalesce(known.event_type, events.unrecognized_type) as event_type,
    events.disposition,
    events.attempt,
    origin.status as from_status,
    target.status as to_status,
    events.effective_at as at,
    extract(
        epoch from events.effective_at - lag(events.effective_at) over (
            partition by events.call
            order by events.effective_at, reported.rank, events.fingerprint
        )
    )::double precision as seconds_in_from_status
from events
join calls on calls.id = events.call
left join event_type_spec as known on known.id = events.event_type
left join status_spec as reported on reported.id = known.status
left join status_spec as origin on origin.id = events.from_status
left join status_spec as target on target.id = events.to_status
where events.to_status is not null;

comment on view reporting.transitions is 'The transitions of calls: one row for each event that gave its call a status, redials and forced ones included.';
comment on column reporting.transitions.project_id is 'The call''s project.';
comment on column reporting.transitions.call_id is 'The call.';
comment on column reporting.transitions.direction is 'Who dialed.';
comment on column reporting.transitions.event_id is 'The event.';
comment on column reporting.transitions.event_type is 'The provider''s name of the event''s type.';
comment on column reporting.transitions.disposition is 'Whether the event advanced, forced or redialed the call.';
comment on column reporting.transitions.attempt is 'The number of the attempt that the event counts for.';
comment on column reporting.transitions.from_status is 'The status that the call left; null where it began.';
comment on column reporting.transitions.to_status is 'The status that the call entered.';
comment on column reporting.transitions.at is 'When.';
comment on column reporting.transitions.seconds_in_from_status is 'Seconds since the previous transition. Added up by from_status they are the call''s time_in_status.';

create view reporting.durations as
select
    calls.project_id,
    calls.call_id,
    calls.direction,
    spent.status,
    spent.microseconds / 1e6::double precision as seconds,
    calls.first_event_at
from calls
join status_spec on status_spec.id = calls.status
cross join lateral (
    select of_time.status, microseconds
    from unnest(calls.microseconds_in_status) with ordinality as in_status (microseconds, id)
    join status_spec as of_time using (id)
    where microseconds is not null
    union all
    select 'total', (extract(epoch from calls.status_since - calls.first_event_at) * 1000000)::bigint
    where status_spec.terminal
) as spent;

comment on view reporting.durations is 'How long calls were in each status, and from their first event to their end: one row for each call and status.';
comment on column reporting.durations.project_id is 'The call''s project.';
comment on column reporting.durations.call_id is 'The call.';
comment on column reporting.durations.direction is 'Who dialed.';
comment on column reporting.durations.status is 'The status; ''total'' is from the first event to the end.';
comment on column reporting.durations.seconds is 'Seconds, of all times in the status together. The present status is not counted.';
comment on column reporting.durations.first_event_at is 'When the first event of the call happened. Reports place the call at this time.';

create view reporting.outcomes_hourly as
with
-- far fewer rows than calls, with all that is counted of them
counted as (
    select date_trunc('hour', first_event_at, 'UTC') as bucket_start, project_id, direction,
        status, has_errors, attempt_counts, count(*) as calls
    from reported_calls
    group by 1, 2, 3, 4, 5, 6
),
by_status as (
    select bucket_start, project_id, direction, status, calls,
        case when has_errors then calls else 0 end as calls_with_errors, 0 as attempts
    from counted
    union all
    select bucket_start, project_id, direction, id::smallint, 0, 0, calls * attempts
    from counted
    cross join lateral unnest(attempt_counts) with ordinality as in_status (attempts, id)
    where attempts > 0
)
select
    by_status.bucket_start,
    by_status.project_id,
    by_status.direction,
    status_spec.status,
    status_spec.terminal,
    sum(by_status.calls)::bigint as calls,
    sum(by_status.calls_with_errors)::bigint as calls_with_errors,
    sum(by_status.attempts)::bigint as attempts
from by_status
join status_spec on status_spec.id = by_status.status
group by 1, 2, 3, 4, 5;

create view reporting.outcomes_daily as
select
    date_trunc('day', bucket_start, 'UTC') as bucket_start,
    project_id,
    direction,
    status,
    terminal,
    sum(calls)::bigint as calls,
    sum(calls_with_errors)::bigint as calls_with_errors,
    sum(attempts)::bigint as attempts
from reporting.outcomes_hourly
group by 1, 2, 3, 4, 5;

-- The outcomes with a column for each status. A migration that adds a status calls it again.
create function callstate_create_wide_views() returns void
    language plpgsql
    as $function$
    declare
        status_columns text := (
            select string_agg(
                format(
                    'coalesce(sum(calls) filter (where status = %L), 0)::bigint as %I',
                    status, lower(status)
                ),
                E',\n' order by id
            )
            from status_spec
            where terminal and not is_completed
        );
        completed text := (
            select format('status = any(%L::text[])', array_agg(status order by id))
            from status_spec
            where is_completed
        );
        described text;
        of_column record;
    begin
        foreach described in array array['outcomes_hourly', 'outcomes_daily'] loop
            execute format('drop view if exists reporting.%I', described || '_wide');
            execute format(
                $view$
                create view reporting.%1$I as
                select
                    bucket_start,
                    project_id,
                    direction,
                    sum(calls)::bigint as calls,
                    coalesce(sum(calls) filter (where not terminal), 0)::bigint as live,
                    coalesce(sum(calls) filter (where terminal), 0)::bigint as terminal,
                    coalesce(sum(calls) filter (where %3$s), 0)::bigint as completed,
                    coalesce(sum(calls_with_errors) filter (where %3$s), 0)::bigint
                        as completed_with_errors,
                    coalesce(sum(calls) filter (where %3$s), 0)::double precision
                        / nullif(sum(calls) filter (where terminal), 0)::double precision
                        as completion_rate,
                    %4$s,
                    sum(attempts)::bigint as attempts
                from reporting.%2$I
                group by bucket_start, project_id, direction
                $view$,
                described || '_wide', described, completed, status_columns
            );
            -- The migration that creates the role grants the first ones.
            if to_regrole('callstate_reporting') is not null then
                execute format(
                    'grant select on reporting.%I to callstate_reporting', described || '_wide'
                );
            end if;
            execute format(
                'comment on view reporting.%I is %L', described || '_wide',
                'Outcomes of calls as in ' || described || ', with a column for each terminal status. Created from the statuses that there are.'
            );
            for of_column in
                select attname as name, coalesce(
                    (
                        select described_column.comment
                        from (values
                            ('bucket_start', 'When the hour or day begins, in UTC.'),
                            ('project_id', 'The project.'),
                            ('direction', 'Who dialed.'),
                            ('calls', 'Calls that began in it.'),
                            ('live', 'Of these, calls that have not ended.'),
                            ('terminal', 'Of these, calls that have ended, at least for now.'),
                            ('completed', 'Of these, calls that are COMPLETED.'),
                            ('completed_with_errors', 'Of the completed calls, those with errors.'),
                            ('completion_rate', 'completed ÷ terminal, 0 to 1; null where none has ended.'),
                            ('attempts', 'Attempts of the calls.')
                        ) as described_column (name, comment)
                        where described_column.name = attname
                    ),
                    'Of these, calls that are ' || upper(attname) || '.'
                ) as comment
                from pg_attribute
                where attrelid = format('reporting.%I', described || '_wide')::regclass and attnum > 0
            loop
                execute format(
                    'comment on column reporting.%I.%I is %L',
                    described || '_wide', of_column.name, of_column.comment
                );
            end loop;
        end loop;
    end
    $function$;

comment on function callstate_create_wide_views() is 'Creates reporting.outcomes_hourly_wide and outcomes_daily_wide, with a column for each terminal status.';

select callstate_create_wide_views();

do $$
declare
    outcomes text;
begin
    foreach outcomes in array array['outcomes_hourly', 'outcomes_daily'] loop
        execute format('comment on view reporting.%I is %L', outcomes,
            'Outcomes of calls, by the ' || case outcomes when 'outcomes_hourly' then 'hour' else 'day' end
            || ' (UTC) of their first event, project, direction and status. A row has calls in the status, or attempts, or both.');
        execute format('comment on column reporting.%I.bucket_start is %L', outcomes, 'When the hour or day begins, in UTC.');
        execute format('comment on column reporting.%I.project_id is %L', outcomes, 'The project.');
        execute format('comment on column reporting.%I.direction is %L', outcomes, 'Who dialed.');
        execute format('comment on column reporting.%I.status is %L', outcomes, 'The status.');
        execute format('comment on column reporting.%I.terminal is %L', outcomes, 'Whether a call in this status has ended, at least for now.');
        execute format('comment on column reporting.%I.calls is %L', outcomes, 'Calls that began in the hour or day and are in the status.');
        execute format('comment on column reporting.%I.calls_with_errors is %L', outcomes, 'Of these, calls with errors.');
        execute format('comment on column reporting.%I.attempts is %L', outcomes, 'Attempts in the status, of calls that began in the hour or day.');
    end loop;
end
$$;

-- calls is joined from the left, so that Postgres leaves the join out where no column of it is used.
create view reporting.calling_changes as
select
    calls.project_id,
    known.direction,
    events.effective_at as at,
    (events.to_status = any(conversation.statuses))::int
        - coalesce((events.from_status = any(conversation.statuses))::int, 0) as change
from events
cross join lateral (
    select array(select id from status_spec where is_in_conversation) as statuses
) as conversation
left join calls on calls.id = events.call
left join event_type_spec as known on known.id = events.event_type
where events.from_status = any(conversation.statuses)
    or events.to_status = any(conversation.statuses);

comment on view reporting.calling_changes is 'When calls entered CALLING and left it, in no order: 1 for each that entered, -1 for each that left. Summed up to a time, they are the calls in CALLING at that time.';
comment on column reporting.calling_changes.project_id is 'The call''s project.';
comment on column reporting.calling_changes.direction is 'Who dialed.';
comment on column reporting.calling_changes.at is 'When.';
comment on column reporting.calling_changes.change is '1 where a call entered CALLING, -1 where it left, 0 where a redial took it from CALLING to CALLING.';

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
comment on column reporting.concurrency.direction is 'Who dialed.';
comment on column reporting.concurrency.at is 'The moment of the change.';
comment on column reporting.concurrency.change is 'The change. Those of several projects may be added up.';
comment on column reporting.concurrency.calling is 'The number of calls of the project and direction in CALLING from then on.';
comment on column reporting.concurrency.seconds is 'For how long; null for the last row.';

create view reporting.coverage as
with
projects as (select distinct project_id from reported_calls),
-- far fewer rows than calls, with all that decides which types a call skipped
counted as (
    select project_id, direction, status, statuses_seen, count(*) as calls
    from reported_calls
    group by project_id, direction, status, statuses_seen
),
skipped as (
    select counted.project_id, known.event_type, sum(counted.calls)::bigint as calls
    from counted
    join event_type_spec as known using (direction)
    where counted.statuses_seen & (1::bigint << known.status) = 0
        and exists (
            select
            from unnest(known.leads_to) as reached (status)
            where reached.status = counted.status
                or counted.statuses_seen & (1::bigint << reached.status) <> 0
        )
    group by counted.project_id, known.event_type
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
    true as known,
    coalesce(seen.events, 0) as events,
    seen.first_seen_at,
    seen.last_seen_at,
    coalesce(skipped.calls, 0) as calls_that_skipped
from projects
cross join event_type_spec as known
left join seen using (project_id, event_type)
left join skipped using (project_id, event_type)
union all
select seen.project_id, seen.event_type, false, seen.events, seen.first_seen_at, seen.last_seen_at,
    null
from seen
where not exists (
    select from event_type_spec as known where known.event_type = seen.event_type
);

comment on view reporting.coverage is 'Which event types occur: one row for each project and known type, and one for each unknown type that was received. Shows which types are switched off at the provider.';
comment on column reporting.coverage.project_id is 'The project.';
comment on column reporting.coverage.event_type is 'The provider''s name of the type.';
comment on column reporting.coverage.known is 'Whether the provider describes the type.';
comment on column reporting.coverage.events is 'The number of events.';
comment on column reporting.coverage.first_seen_at is 'When the first of them happened; null where there is none.';
comment on column reporting.coverage.last_seen_at is 'When the last of them happened; null where there is none.';
comment on column reporting.coverage.calls_that_skipped is 'Calls that reached a status beyond it while none of their attempts reported it; null for unknown types.';

-- Errors counted for each call, as errors are rare and a call has few: reports only add them up.
create view reported_errors as
select calls.project_id, calls.direction, calls.first_event_at, kinds.code, kinds.phase, kinds.errors
from calls
cross join lateral (
    select error.value ->> 'code' as code, error.value ->> 'phase' as phase, count(*) as errors
    from events
    cross join lateral jsonb_array_elements(events.errors) as error (value)
    where events.call = calls.id and events.errors is not null
    group by 1, 2
) as kinds
where calls.list_partition = any(array(select list_partition from list_partitions where has_errors));

comment on view reported_errors is 'Errors as reports count them: one row for each call and kind.';
comment on column reported_errors.project_id is 'The call''s project.';
comment on column reported_errors.direction is 'Who dialed.';
comment on column reported_errors.first_event_at is 'When the first event of the call happened.';
comment on column reported_errors.code is 'The provider''s code.';
comment on column reported_errors.phase is 'The phase of the call.';
comment on column reported_errors.errors is 'The number of errors of that kind.';
