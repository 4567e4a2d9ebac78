"""The contestants that answer HTTP: how each is built, started and given a database."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.processes import Child, run

BENCHES = Path(__file__).resolve().parent.parent
ROOT = BENCHES.parent

SCHEMA = (BENCHES / "receiver" / "schema.sql").read_text()
STORE_EVENT = (BENCHES / "receiver" / "store_event.sql").read_text()

# Anything from 10 to 32 does as well: see README.md. callstate does not read it.
POOL_SIZE = 20


SERVE = ("serve", "--listen", "127.0.0.1:0")


@dataclass(frozen=True)
class Receiver:
    """A program that takes `POST /webhooks` and answers `GET /calls/{id}`."""

    name: str
    label: str
    command: tuple
    build: tuple
    pool_size: int
    # What the tables are before the program's first start.
    schema: str = SCHEMA

    @contextlib.contextmanager
    def running(self, cluster, folder, more=None):
        """Starts it on its database, with more environment; gives the process and the address it listens on."""
        # What configures a callstate in this shell, a webhook token say, is not meant for this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CALLSTATE_", "RECHO_"))}
        environment = {
            **inherited,
            "DATABASE_URL": cluster.url(self.name),
            "POOL_SIZE": str(self.pool_size),
            "NODE_ENV": "production",
            **(more or {}),
        }
        with Child(self.command, folder / f"{self.name}.log", environment) as child:
            # A log may have colours and words around the line; the address is what counts.
            rest = child.wait_for_line("listening on ")
            yield child, re.search(r"http://[\d.:]+", rest)[0]

    def make(self):
        if self.build:
            run(self.build[1], cwd=self.build[0])


def cargo_build(folder):
    # The folder is named so that the program is where we look, whatever the environment says.
    return (folder, ("cargo", "build", "--release", "--locked", "--quiet", "--target-dir", "target"))


def receivers(callstate=None, pool_size=POOL_SIZE, other=None):
    """All of them by name; `callstate` is a binary to measure instead of building one, `other` another build."""
    axum = BENCHES / "axum"
    all_of_them = [
        Receiver(
            pool_size=pool_size,
            name="express",
            label="Express + node-postgres",
            command=("node", BENCHES / "express" / "server.js"),
            build=(BENCHES / "express", ("npm", "ci", "--omit=dev", "--no-audit", "--no-fund")),
        ),
        Receiver(
            pool_size=pool_size,
            name="axum",
            label="axum + sqlx, by hand",
            command=(axum / "target" / "release" / "callstate-bench-axum",),
            build=cargo_build(axum),
        ),
        Receiver(
            pool_size=pool_size,
            name="callstate",
            label="**callstate**",
            command=(callstate or ROOT / "target" / "release" / "callstate", *SERVE),
            build=None if callstate else cargo_build(ROOT),
            schema="",
        ),
        Receiver(
            pool_size=pool_size,
            name="answer",
            label="nothing stored (the load's ceiling)",
            command=(axum / "target" / "release" / "answer",),
            build=cargo_build(axum),
            schema="create table events ()",
        ),
    ]
    if other:
        all_of_them.append(
            Receiver(
                pool_size=pool_size,
                name="other",
                label="callstate, another build",
                command=(other, *SERVE),
                build=None,
                schema="",
            )
        )
    return {receiver.name: receiver for receiver in all_of_them}
