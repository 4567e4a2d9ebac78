-- The views of errors and of concurrency, for less: as before, but that what they
-- ask for is found by an index and is cheap to tell.
--
-- A call with errors has one of four marks, by which calls_in_order finds it among
-- all outcomes; has_errors itself comes too late in the index to find anything by.
-- Only known events take a call from status to status, so what is not outbound is
-- inbound.
--
-- Locks: none that matter, it only replaces views.

create or replace view reporting.errors as
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
    and calls.outcome = any('{UNKNOWN,PENDING,ERROR,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,CANCELED,EXPIRED,MAX_ATTEMPTS_REACHED,CONCURRENCY_LIMIT_EXCEEDED}')
    and calls.marks = any('{2,3,6,7}')
    and events.errors is not null;

create or replace view reporting.calling_changes as
select
    project_id,
    (case when event_type ^@ 'OUTBOUND_' then 'outbound' else 'inbound' end)::call_direction
        as direction,
    effective_at as at,
    (to_status = 'CALLING')::int - coalesce((from_status = 'CALLING')::int, 0) as change
from events
where bucket = any(callstate_all_buckets())
    and (from_status = 'CALLING' or to_status = 'CALLING');

-- Counted call by call, as an error is rare and a call has few of them: what is
-- counted of each call is then only added up.
create view reported_errors as
select calls.project_id, calls.direction, calls.first_event_at, kinds.code, kinds.phase, kinds.errors
from calls
cross join lateral (
    select error.value ->> 'code' as code, error.value ->> 'phase' as phase, count(*) as errors
    from events
    cross join lateral jsonb_array_elements(events.errors) as error (value)
    where events.bucket = calls.bucket
        and events.call_id = calls.call_id
        and events.project_id = calls.project_id
        and events.errors is not null
    group by 1, 2
) as kinds
where calls.bucket = any(callstate_all_buckets())
    and calls.outcome = any('{UNKNOWN,PENDING,ERROR,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,CANCELED,EXPIRED,MAX_ATTEMPTS_REACHED,CONCURRENCY_LIMIT_EXCEEDED}')
    and calls.marks = any('{2,3,6,7}');

comment on view reported_errors is 'Errors as reports count them: one row for each call and kind.';
comment on column reported_errors.project_id is 'The call''s project.';
comment on column reported_errors.direction is 'Who dialled.';
comment on column reported_errors.first_event_at is 'When the first event of the call happened.';
comment on column reported_errors.code is 'The provider''s code.';
comment on column reported_errors.phase is 'The phase of the call.';
comment on column reported_errors.errors is 'How many errors of that kind the call had.';
