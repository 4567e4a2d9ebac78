"""A month of calls: simulated by callstate, and multiplied."""

import math
import shutil
import sys

from harness.cluster import Cluster
from harness.copies import insertion, reserve_ids
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
    copies = math.ceil(times) - 1
    last_id = reserve_ids(cluster, DATABASE, copies * count("calls"))
    cluster.query(
        f"""create schema bench;
            create table bench.calls as select * from calls;
            create table bench.events as select * from events;
            -- the copies are numbered in the order in which they happened
            create table bench.copies as
                select {last_id} + row_number() over (order by first_event_at + moved) as id,
                    pattern, call_id, moved
                from (
                    select id as pattern, md5(call_id || ':' || copy)::uuid::text as call_id, first_event_at,
                        copy * interval '{apart} seconds'
                            - case when first_event_at + copy * interval '{apart} seconds' > now()
                                then interval '{DAYS} days' else interval '0' end as moved
                    from bench.calls cross join generate_series(1, {copies}) as copy
                ) as copied;
            create table bench.positions as
                select (select position from feed_head) + row_number() over (order by effective_at + moved) as position,
                    events.position as pattern, copies.id as call, moved
                from bench.copies join bench.events on events.call = copies.pattern;
            select setval('feed_positions', max(position)) from bench.positions having count(*) > 0;
            analyze bench.calls; analyze bench.events; analyze bench.copies; analyze bench.positions""",
        DATABASE,
    )
    # In the order of their numbers; the rows themselves are too wide to be sorted.
    for table, values, source in (
        ("calls", {"id": "copied.id", "call_id": "copied.call_id"},
         """from (select * from bench.copies order by id) as copied
            join bench.calls as pattern on pattern.id = copied.pattern"""),
        ("events", {"position": "copied.position", "call": "copied.call"},
         """from (select * from bench.positions order by position) as copied
            join bench.events as pattern on pattern.position = copied.pattern"""),
    ):
        say(f"writing {table}")
        # Indexes are created again at the end, which takes a fraction of the time.
        dropped = [statement for (statement,) in cluster.query(
            f"""select format('alter table {table} drop constraint %I', conname)
                from pg_constraint where conrelid = '{table}'::regclass and contype in ('p', 'u')
                union all
                select format('drop index %s', indexrelid::regclass)
                from pg_index where indrelid = '{table}'::regclass and {IS_OF_NO_CONSTRAINT}""",
            DATABASE,
        )]
        created = [statement for (statement,) in cluster.query(
            f"""select format('alter table {table} add constraint %I %s', conname, pg_get_constraintdef(oid))
                from pg_constraint where conrelid = '{table}'::regclass and contype in ('p', 'u')
                union all
                select pg_get_indexdef(indexrelid)
                from pg_index where indrelid = '{table}'::regclass and {IS_OF_NO_CONSTRAINT}""",
            DATABASE,
        )]
        time = lambda column, name, table=table: moved(table, column, name)
        cluster.query(";\n".join([*dropped, insertion(cluster, DATABASE, table, values, time, source), *created]), DATABASE)
        # A store that grew to this size over months is vacuumed too.
        cluster.query(f"vacuum (analyze) {table}", DATABASE)
    cluster.query("drop schema bench cascade", DATABASE)
    say(f"{count('calls'):,} calls, {count('events'):,} events")


IS_OF_NO_CONSTRAINT = "not exists (select from pg_constraint where conindid = indexrelid)"


def moved(table, column, name):
    """The time of a copy."""
    if name in RECEIPTS:
        # The pattern was received within minutes; in life that is soon after it happened.
        received, happened = RECEIVED_AND_HAPPENED[table]
        return f"{column} - pattern.{received} + pattern.{happened} + moved + interval '1 second'"
    return f"{column} + moved"


RECEIPTS = ("received_at", "last_delivered_at", "updated_at", "call_updated_at")
RECEIVED_AND_HAPPENED = {"calls": ("updated_at", "last_event_at"), "events": ("received_at", "effective_at")}


def say(text):
    print(text, file=sys.stderr, flush=True)
