"""Child processes: started, watched and ended by their own id, on any exit."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 20


class Failed(Exception):
    """Something that whoever runs the benchmark has to know, in one line."""


def unwind_on_signals():
    """Turns the signals that end a program into exceptions, so that every `with` block is left."""

    def leave(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


class Child:
    """A server that runs until the `with` block is left, in the environment given or else in ours."""

    def __init__(self, argv, log, environment=None, user=None):
        self.argv = [str(word) for word in argv]
        self.log = Path(log)
        self.environment = environment
        self.user = user
        self.process = None

    def __enter__(self):
        with self.log.open("wb") as log, missing_programs_told():
            self.process = subprocess.Popen(
                self.argv,
                env=self.environment,
                # A configuration file that happens to lie where we were started is not for it.
                cwd=self.log.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Out of reach of the terminal's Ctrl-C: servers are ended in order, by us.
                start_new_session=True,
                **as_user(self.user),
            )
        return self

    def __exit__(self, *_error):
        self.stop()

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is not None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def wait_for_line(self, prefix, seconds=60):
        """The rest of the first line of output that begins with the prefix."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            ended = self.process.poll() is not None
            for line in self.log.read_text(errors="replace").splitlines():
                if line.startswith(prefix):
                    return line[len(prefix):].strip()
            if ended:
                break
            time.sleep(0.05)
        raise Failed(f"{self.argv[0]} did not print {prefix!r}:\n{self.tail()}")

    def tail(self, lines=20):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def forget_peak_memory(self):
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def peak_memory(self):
        """The most resident memory since it was last forgotten, in bytes."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None

    def processor_seconds(self):
        """Processor time of the process and its children, those that ended included."""
        while True:
            own = process_times(self.process.pid)
            if own is None:
                return 0.0
            ticks = sum(own[1:])
            for entry in Path("/proc").iterdir():
                child = process_times(entry.name) if entry.name.isdigit() else None
                if child is not None and child[0] == self.process.pid:
                    ticks += child[1] + child[2]
            # A child that ended meanwhile went from one count to the other: look again.
            if process_times(self.process.pid)[3:] == own[3:]:
                return ticks / TICKS_PER_SECOND


def machine_processor_seconds():
    """Processor time that all processes of the machine used together, and what its host took away."""
    with open("/proc/stat", encoding="ascii") as stat:
        _, user, nice, system, _idle, _iowait, _irq, _softirq, steal, *_rest = stat.readline().split()
    return sum(int(ticks) for ticks in (user, nice, system, steal)) / TICKS_PER_SECOND


def process_times(pid):
    """Parent, and user, system, children's user and children's system time in ticks."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; the numbers come after it.
    fields = stat.rpartition(")")[2].split()
    return int(fields[1]), *(int(field) for field in fields[11:15])


def as_user(user):
    """What `subprocess` needs to run a child as another user."""
    if user is None:
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def missing_programs_told():
    """A program that is not there is no fault of ours."""
    try:
        yield
    except (FileNotFoundError, PermissionError) as error:
        raise Failed(f"cannot run {error.filename}: {error.strerror}") from error


def run(argv, **options):
    """Runs a command to its end and gives what it printed; a failure is told with its output."""
    argv = [str(word) for word in argv]
    with missing_programs_told():
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False, **options)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv[:4])} … failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
