-- The schema for those who report in SQL, and the functions in it.
--
-- Locks: none that matter, it only creates a schema and functions.

create schema reporting;

comment on schema reporting is 'For reports in SQL. Its views and functions are an interface: they change only by adding.';

-- Every key and index begins with the bucket, so who names none is served by no
-- index. The views name all of them; planned, it is a constant.
create function callstate_all_buckets() returns int[]
    language sql immutable parallel safe
    begin atomic
        select array(select generate_series(0, callstate_buckets() - 1));
    end;

comment on function callstate_all_buckets() is
    'All buckets: for the questions that name no call.';

-- A wall clock reads the hour that is repeated when clocks go back twice, so each
-- time is read in two ways: as Postgres does, which takes the later of two, and
-- by the offset that was in force a day before, which gives the earlier. An hour
-- begins at both; a day or a week at the earlier one. The hour that is skipped
-- when clocks go forward is read as the moment at which they do.
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
    'The hours, days or weeks (bucket: hour, day, week) of a time zone, such as Europe/Berlin, that have a part between two times. A day has 23 to 25 hours where clocks are changed, and an hour that is repeated is two.';

-- What Postgres cannot hold as text is shown as U+FFFD, as everywhere else. Most
-- payloads have none of it, so they are read as they are first.
create function reporting.payload_text(payload json, variadic path text[]) returns text
    language plpgsql immutable strict parallel safe
    as $$
    begin
        return payload #>> path;
    exception
        when data_exception then
            return regexp_replace(
                payload::text,
                '(?<=(?:^|[^\\])(?:\\\\)*)(?:'
                    '\\u0000'
                    '|\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})'
                    '|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}'
                    ')',
                '\\ufffd',
                'g'
            )::json #>> path;
    end
    $$;

comment on function reporting.payload_text(json, text[]) is
    'A member of a payload as text, by its path: payload_text(payload, ''body'', ''subject''). Unlike ->> it takes payloads with \u0000 or lone surrogates too, which show as U+FFFD.';
