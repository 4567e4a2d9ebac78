-- The role of people who write reports: it reads the views, and nothing else.
--
-- Roles belong to the whole cluster. So the role may exist already, another
-- database of the cluster may be creating it at this moment, and the role that
-- runs this may not be allowed to, as at many hosts: then a warning says what is
-- missing, and an administrator runs the statements in docs/sql.md, Roles and grants.
--
-- It does not log in by itself: it is granted to roles that do.
--
-- Locks: none, it only grants.

do $$
begin
    if to_regrole('callstate_reporting') is null then
        begin
            create role callstate_reporting nologin;
        exception
            -- another database was first
            when duplicate_object or unique_violation then null;
            when insufficient_privilege then
                raise warning 'the role callstate_reporting does not exist, and % may not create it', current_user
                    using hint = 'An administrator creates it and grants what docs/sql.md names under Roles and grants.';
                return;
        end;
    end if;
    grant usage on schema reporting to callstate_reporting;
    grant select on
        reporting.statuses,
        reporting.event_types,
        reporting.calls,
        reporting.attempts,
        reporting.events,
        reporting.errors,
        reporting.transitions,
        reporting.durations,
        reporting.outcomes_hourly,
        reporting.outcomes_hourly_wide,
        reporting.outcomes_daily,
        reporting.outcomes_daily_wide,
        reporting.calling_changes,
        reporting.concurrency,
        reporting.coverage
        to callstate_reporting;
end
$$;
