-- What reports count of a call that has ended is written by the program.
--
-- Postgres computed it, twice for each call that ends, by calling functions over JSON: a
-- twelfth of what a delivery cost it. The program has it at hand. Where it is not written,
-- since it would be too long, the reports take it out of the call's JSON, as they did.
--
-- An instance of the release before does not know that it is to write these columns. A call
-- that it begins has nothing in them, which is as good; but where it goes on with a call that
-- had ended, what was written of that end stays. Once none runs any more, `callstate verify`
-- tells such calls and `callstate rebuild` mends them.
--
-- Locks: nobody reads or writes calls while the columns become plain ones, which is short,
-- as no row is rewritten.

alter table calls
    alter column closed_shape drop expression,
    alter column closed_stays drop expression;

-- Half of each page is left for the versions that the calls in it will have: of the writes
-- that change no indexed column nearly all then stay in their page (HOT), not some four in five.
-- For pages that are written from now on.
alter table calls set (fillfactor = 50);

comment on column calls.closed_shape is 'callstate_shape of the call, written by the program; null while it is live, and where an entry of the index has no room for it.';
comment on column calls.closed_stays is 'callstate_stays of the call, written by the program; it counts where closed_shape is there.';
comment on index calls_of_many_attempts is 'The few calls that have ended and whose closed_shape would be too long, or was not written.';

-- closed_stays is no longer written where closed_shape is not, so there it is computed too.
create or replace view reported_calls as
select project_id, direction, first_event_at, outcome as status, has_errors,
    closed_shape as shape, closed_stays as stays
from calls
where bucket = any(callstate_all_buckets())
    and outcome = any('{ERROR,NO_RESPONSE,BUSY,UNREACHABLE,COMPLETED,CANCELED,EXPIRED,MAX_ATTEMPTS_REACHED,CONCURRENCY_LIMIT_EXCEEDED}')
    and marks = any('{0,1,2,3,4,5,6,7}')
    and closed_shape is not null
union all
select project_id, direction, first_event_at, status, has_errors,
    callstate_shape(callstate_attempts(attempts_before, attempts), null),
    callstate_stays(microseconds_in_status, first_event_at, ended_at)
from calls
where bucket = any(callstate_all_buckets()) and closed_shape is null and outcome >= 'ERROR'
union all
select project_id, direction, first_event_at, status, has_errors,
    callstate_shape(callstate_attempts(attempts_before, attempts), null),
    callstate_stays(microseconds_in_status, first_event_at, ended_at)
from calls
where bucket = any(callstate_all_buckets()) and outcome = any('{UNKNOWN,PENDING}')
    and marks = any('{0,1,2,3,4,5,6,7}');

-- In place of call_to_write, which instances of the release before still use.
create type call_to_store as (
    call_id text,
    project_id text,
    version bigint,
    direction text,
    status text,
    attempts_before jsonb,
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
    last_delivered_at timestamptz,
    closed_shape text,
    closed_stays bigint[]
);

comment on type call_to_store is 'A call as it is to be: the columns of calls. Where attempts_before is null it stays as it is.';

drop type event_to_store;
