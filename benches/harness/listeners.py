"""Clients that stream and wait, and one that delivers at a steady rate; all by plain sockets.

Each runs in a process of its own. `time.monotonic` is one clock for all of them.
"""

import json
import multiprocessing
import re
import selectors
import socket
import time
from urllib.parse import urlsplit

from harness.processes import Failed

EVENT_ID = re.compile(rb'"event_id":"([0-9a-f-]{36})"')
MESSAGE = b"event: call\n"

# Of so many listeners the arrival of each message is noted; of the others the
# messages are counted, which costs less than the service takes to send them.
NOTED_LISTENERS = 10

PATIENCE_SECONDS = 30


def connect(base_url):
    address = urlsplit(base_url)
    connection = socket.create_connection((address.hostname, address.port), timeout=PATIENCE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Started:
    """A function that runs in a process of its own and gives one result."""

    def __init__(self, function, *arguments):
        self.ours, theirs = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_run, args=(function, theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()

    def next(self, seconds=PATIENCE_SECONDS):
        """What it has to tell next."""
        if not self.ours.poll(seconds):
            raise Failed("no result in time")
        kind, value = self.ours.recv()
        if kind == "failed":
            raise Failed(value)
        return value

    def tell(self, value):
        self.ours.send(value)

    def stop(self):
        self.process.terminate()
        self.process.join()


def _run(function, pipe, *arguments):
    try:
        function(lambda value: pipe.send(("told", value)), pipe, *arguments)
    except Exception as error:  # whatever it is, the benchmark must know
        pipe.send(("failed", f"{function.__name__}: {error!r}"))


def listen(tell, asked, base_url, number):
    """Opens so many streams; tells when all are open, and when it is asked, what arrived.

    That is: messages in all, the same per stream (least, greatest), and for each
    event its arrivals at the noted listeners.
    """
    selector = selectors.DefaultSelector()
    streams = []
    for index in range(number):
        connection = connect(base_url)
        connection.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        streams.append([connection, index < NOTED_LISTENERS, 0, b""])
    for stream in streams:
        head = b""
        while b"\nid: " not in head:
            head += stream[0].recv(65536)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Failed(head.decode(errors="replace"))
        stream[0].setblocking(False)
        selector.register(stream[0], selectors.EVENT_READ, stream)
    selector.register(asked, selectors.EVENT_READ)
    tell("open")
    arrivals = {}
    while True:
        for key, _ in selector.select():
            if key.data is None:
                asked.recv()
                counts = [stream[2] for stream in streams]
                tell((sum(counts), min(counts), max(counts), arrivals))
                continue
            stream = key.data
            try:
                came = stream[0].recv(1 << 20)
            except BlockingIOError:
                continue
            if not came:
                raise Failed("a stream was ended")
            at = time.monotonic()
            # A message may come in two parts: what could be the beginning of a mark is kept.
            text = stream[3] + came
            stream[2] += text.count(MESSAGE)
            if stream[1]:
                for match in EVENT_ID.finditer(text):
                    arrivals.setdefault(match[1].decode(), []).append(at)
                last = max((match.end() for match in EVENT_ID.finditer(text)), default=0)
                rest = text[last:]
                # Up to the next event id there is one mark, which is counted by now.
                stream[3] = rest if MESSAGE not in rest else rest.replace(MESSAGE, b"")
            else:
                stream[3] = text[-len(MESSAGE) + 1:]


def deliver(tell, _asked, base_url, bodies, rate, connections):
    """Sends the bodies at a steady rate; tells each event's id with the time of its answer, how long
    it all took, and the time to each answer from when its delivery was due.
    """
    answers, delays, due_at = [], [], {}
    lines = [connect(base_url) for _ in range(connections)]
    selector = selectors.DefaultSelector()
    idle = list(lines)
    for line in lines:
        selector.register(line, selectors.EVENT_READ)
    begun = time.monotonic()
    sent = 0
    while len(answers) < len(bodies):
        due = min(len(bodies), int((time.monotonic() - begun) * rate) + 1)
        while sent < due and idle:
            body = bodies[sent]
            line = idle.pop()
            due_at[line] = begun + sent / rate
            line.sendall(
                b"POST /webhooks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            sent += 1
        timeout = max(0.0, begun + sent / rate - time.monotonic()) if sent < len(bodies) and idle else PATIENCE_SECONDS
        for key, _ in selector.select(timeout):
            text = key.fileobj.recv(65536)
            at = time.monotonic()
            if not text.startswith(b"HTTP/1.1 200 "):
                raise Failed(text.decode(errors="replace"))
            answers.append((EVENT_ID.search(text)[1].decode(), at))
            delays.append(at - due_at[key.fileobj])
            idle.append(key.fileobj)
    tell((answers, time.monotonic() - begun, delays))


def wait(tell, _asked, base_url, call_ids):
    """Waits for each call; tells when all wait, then when each was answered."""
    selector = selectors.DefaultSelector()
    for call_id in call_ids:
        connection = connect(base_url)
        connection.sendall(b"GET /calls/%b?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n" % call_id.encode())
        selector.register(connection, selectors.EVENT_READ, call_id)
    tell("asked")
    answered = {}
    while len(answered) < len(call_ids):
        for key, _ in selector.select(PATIENCE_SECONDS * 4):
            text = key.fileobj.recv(65536)
            answered[key.data] = time.monotonic()
            if not text.startswith(b"HTTP/1.1 200 ") or b'"terminal":true' not in text:
                raise Failed(text.decode(errors="replace"))
            selector.unregister(key.fileobj)
            key.fileobj.close()
    tell(answered)


def body(call_id, status, second):
    """A delivery, as short as may be."""
    return json.dumps({
        "projectId": "3c9acfb1-c6b7-4bbc-b6c3-628af54d56c1",
        "eventType": f"OUTBOUND_CALL_{status}",
        "body": {"text": f"Time: 2026-05-12 12:00:{second:02}", "data": {"callId": call_id, "callSid": "CA1"}},
    }).encode()
