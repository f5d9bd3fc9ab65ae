"""What other systems cost: REST beside a bare Klein resource, and many equal WebSocket subscriptions.

``python -m bench.b2b bare|backend ...`` is the server in its own process: prints its ports, answers each line on stdin
with its figures, ends with stdin. ``python -m bench.b2b watch ...`` are the subscribers.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU = {CPUS[0]}
LOAD_CPUS = set(CPUS[1:]) or SERVER_CPU
LOGIN = "Basic " + base64.b64encode(b"bench:bench").decode()

REST_EDGES, REST_CHANNELS = 10, 20
WATCHED_EDGES, WATCHED_CHANNELS = 50, 10
#: Connections of the client of REST, each with one request under way.
CONNECTIONS = 8


class Child:
    """A process of this module on its own processor."""

    def __init__(self, cpus: set[int], *arguments: Any) -> None:
        command = [sys.executable, "-m", "bench.b2b", *map(str, arguments)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ)
        )
        os.sched_setaffinity(self._process.pid, cpus)
        try:
            self.first = self.read()
        except BaseException:
            self.end()
            raise

    def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark ended")
        value: dict[str, Any] = json.loads(line)
        return value

    def figures(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write("now\n")
        self._process.stdin.flush()
        return self.read()

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


# --- REST


def _request(edges: int, channels: int) -> bytes:
    params = {"ids": _edges(edges), "channels": _channels(channels)}
    body = json.dumps(
        {"id": "e4f4b1c2-4c7e-4c8f-86b6-1c3a2f3f9a02", "method": "getEdgesChannelsValues", "params": params},
        separators=(",", ":"),
    ).encode()
    head = f"POST /jsonrpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: {LOGIN}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


def _read_reply(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += _some(connection)
    if b" 200 " not in head[:20]:
        raise RuntimeError(f"{head!r} {body[:200]!r}")
    return body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(262144)
    if not data:
        raise RuntimeError("the server closed the connection")
    return data


def _load(port: int, request: bytes, seconds: float) -> tuple[int, float]:
    """Requests answered and the seconds they took, each connection asking again when it is answered."""
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(request)
        selector.register(connection, selectors.EVENT_READ)
    began = time.monotonic()
    answered = 0
    while time.monotonic() - began < seconds:
        for key, _ in selector.select(1):
            ready: Any = key.fileobj
            _read_reply(ready)
            answered += 1
            ready.sendall(request)
    took = time.monotonic() - began
    for key in list(selector.get_map().values()):
        closing: Any = key.fileobj
        closing.close()
    return answered, took


def _measure(server: Child, port: int, request: bytes, seconds: float) -> tuple[float, float]:
    """Requests a second, and a second of the server's processor."""
    _load(port, request, 0.5)
    before = server.figures()["cpu_seconds"]
    answered, took = _load(port, request, seconds)
    return answered / took, answered / (server.figures()["cpu_seconds"] - before)


def rest(seconds: float, rounds: int) -> dict[str, Any]:
    request = _request(REST_EDGES, REST_CHANNELS)
    with tempfile.TemporaryDirectory(prefix="openems-bench-") as folder:
        backend = Child(SERVER_CPU, "backend", folder, REST_EDGES, REST_CHANNELS)
        bare: Child | None = None
        try:
            with socket.create_connection(("127.0.0.1", backend.first["rest"])) as once:
                once.sendall(request)
                reply = _read_reply(once)
            values = json.loads(reply)["result"]
            if len(values) != REST_EDGES or any(None in edge.values() for edge in values.values()):
                raise RuntimeError(f"not all values are there: {reply[:500]!r}")
            answer = Path(folder, "answer")
            answer.write_bytes(reply)
            bare = Child(SERVER_CPU, "bare", answer)
            ours, theirs = [], []
            for _ in range(rounds):
                theirs.append(_measure(bare, bare.first["rest"], request, seconds))
                ours.append(_measure(backend, backend.first["rest"], request, seconds))
        finally:
            backend.end()
            if bare is not None:
                bare.end()
    return {
        "ratio": round(statistics.median(o[0] / b[0] for o, b in zip(ours, theirs, strict=True)), 3),
        "ratio_of_cpu": round(statistics.median(o[1] / b[1] for o, b in zip(ours, theirs, strict=True)), 3),
        "requests_per_second": round(statistics.median(o[0] for o in ours)),
        "bare_requests_per_second": round(statistics.median(b[0] for b in theirs)),
        "reply_bytes": len(reply),
        "values": REST_EDGES * REST_CHANNELS,
    }


# --- WebSocket


def websocket(seconds: float, watchers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="openems-bench-") as folder:
        backend = Child(SERVER_CPU, "backend", folder, WATCHED_EDGES, WATCHED_CHANNELS)
        try:
            figures: dict[str, Any] = {}
            for kind in ("equal", "different"):
                viewers = Child(LOAD_CPUS, "watch", backend.first["websocket"], watchers, kind)
                try:
                    time.sleep(2.5)
                    before, seen = backend.figures(), viewers.figures()
                    time.sleep(seconds)
                    after, seen_after = backend.figures(), viewers.figures()
                finally:
                    viewers.end()
                pushed = after["pushed"] - before["pushed"]
                cpu = after["cpu_seconds"] - before["cpu_seconds"]
                figures[kind] = {
                    "pushes": pushed,
                    "encoded": after["encoded"] - before["encoded"],
                    "skipped": after["skipped"],
                    "arrived": seen_after["arrived"] - seen["arrived"],
                    "push_bytes": seen_after["bytes"],
                    "pushes_per_cpu_second": round(pushed / cpu),
                    "server_cpu_share": round(cpu / seconds, 4),
                }
        finally:
            backend.end()
    return {
        "ratio_equal_to_different": round(
            figures["equal"]["pushes_per_cpu_second"] / figures["different"]["pushes_per_cpu_second"], 2
        ),
        "watchers": watchers,
        "values": WATCHED_EDGES * WATCHED_CHANNELS,
        **figures,
    }


# --- the processes


def _edges(number: int) -> list[str]:
    return [f"edge{n}" for n in range(number)]


def _channels(number: int) -> list[str]:
    return [f"meter{n}/ActivePower" for n in range(number)]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="bench.b2b")
    kinds = parser.add_subparsers(dest="kind", required=True)
    bare = kinds.add_parser("bare")
    bare.add_argument("answer", type=Path)
    backend = kinds.add_parser("backend")
    backend.add_argument("folder", type=Path)
    backend.add_argument("edges", type=int)
    backend.add_argument("channels", type=int)
    watch = kinds.add_parser("watch")
    watch.add_argument("port", type=int)
    watch.add_argument("watchers", type=int)
    watch.add_argument("which", choices=("equal", "different"))
    options = parser.parse_args(arguments)
    # Installs the reactor, so not before.
    from bench import b2bserver

    b2bserver.run(options, _edges, _channels, LOGIN)


if __name__ == "__main__":
    main(sys.argv[1:])
