"""Exports of a store, and the import of what was exported into another."""

import json
import time
from datetime import datetime, timedelta, timezone

from harness import load
from harness.month import DATABASE, DELIVERIES, say
from harness.processes import Child, Failed

EXPORTED_DAYS = 7
FRESH = "fresh"
SPAN_OF_RECEIPTS = "select extract(epoch from max(received_at) - min(received_at)) from events"
FORMATS = ("csv", "jsonl", "parquet")
POLL_SECONDS = 0.02


def export_table(cluster, folder, callstate):
    """A week of each table in each format."""
    lines = ["| export | format | rows | rows/s | MB/s | peak memory MB |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    rows = {
        "calls": f"select count(*) from calls where first_event_at >= '{since(days=EXPORTED_DAYS)}'",
        "events": f"select count(*) from events where received_at >= '{since(days=EXPORTED_DAYS)}'",
        "attempts": "select sum(jsonb_array_length(attempts)) from calls"
                    f" where first_event_at >= '{since(days=EXPORTED_DAYS)}'",
    }
    rows["deliveries"] = rows["events"]
    for what, count in rows.items():
        number = int(cluster.value(count, DATABASE))
        for form in FORMATS if what != "deliveries" else ("jsonl",):
            file = folder / f"export.{form}"
            took, peak = export(cluster, folder, callstate, what, file, since(days=EXPORTED_DAYS))
            size = file.stat().st_size
            file.unlink()
            say(f"  export {what} as {form}: {number / took:,.0f}/s")
            lines.append(f"| {what} | {form} | {number:,} | {number / took:,.0f} | {size / took / 1e6:,.0f} | {peak / 1e6:,.0f} |")
    return "\n".join([*lines, ""])


def import_table(cluster, folder, callstate):
    """What was delivered of the simulated calls, imported into an empty store, and sent to another over HTTP."""
    file = folder / DELIVERIES
    lines = ["| into an empty store | events | events/s | peak memory MB |", "| --- | ---: | ---: | ---: |"]
    for way, bring in (("`callstate import`", by_import), ("over HTTP, 128 connections", by_http)):
        cluster.recreate(FRESH)
        with callstate.running(cluster, folder, {"DATABASE_URL": cluster.url(FRESH)}) as (service, address):
            took, peak = bring(cluster, folder, callstate, file, service, address)
        stored = int(cluster.value("select count(*) from events", FRESH))
        took = took or float(cluster.value(SPAN_OF_RECEIPTS, FRESH))
        say(f"  {way}: {stored / took:,.0f}/s")
        lines.append(f"| {way} | {stored:,} | {stored / took:,.0f} | {peak / 1e6:,.0f} |")
        cluster.drop(FRESH)
    return "\n".join([*lines, ""])


def by_import(cluster, folder, callstate, file, _service, _address):
    return measured(callstate, cluster, folder, FRESH, "import", file)


def by_http(_cluster, folder, _callstate, file, service, address):
    bodies = folder / "bodies"
    with file.open() as lines, bodies.open("w") as sent:
        for line in lines:
            # A line feed is white space there: in a text it is written as an escape.
            sent.write(json.loads(line)["payload"].replace("\n", " ") + "\n")
    service.forget_peak_memory()
    load.replay(address, 128, bodies)
    bodies.unlink()
    # How long it took, the receipts tell.
    return None, service.peak_memory()


def since(**ago):
    return (datetime.now(timezone.utc) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def export(cluster, folder, callstate, what, file, begin):
    return measured(callstate, cluster, folder, DATABASE, "export", what, "--from", begin, "--output", file, "--force")


def measured(callstate, cluster, folder, database, *arguments):
    """Runs a command of the program; how long it took in seconds, and its peak of memory in bytes."""
    argv = [callstate.command[0], *arguments, "--database-url", cluster.url(database)]
    begun, peak = time.monotonic(), 0
    with Child(argv, folder / "command.log") as child:
        while child.process.poll() is None:
            peak = child.peak_memory() or peak
            time.sleep(POLL_SECONDS)
    took = time.monotonic() - begun
    if child.process.returncode != 0:
        raise Failed(f"{' '.join(map(str, argv[1:3]))} failed:\n{child.tail()}")
    return took, peak
