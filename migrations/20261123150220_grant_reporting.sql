-- The role of those who report: it reads the views, and nothing else.
--
-- Roles belong to the whole cluster. So it may be there already, another
-- database of the cluster may be creating it at this moment, and whoever runs
-- this may not be allowed to, as at many hosts; then all the rest stands, a
-- warning tells what is missing, and somebody who may runs what README says.
--
-- It does not log in by itself: it is granted to those who do.
--
-- Locks: none that matter, it only grants.

do $$
begin
    if to_regrole('callstate_reporting') is null then
        begin
            create role callstate_reporting nologin;
        exception
            -- another database was first
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise warning 'there is no role callstate_reporting, and % may not create it', current_user
                    using hint = 'Have it created by somebody who may, and granted what README names under Reports.';
                return;
        end;
    end if;
    grant usage on schema reporting to callstate_reporting;
    grant select on
        reporting.calls,
        reporting.attempts,
        reporting.events,
        reporting.errors,
        reporting.transitions,
        reporting.durations,
        reporting.outcomes_hourly,
        reporting.outcomes_daily,
        reporting.calling_changes,
        reporting.concurrency,
        reporting.event_types,
        reporting.coverage
        to callstate_reporting;
end
$$;
