-- The schema `reporting` for people who write SQL, and its functions.
--
-- Locks: none, it only creates a schema and functions.

create schema reporting;

comment on schema reporting is 'For reports in SQL. Its views and functions are an interface: they change only by adding.';

-- When clocks go back, a wall clock shows one hour twice. So each wall time is
-- converted in two ways: as Postgres does, which takes the later moment, and with
-- the offset of the day before, which gives the earlier one. An hour begins at
-- both; a day, week or month at the earlier one. The hour that is skipped when
-- clocks go forward is converted to the moment at which they do.
create function reporting.buckets(
    from_time timestamptz,
    to_time timestamptz,
    bucket text,
    time_zone text
)
    returns table (bucket_start timestamptz, bucket_end timestamptz)
    language sql stable strict parallel safe
    begin atomic
        with
        -- one more on either side, which the change of an offset may bring within
        clock as (
            select wall, wall at time zone time_zone as later
            from (select ('1 ' || bucket)::interval as step) as steps,
                generate_series(
                    date_trunc(bucket, from_time at time zone time_zone) - step,
                    date_trunc(bucket, to_time at time zone time_zone) + step,
                    step
                ) as wall
        ),
        read_twice as (
            select wall, later,
                (
                    wall - (
                        (later - interval '1 day') at time zone time_zone
                        - (later - interval '1 day') at time zone 'UTC'
                    )
                ) at time zone 'UTC' as earlier
            from clock
        ),
        starts as (
            select later as start
            from read_twice
            where bucket = 'hour' or earlier > later or earlier at time zone time_zone <> wall
            union
            select earlier
            from read_twice
            where earlier <= later and earlier at time zone time_zone = wall
        ),
        spans as (select start, lead(start) over (order by start) as next from starts)
        select start, next
        from spans
        where start < to_time and next > from_time
        order by start;
    end;

comment on function reporting.buckets(timestamptz, timestamptz, text, text) is
    'The hours, days, weeks or months (bucket: hour, day, week, month) of a time zone, such as Europe/Berlin, that overlap the span between two times. A day has 23 to 25 hours where clocks change; an hour that is repeated is two buckets.';

-- What Postgres cannot hold as text becomes U+FFFD. Most payloads contain nothing
-- of the kind, so #>> is tried first. In the others, escaped backslashes are
-- rewritten as \u005c, so that every remaining backslash begins an escape. Then NUL
-- and high surrogates without a low one are replaced. Every remaining high
-- surrogate has a low one, which is marked as \u~, not a legal escape, while the
-- low ones without a high one are replaced.
create function reporting.payload_text(payload json, variadic path text[]) returns text
    language plpgsql immutable strict parallel safe
    as $function$
    declare
        escaped text;
    begin
        return payload #>> path;
    exception
        when data_exception then
            -- quoted by dollars, as a session may read backslashes between apostrophes otherwise
            escaped := replace(payload::text, $$\\$$, $$\u005c$$);
            escaped := regexp_replace(
                escaped,
                $$\\u(0000|[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2}))$$,
                $$\\ufffd$$,
                'g'
            );
            escaped := regexp_replace(
                escaped, $$(\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD]$$, $$\1\\u~$$, 'g'
            );
            escaped := regexp_replace(
                escaped, $$\\u[dD][c-fC-F][0-9a-fA-F]{2}$$, $$\\ufffd$$, 'g'
            );
            return replace(escaped, $$\u~$$, $$\ud$$)::json #>> path;
    end
    $function$;

comment on function reporting.payload_text(json, text[]) is
    'A member of a payload as text, by its path: payload_text(payload, ''body'', ''subject''). Unlike ->> it accepts payloads with \u0000 or lone surrogates, which become U+FFFD.';
