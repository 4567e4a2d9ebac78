"""A throw-away Postgres cluster, as durable as a real one."""

import glob
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from harness.processes import Child, Failed, as_user, run

# The same for every contestant. The first three are what makes a 2xx mean
# something and are looked at again before each run.
DURABILITY = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
}
# What callstate gives the server that it manages itself. Checkpoints on the
# default settings come every few seconds under this load and stop everyone.
# (A server that was built without LZ4 wants `--set wal_compression=on`.)
SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "min_wal_size": "1GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "lz4",
    "wal_buffers": "16MB",
    "max_connections": "300",
}
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TOP_PAD_": "16777216",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
}


class Cluster:
    """Postgres on a free port of 127.0.0.1, in a folder of its own: from nothing, or where one was kept."""

    def __init__(self, folder, binaries=None, settings=None):
        self.folder = Path(folder)
        self.data = self.folder / "data"
        self.binaries = Path(binaries) if binaries else find_binaries()
        self.settings = {**SETTINGS, **(settings or {}), **DURABILITY}
        self.password_file = self.folder / "password"
        self.is_kept = (self.data / "PG_VERSION").exists()
        self.password = self.password_file.read_text() if self.is_kept else secrets.token_hex(16)
        self.port = free_port()
        self.user = unprivileged_user()
        self.server = None

    def __enter__(self):
        if not self.is_kept:
            self._create()
        argv = [self.binaries / "postgres", "-D", self.data]
        local = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": ""}
        for name, value in {**self.settings, **local}.items():
            argv += ["-c", f"{name}={value}"]
        environment = {**os.environ, **ALLOCATOR}
        self.server = Child(argv, self.folder / "postgres.log", environment, self.user).__enter__()
        self._wait_until_ready()
        self._fill_log()
        return self

    def _create(self):
        self.data.mkdir()
        self.password_file.touch(0o600)
        self.password_file.write_text(self.password)
        if self.user is not None:
            # Postgres refuses root, and must get through to its folder.
            self.folder.chmod(0o711)
            os.chown(self.data, self.user.pw_uid, self.user.pw_gid)
            os.chown(self.password_file, self.user.pw_uid, self.user.pw_gid)
        run(
            [self.binaries / "initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--locale=C",
             "--data-checksums", "--auth=scram-sha-256", f"--pwfile={self.password_file}"],
            cwd=self.data,
            **as_user(self.user),
        )

    def __exit__(self, *_error):
        if self.server is not None:
            # SIGINT is Postgres' "fast" stop: sessions are ended, nothing is waited for.
            self.server.stop(signal.SIGINT)

    def _wait_until_ready(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self.server.process.poll() is None:
            try:
                self.query("select 1")
                return
            except Failed:
                time.sleep(0.1)
        raise Failed(f"Postgres did not start:\n{self.server.tail()}")

    def _fill_log(self):
        """Makes the files of the log, which a server that has run for a while has at hand.

        A new one makes and zeroes each while somebody waits to commit.
        """
        self.query("""
            do $$ begin
                for segment in 1 .. (select setting::int / 16 from pg_settings where name = 'min_wal_size') loop
                    perform pg_logical_emit_message(false, '', '');
                    perform pg_switch_wal();
                end loop;
            end $$;
            checkpoint;
        """)

    def url(self, database):
        return f"postgres://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def environment(self, database):
        """What libpq's programs need to connect."""
        return {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGPASSWORD": self.password,
            "PGDATABASE": database,
        }

    def query(self, sql, database="postgres"):
        """The rows of the last statement, as lists of text."""
        output = run(
            [self.binaries / "psql", "-X", "-A", "-t", "-q", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=sql,
            env=self.environment(database),
        )
        return [line.split("\t") for line in output.splitlines()]

    def value(self, sql, database="postgres"):
        return self.query(sql, database)[0][0]

    def recreate(self, database, schema=""):
        self.drop(database)
        self.query(f'create database "{database}"')
        if schema:
            self.query(schema, database)

    def drop(self, database):
        self.query(f'drop database if exists "{database}" with (force)')

    def assert_durable(self, database):
        """Nobody may have bought speed with durability, for the server, a database or a role."""
        for name, wanted in DURABILITY.items():
            found = self.value(f"show {name}", database)
            if found != wanted:
                raise Failed(f"{database}: {name} is {found}, not {wanted}")
        for (setting,) in self.query("select unnest(setconfig) from pg_db_role_setting"):
            if setting.split("=")[0] in DURABILITY:
                raise Failed(f"{setting} is set for a database or a role")

    def settled_count(self, table, database):
        """The number of rows, once what was under way when the load stopped is stored."""
        deadline = time.monotonic() + 30
        count = None
        while time.monotonic() < deadline:
            before, count = count, int(self.value(f"select count(*) from {table}", database))
            if count == before:
                return count
            time.sleep(0.3)
        raise Failed(f"{database}: {table} still grows without load")

    def wal_position(self):
        return int(self.value("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')"))

    def version(self):
        return self.value("show server_version")


def find_binaries():
    """The folder with `postgres` and `initdb` of the newest version installed."""
    candidates = glob.glob("/usr/lib/postgresql/*/bin") + glob.glob("/usr/pgsql-*/bin")
    config = shutil.which("pg_config")
    if config:
        candidates.append(run([config, "--bindir"]).strip())
    on_path = shutil.which("initdb")
    if on_path:
        candidates.append(os.path.dirname(os.path.realpath(on_path)))
    found = {}
    for folder in candidates:
        postgres = Path(folder) / "postgres"
        if postgres.exists() and all((Path(folder) / name).exists() for name in ("initdb", "psql", "pgbench")):
            version = re.search(r"(\d+)", subprocess.check_output([postgres, "--version"], text=True))
            found[int(version[1])] = Path(folder)
    if not found:
        raise Failed("no Postgres found: install it, or say --postgres FOLDER (with postgres, initdb, psql, pgbench)")
    return found[max(found)]


def unprivileged_user():
    """Whom the server runs as where we are root; otherwise ourselves."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Failed("Postgres refuses root, and there is no user postgres or nobody")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
