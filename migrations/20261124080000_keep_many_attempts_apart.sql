-- The attempts of a call that is dialled very often are written once each.
--
-- A call keeps its attempts in its row, which each event writes anew, so an event cost the
-- more, the more dials there had been. Where there are many, the first ones now stand in a
-- column of their own, which a write leaves as it is.
--
-- Locks: nobody reads or writes calls while the column is added, which is short, as no row
-- is rewritten; then it only replaces views. Until it is replaced, an instance of the
-- release before takes the attempts of a call of sixteen dials and more for fewer:
-- `callstate verify` tells, and `rebuild` mends it.

alter table calls add column attempts_before jsonb;

comment on column calls.attempts is 'The dials of the call, a JSON array: all of them, or the last ones where attempts_before has the others.';
comment on column calls.attempts_before is 'The dials before those in attempts; null where there are few.';

create function callstate_attempts(attempts_before jsonb, attempts jsonb) returns jsonb
    language sql immutable parallel safe
    return case
        when attempts_before is null then attempts
        else attempts_before || attempts
    end;

comment on function callstate_attempts(jsonb, jsonb) is 'All the dials of a call, from its two columns.';

create or replace view reporting.calls as
select
    project_id,
    call_id,
    direction,
    status,
    status >= 'ERROR' as terminal,
    status >= 'COMPLETED' as final,
    status = 'COMPLETED' and has_errors as completed_with_errors,
    jsonb_array_length(callstate_attempts(attempts_before, attempts)) as attempt_count,
    jsonb_path_query_array(callstate_attempts(attempts_before, attempts), '$[*].status') as attempt_statuses,
    jsonb_path_query_array(callstate_attempts(attempts_before, attempts), '$[*].statuses[*]') as told_statuses,
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

create or replace view reporting.attempts as
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
cross join lateral jsonb_to_recordset(
    callstate_attempts(calls.attempts_before, calls.attempts)
) as attempt (
    number int,
    call_sid text,
    status call_status,
    started_at timestamptz,
    ended_at timestamptz
)
where calls.bucket = any(callstate_all_buckets());
