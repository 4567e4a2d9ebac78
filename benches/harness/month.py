"""A month of calls: simulated by callstate, and multiplied."""

import math
import shutil
import sys

from harness.cluster import Cluster
from harness.processes import Failed, run

DATABASE = "callstate"
DAYS = 30
PATTERN_CALLS = 20_000
# Where it is marked that a store is fully loaded.
LOADED = "loaded"
# What was delivered of the pattern, to be imported.
DELIVERIES = "deliveries.jsonl"
# While it is loaded: memory for what is sorted, little of the log kept, and statistics at once.
LOADING = {"maintenance_work_mem": "1GB", "work_mem": "2GB", "max_wal_size": "2GB", "autovacuum_naptime": "1s"}
# A call with its events and their indexes takes about this much, the log and what is sorted included.
BYTES_PER_CALL = 18_000


def load(options, folder, callstate):
    """Has a store loaded in the folder, unless one was kept there."""
    if (folder / LOADED).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    needed, free = options.calls * BYTES_PER_CALL, shutil.disk_usage(folder).free
    if needed > free:
        raise Failed(f"{options.calls:,} calls need about {needed / 1e9:.0f} GB; {folder} has {free / 1e9:.0f} GB")
    with Cluster(folder, options.postgres, LOADING) as cluster:
        cluster.recreate(DATABASE)
        with callstate.running(cluster, folder) as (_, address):
            simulate(callstate, address)
        # Before it is multiplied: the copies have other ids than their payloads.
        run([callstate.command[0], "export", "deliveries", "--output", folder / DELIVERIES, "--force",
             "--database-url", cluster.url(DATABASE)])
        multiply(cluster, options)
    (folder / LOADED).touch()


def simulate(callstate, address):
    say(f"simulating {PATTERN_CALLS:,} calls")
    run([callstate.command[0], "simulate", "--url", f"{address}/webhooks", "--calls", str(PATTERN_CALLS),
         "--backdate", f"{DAYS}d", "--projects", "3", "--duplicates", "2%", "--reorder", "5%", "--drop", "1%",
         "--unknown", "0.3%", "--check", "none", "--seed", "7", "--format", "json"])


def multiply(cluster, options):
    """Copies the simulated calls under new ids, each copy moved on by its part of the month, round its end."""
    count = lambda table: int(cluster.value(f"select count(*) from {table}", DATABASE))
    times = max(options.calls / count("calls"), options.events / count("events"))
    # In whole seconds, as the provider's times are.
    apart = int(DAYS * 86_400 / times)
    cluster.query(
        f"""create schema bench;
            create table bench.calls as select row_number() over () as number, * from calls;
            create table bench.events as select row_number() over () as number, * from events;
            create table bench.copies as
                select project_id, call_id, md5(call_id || ':' || copy)::uuid::text as new_id,
                    copy * interval '{apart} seconds'
                        - case when first_event_at + copy * interval '{apart} seconds' > now()
                            then interval '{DAYS} days' else interval '0' end as moved
                from bench.calls cross join generate_series(1, {math.ceil(times) - 1}) as copy;
            analyze bench.calls; analyze bench.events; analyze bench.copies""",
        DATABASE,
    )
    for table, order in (("calls", "first_event_at"), ("events", "effective_at")):
        say(f"writing {table}")
        columns = cluster.query(
            f"""select column_name, data_type from information_schema.columns
                where table_schema = 'public' and table_name = '{table}' and is_generated = 'NEVER'
                order by ordinal_position""",
            DATABASE,
        )
        names = ", ".join(f'"{name}"' for name, _ in columns)
        values = ", ".join(value(table, name, kind) for name, kind in columns)
        # Indexes are made anew at the end, which takes a fraction of the time.
        dropped = [statement for (statement,) in cluster.query(
            f"""select format('alter table {table} drop constraint %I', conname) from pg_constraint
                where conrelid = '{table}'::regclass and contype = 'p'
                union all
                select format('drop index %I', relname) from pg_index join pg_class on oid = indexrelid
                where indrelid = '{table}'::regclass and not indisprimary""",
            DATABASE,
        )]
        made = [statement for (statement,) in cluster.query(
            f"""select format('alter table {table} add constraint %I %s', conname, pg_get_constraintdef(oid))
                from pg_constraint where conrelid = '{table}'::regclass and contype = 'p'
                union all
                select pg_get_indexdef(indexrelid) from pg_index
                where indrelid = '{table}'::regclass and not indisprimary""",
            DATABASE,
        )]
        cluster.query(
            ";\n".join([
                *dropped,
                # In the order in which they came; the rows themselves are too wide to be sorted.
                f"""insert into {table} ({names})
                    select {values}
                    from (
                        select number, new_id, moved
                        from bench.copies join bench.{table} using (project_id, call_id)
                        order by {order} + moved
                    ) as copied
                    join bench.{table} as pattern using (number)""",
                *made,
            ]),
            DATABASE,
        )
        # As a store is that grew to this size over months.
        cluster.query(f"vacuum (analyze) {table}", DATABASE)
    cluster.query("drop schema bench cascade", DATABASE)
    say(f"{count('calls'):,} calls, {count('events'):,} events")


def value(table, name, kind):
    if name == "call_id":
        return "new_id"
    if name in RECEIPTS:
        # The pattern was received within a minute; in life that is soon after it happened.
        return f"pattern.{LAST_MOMENT[table]} + moved + interval '1 second'"
    if kind == "timestamp with time zone":
        return f'pattern."{name}" + moved'
    return f'pattern."{name}"'


RECEIPTS = ("received_at", "last_delivered_at", "updated_at", "call_updated_at")
LAST_MOMENT = {"calls": "last_event_at", "events": "effective_at"}


def say(text):
    print(text, file=sys.stderr, flush=True)
