"""What a scrape takes of the reactor while ten thousand edges are connected.

The links are fakes without a socket: the edges are in the fleet, are online, have sent data, have a connection in the
server's set and a timer in the reactor, and as many descriptors are open; what is left out are their bytes. The scrape
itself is a real one over HTTP, from another process.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread

from openems.application.running import in_reactor
from openems.backend.core.querypool import QueryPool
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.edge.direct import DirectEndpoint
from openems.backend.edge.manager import EdgeManager
from openems.backend.events import EventBus
from openems.backend.metrics import web
from openems.backend.metrics.prometheus import Prometheus
from openems.backend.metrics.requests import Requests
from openems.backend.ui import labels
from openems.common.errors import OUTCOMES
from openems.testing.connections import FakeConnection
from openems.testing.services import FakeMetadata, FakeTimedata

reactor: Any = _reactor
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
BEAT = 0.001


def _now() -> int:
    return time.time_ns() // 1_000_000


def _backend(edges: int) -> tuple[Prometheus, list[int]]:
    """Everything a big backend has to tell: all methods seen, all edges there."""
    metadata = FakeMetadata(EventBus(), {f"key{n}": f"edge{n}" for n in range(edges)})
    requests = Requests()
    manager = EdgeManager(metadata, FakeTimedata(), EventBus(), reactor=reactor, now=_now, observe=requests.of_edges)
    pool = QueryPool(20, 1000, reactor=reactor, observe=requests.of_pool("coreJsonRpcRequestHandler0"))
    for number in range(edges):
        connection = FakeConnection({"apikey": f"key{number}"}, reactor)
        connection.open(DirectEndpoint(connection, manager))
        connection.receive({"jsonrpc": "2.0", "method": "timestampedData", "params": {str(_now()): {"_sum/State": 0}}})
        manager.edges_server.connections.add(connection)
        reactor.callLater(3600, int)
    ui, results = requests.observer("uiwebsocket0"), requests.result_observer("ui")
    for outer, inners in labels.METHODS.items():
        for inner in inners:
            method = f"edgeRpc/{outer}/{inner}" if outer in ("appCenter", "componentJsonApi") else f"{outer}/{inner}"
            ui(method, 0.01)
            for result in OUTCOMES[:3]:
                results(method, result)
    metrics = Prometheus(
        reactor=reactor,
        now=_now,
        version="bench",
        metadata=metadata,
        edge_manager=manager,
        timedata_manager=TimedataManager([]),
        query_pool=pool,
        requests=requests,
        ready=dict,
        parts=[manager],
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = edges + 200
    if soft < wanted <= hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    spare = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
    null = os.open(os.devnull, os.O_RDONLY)
    return metrics, [null, *(os.dup(null) for _ in range(min(edges, spare)))]


class _Scraper:
    """A process that asks the port it is told and says how many bytes came."""

    PROGRAM = f"""
import sys, urllib.request
for line in sys.stdin:
    url = f"http://127.0.0.1:{{int(line)}}/metrics"
    with urllib.request.urlopen(urllib.request.Request(url, headers={{"Accept": "{ACCEPT}"}}), timeout=30) as answer:
        print(len(answer.read()), flush=True)
"""

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([sys.executable, "-c", self.PROGRAM], stdin=pipe, stdout=pipe, text=True)

    def ask(self, port: int) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(port, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate(timeout=10)


class _Heart:
    """The longest time that the reactor did not come round, seen from outside of the endpoint: by the clock, and what
    of it was work of ours. On a machine with other work the first one says little."""

    def __init__(self) -> None:
        self._longest = self._worked = 0.0
        self._call: Any = None
        self._last = self._last_cpu = 0.0

    def start(self) -> None:
        self._longest = self._worked = 0.0
        self._last, self._last_cpu = time.perf_counter(), time.thread_time()
        self._call = reactor.callLater(BEAT, self._beat)

    def stop(self) -> tuple[float, float]:
        self._call.cancel()
        return self._longest, self._worked

    def _beat(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        self._longest = max(self._longest, now - self._last - BEAT)
        self._worked = max(self._worked, cpu - self._last_cpu)
        self._last, self._last_cpu = now, cpu
        self._call = reactor.callLater(BEAT, self._beat)


async def _measured(edges: int, rounds: int, scraper: _Scraper) -> dict[str, Any]:
    metrics, descriptors = _backend(edges)
    port = metrics.start(0, "127.0.0.1")
    heart = _Heart()
    taken, blocks, outside, worked, cpu_seconds, size = [], [], [], [], [], 0
    try:
        # The same by the processor's clock: what other work on this machine cannot lengthen.
        for _ in range(rounds):
            web.perf_counter = time.thread_time
            size = await deferToThread(scraper.ask, port)
            cpu_seconds.append(metrics.pages.reactor_seconds)
        web.perf_counter = time.perf_counter
        for _ in range(rounds + 1):
            heart.start()
            size = await deferToThread(scraper.ask, port)
            longest, cpu = heart.stop()
            outside.append(longest)
            worked.append(cpu)
            taken.append(metrics.pages.reactor_seconds)
            blocks.append(metrics.pages.longest_block)
    finally:
        await metrics.stop()
        for descriptor in descriptors:
            os.close(descriptor)
    # The first one of a process is its warming up.
    return {
        "seconds": statistics.median(taken[1:]),
        "worst": max(taken[1:]),
        "cpu": statistics.median(cpu_seconds),
        "worst_cpu": max(cpu_seconds),
        "block": max(blocks[1:]),
        "usual": statistics.median(blocks[1:]),
        "outside": max(outside[1:]),
        "worked": max(worked[1:]),
        "bytes": size,
        "descriptors": len(descriptors),
    }


def measure(*, edges: int, rounds: int) -> dict[str, Any]:
    """``ratio``: reactor time of a scrape with that many edges to one without any."""

    async def run() -> dict[str, Any]:
        scraper = _Scraper()
        try:
            none = await _measured(0, rounds, scraper)
            all_of_them = await _measured(edges, rounds, scraper)
        finally:
            scraper.end()
        return {
            "ratio": round(all_of_them["cpu"] / none["cpu"], 2),
            "reactor_cpu_ms": round(all_of_them["cpu"] * 1000, 1),
            "worst_reactor_cpu_ms": round(all_of_them["worst_cpu"] * 1000, 1),
            "reactor_ms": round(all_of_them["seconds"] * 1000, 1),
            "worst_reactor_ms": round(all_of_them["worst"] * 1000, 1),
            "usual_longest_block_ms": round(all_of_them["usual"] * 1000, 1),
            "longest_block_ms": round(all_of_them["block"] * 1000, 1),
            "longest_block_seen_outside_ms": round(all_of_them["outside"] * 1000, 1),
            "longest_block_cpu_ms": round(all_of_them["worked"] * 1000, 1),
            "reactor_cpu_ms_without_edges": round(none["cpu"] * 1000, 1),
            "bytes": all_of_them["bytes"],
            "descriptors": all_of_them["descriptors"],
            "edges": edges,
            "links": "fake",
        }

    return in_reactor(lambda _: run())
