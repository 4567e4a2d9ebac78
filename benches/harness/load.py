"""Load on a receiver: wrk over HTTP, or pgbench on the statement itself."""

import itertools
import json
import os
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.processes import Failed, run

LOAD = Path(__file__).resolve().parent.parent / "load"

STATUSES = ("PENDING", "REQUESTED", "CALLING", "CLOSING", "COMPLETED")

# Calls under way for each connection: far enough apart that a call's events do
# not overtake each other, see deliveries.lua.
CALLS_PER_CONNECTION = 4

# Enough for a hundred thousand.
REPLAY_SECONDS = 30

_runs = itertools.count(1)


@dataclass
class Load:
    """What one run found; latencies in milliseconds."""

    connections: int
    seconds: float
    answered: int
    not_2xx: int
    p50: float
    p99: float
    greatest: float
    processor_seconds: float

    @property
    def stored(self):
        return self.answered - self.not_2xx

    @property
    def rate(self):
        """Only what was stored counts."""
        return self.stored / self.seconds

    def assert_all_stored(self, rows, who):
        """As many rows as answers; what was under way when the load stopped may be stored unanswered."""
        if not 0 <= rows - self.stored <= self.connections + self.not_2xx:
            raise Failed(f"{who}: {self.stored} answered 2xx, but {rows} rows stored")


def require_wrk():
    if not shutil.which("wrk"):
        raise Failed("wrk is not installed; on Debian: apt-get install wrk")


def deliver(base_url, connections, seconds, events_per_call=5):
    """Whole calls to `POST /webhooks`."""
    return _wrk(
        f"{base_url}/webhooks",
        "deliveries.lua",
        connections,
        seconds,
        {
            "DELIVERY": str(LOAD / "delivery.json"),
            # Ids must differ from one run to the next on the same database.
            "RUN": f"{next(_runs):08x}",
            "OPEN_CALLS": str(CALLS_PER_CONNECTION * connections),
            "EVENTS_PER_CALL": str(events_per_call),
        },
    )


def look_up(base_url, connections, seconds, call_ids):
    """`GET /calls/{id}` for the ids in a file."""
    return _wrk(base_url, "lookups.lua", connections, seconds, {"CALL_IDS": str(call_ids)})


def ask(url, connections, seconds, headers=None):
    """`GET` of the same URL over and over."""
    return _wrk(url, "summary.lua", connections, seconds, {}, headers or {})


def replay(base_url, connections, bodies):
    """The bodies in a file to `POST /webhooks`, once; wrk stays silent for the rest of the time."""
    return _wrk(f"{base_url}/webhooks", "replay.lua", connections, REPLAY_SECONDS, {"BODIES": str(bodies)})


def _wrk(url, script, connections, seconds, environment, headers=None):
    used = _children_processor_seconds()
    output = run(
        # One thread: it sends several times what any receiver takes, and leaves the processors to them.
        ["wrk", "-t", 1, "-c", connections, "-d", f"{seconds}s", "--timeout", "10s", "-s", LOAD / script,
         *(word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")), url],
        env={**os.environ, "SUMMARY": str(LOAD / "summary.lua"), **environment},
        timeout=seconds + 60,
    )
    found = json.loads(output.splitlines()[-1])
    if found["socket_errors"]:
        raise Failed(f"{found['socket_errors']} connections failed at {connections}: {url}")
    return Load(
        connections=connections,
        seconds=found["duration"] / 1e6,
        answered=found["requests"],
        not_2xx=found["not_2xx"],
        p50=found["p50"] / 1e3,
        p99=found["p99"] / 1e3,
        greatest=found["max"] / 1e3,
        processor_seconds=_children_processor_seconds() - used,
    )


def _children_processor_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def pgbench(cluster, database, statement, folder, clients, seconds):
    """The receivers' statement by pgbench, each client a call's events in turn."""
    script = folder / "pgbench.sql"
    script.write_text(_pgbench_script(statement))
    log = folder / "pgbench_log"
    defined = {"n": 0, "sid": "CA" + "0" * 32, "client": "0" * 36, "project": "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1"}
    for number, status in enumerate(STATUSES):
        defined |= {f"status{number}": status, f"event{number}": f"OUTBOUND_CALL_{status}", f"payload{number}": _payload(status)}
    used = _children_processor_seconds()
    output = run(
        [cluster.binaries / "pgbench", "-n", "-M", "prepared", "-f", script, "-T", seconds, "-c", clients,
         "-j", min(clients, 2), "-l", f"--log-prefix={log}",
         *(word for name, value in defined.items() for word in ("-D", f"{name}={value}"))],
        env=cluster.environment(database),
        timeout=seconds + 120,
    )
    latencies = []
    for part in folder.glob("pgbench_log.*"):
        with part.open() as lines:
            latencies.extend(int(line.split()[2]) for line in lines)
        part.unlink()
    latencies.sort()
    rate = float(output.split("tps = ")[1].split()[0])
    return Load(
        connections=clients,
        seconds=len(latencies) / rate,
        answered=len(latencies),
        not_2xx=0,
        p50=latencies[len(latencies) // 2] / 1e3,
        p99=latencies[len(latencies) * 99 // 100] / 1e3,
        greatest=latencies[-1] / 1e3,
        processor_seconds=_children_processor_seconds() - used,
    )


def _payload(status):
    """A delivery as the receivers get it; pgbench cannot write a new one each time."""
    replaced = {"@STATUS": status, "@WORDS": status.lower(), "@s": "CA" + "0" * 32, "@t": "2026-01-01 00:00:00",
                "@c": "0" * 36, "@p": "0" * 36}
    payload = (LOAD / "delivery.json").read_text().strip()
    for mark, value in replaced.items():
        payload = payload.replace(mark, value)
    return payload


def _pgbench_script(statement):
    """One transaction is one event; the variables are kept from one to the next."""
    lines = [
        r"\set stage :n % 5",
        r"\set n :n + 1",
        r"\if :stage = 0",
        r"\set call random(1, 9223372036854775806)",
        r"\endif",
    ]
    for number in range(len(STATUSES)):
        names = ("call", f"event{number}", f"payload{number}", "project", f"status{number}", "sid", "client")
        text = statement.strip()
        for position, name in enumerate(names, start=1):
            text = text.replace(f"${position}", f":{name}")
        lines += [rf"\{'if' if number == 0 else 'elif'} :stage = {number}", f"{text};"]
    return "\n".join([*lines, r"\endif", ""])
