"""UI watchers in one process: ``python -m bench.watchers PORT WATCHERS SECONDS EDGE...``.

Each logs in, watches ``_sum/BenchSentAt`` and some more channels of one edge (of those named, in turn) and measures
how old the value is when its push arrives. Says ``ready``; prints its figures after ``SECONDS``.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import orjson
from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor as _reactor  # noqa: E402
from twisted.internet.defer import Deferred, gatherResults  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402

from openems.common.jsonrpc import Notification, Request, new_id  # noqa: E402
from openems.websocket.client import ReconnectingClient  # noqa: E402
from openems.websocket.peer import Connection  # noqa: E402

reactor: Any = _reactor
CHANNELS = ["_sum/BenchSentAt", *(f"meter0/BenchChannel{n}" for n in range(10))]


class Watcher:
    """``pushes``: different values that came; ``ages``: microseconds from the edge's clock to the arrival, of those
    that came after ``settled`` (microseconds)."""

    def __init__(self, port: int, edge_id: str) -> None:
        self.edge_id = edge_id
        self.pushes = 0
        self.settled = 0
        self.ages: list[int] = []
        self.last = 0
        self._client = ReconnectingClient(
            f"ws://127.0.0.1:{port}", {}, self._made, reactor=reactor, min_wait=0.5, max_wait=1.0, name="Watcher"
        )
        self._opened: Deferred[None] = Deferred()

    def _made(self, connection: Connection) -> Watcher:
        self.connection = connection
        return self

    async def watch(self) -> None:
        self._client.start()
        await self._opened.addTimeout(30, reactor)
        await self.connection.request("authenticateWithPassword", {"username": "bench", "password": "bench"})
        await self.connection.request("subscribeEdges", {"edges": [self.edge_id]})
        payload = {
            "jsonrpc": "2.0",
            "method": "subscribeChannels",
            "params": {"count": 1, "channels": CHANNELS},
            "id": new_id(),
        }
        await self.connection.request("edgeRpc", {"edgeId": self.edge_id, "payload": payload})

    async def stop(self) -> None:
        await self._client.stop()

    # IEndpoint

    def opened(self) -> None:
        if not self._opened.called:
            self._opened.callback(None)

    def received(self, text: bytes) -> bool:
        arrived = time.time_ns() // 1000
        if b'"currentData"' not in text:
            return False
        sent_at = orjson.loads(text)["params"]["payload"]["params"].get("_sum/BenchSentAt")
        if sent_at and sent_at != self.last:
            self.last = sent_at
            self.pushes += 1
            if arrived >= self.settled:
                self.ages.append(arrived - sent_at)
        return True

    async def request(self, request: Request) -> None:
        return None

    def notification(self, notification: Notification) -> None:
        pass

    def closed(self) -> None:
        pass


def percentile(ages: list[int], part: float) -> float | None:
    """Milliseconds; None without any."""
    return round(ages[min(len(ages) - 1, int(len(ages) * part))] / 1000, 2) if ages else None


async def measure(options: argparse.Namespace) -> None:
    edges = options.edges
    watchers = [Watcher(options.port, edges[n % len(edges)]) for n in range(options.watchers)]
    for begin in range(0, len(watchers), 50):
        some = watchers[begin : begin + 50]
        await gatherResults([Deferred.fromCoroutine(watcher.watch()) for watcher in some])
    settled = int((time.time() + options.settle) * 1_000_000)
    for watcher in watchers:
        watcher.settled = settled
    print("ready", flush=True)
    await deferLater(reactor, options.seconds)
    ages = sorted(age for watcher in watchers for age in watcher.ages)
    print(
        json.dumps(
            {
                "watchers": len(watchers),
                "pushes": sum(watcher.pushes for watcher in watchers),
                "fewest_pushes_of_a_watcher": min(watcher.pushes for watcher in watchers),
                "p50_ms": percentile(ages, 0.5),
                "p99_ms": percentile(ages, 0.99),
                "max_ms": percentile(ages, 1.0),
                "watchers_cpu_seconds": round(time.process_time(), 3),
            }
        ),
        flush=True,
    )
    reactor.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.watchers")
    parser.add_argument("port", type=int)
    parser.add_argument("watchers", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("edges", nargs="+")
    parser.add_argument("--settle", type=float, default=0.0, help="seconds whose pushes are counted, not measured")
    options = parser.parse_args()

    def failed(failure: Any) -> None:
        failure.printTraceback()
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(measure(options)).addErrback(failed))
    reactor.run()


if __name__ == "__main__":
    main()
