-- The role of people who write reports: it reads the views, and nothing else.
--
-- Roles belong to the whole cluster. So the role may exist already, another
-- database of the cluster may be creating it at this moment, and the role that
-- runs this may not be allowed to, as at many hosts: then a warning says what is
-- missing, and an administrator runs the statements in docs/sql.md, Roles and grants.
--
-- It does not log in by itself: it is granted to roles that do. Such a member, as after
-- `grant callstate_reporting to grafana`, gets the privileges of the role. It does not get
-- its settings: Postgres applies the settings of the role that logs in, and not those of
-- roles that it is a member of or changes to by `set role`. An administrator repeats the
-- settings below for the member: `alter role grafana set statement_timeout = '5min'`.
-- No setting is a limit, as a session may change it; the privileges are.
--
-- What Postgres lets every role do is revoked from PUBLIC, as it cannot be revoked from one
-- role: temporary tables, by the owner of the database; functions that write large objects,
-- by a superuser, who owns them. So this affects the other roles of this database too.
--
-- Locks: none on tables of this schema, and none that readers wait for. It updates one row
-- of pg_database, and for a superuser a few rows of pg_proc.

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

-- No temporary tables, except for the owner of the database. A role that is neither the owner
-- nor a member of it may not revoke this.
do $$
declare
    owner oid := (select datdba from pg_database where datname = current_database());
begin
    if pg_has_role(current_user, owner, 'usage') then
        execute format('revoke temporary on database %I from public', current_database());
        execute format(
            'grant temporary on database %I to %I', current_database(), pg_get_userbyid(owner)
        );
    else
        raise warning 'any role may create temporary tables in %, and % may not revoke that', current_database(), current_user
            using hint = 'The owner of the database runs: revoke temporary on database ... from public';
    end if;
end
$$;

-- No large objects. Which of these functions exist depends on the version of Postgres;
-- lo_import and lo_export are for superusers as they are. Reading stays allowed: an object
-- has an owner and privileges of its own.
do $$
declare
    procedure record;
    left_over text[] := '{}';
begin
    for procedure in
        select oid::regprocedure as name, proowner as owner
        from pg_proc
        where pronamespace = 'pg_catalog'::regnamespace
            and proname in (
                'lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lo_truncate',
                'lo_truncate64', 'lo_unlink', 'lowrite'
            )
            and has_function_privilege('public', oid, 'execute')
        order by proname, oid
    loop
        if pg_has_role(current_user, procedure.owner, 'usage') then
            execute format('revoke execute on function %s from public', procedure.name);
        else
            left_over := left_over || procedure.name::text;
        end if;
    end loop;
    if left_over <> '{}' then
        raise warning 'any role may write large objects, and % may not revoke that', current_user
            using hint = format(
                'A superuser runs in this database: revoke execute on function %s from public',
                array_to_string(left_over, ', ')
            );
    end if;
end
$$;

-- Settings for sessions that log in as the role itself, in this database.
do $$
declare
    setting text;
begin
    if to_regrole('callstate_reporting') is null then
        return;
    end if;
    foreach setting in array array[
        $s$default_transaction_read_only = on$s$,
        $s$statement_timeout = '5min'$s$,
        $s$idle_in_transaction_session_timeout = '1min'$s$
    ] loop
        execute format(
            'alter role callstate_reporting in database %I set %s', current_database(), setting
        );
    end loop;
exception
    when insufficient_privilege then
        raise notice '% may not change the settings of the role callstate_reporting', current_user
            using hint = 'An administrator sets statement_timeout and the like for the roles that log in.';
end
$$;
