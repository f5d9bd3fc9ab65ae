"""UI watchers in one process: ``python -m bench.watchers PORT WATCHERS SECONDS EDGE...``.

Each logs in, watches ``_sum/BenchSentAt`` and some more channels of one edge (of those named, in turn) and measures
how old the value is when its push arrives. Says ``ready``; prints its figures after ``SECONDS``.

``--follow``: they come back whenever the server was away, until a line on stdin; the figures have ``samples`` then,
(arrival, age) in microseconds of each push. A value older than the subscription is none.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import orjson
from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor as _reactor  # noqa: E402
from twisted.internet.defer import Deferred, gatherResults  # noqa: E402
from twisted.internet.task import LoopingCall, deferLater  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402
from twisted.logger import Logger  # noqa: E402

from openems.common.jsonrpc import Notification, Request, new_id  # noqa: E402
from openems.websocket.client import ReconnectingClient  # noqa: E402
from openems.websocket.peer import Connection  # noqa: E402

reactor: Any = _reactor
CHANNELS = ["_sum/BenchSentAt", *(f"meter0/BenchChannel{n}" for n in range(10))]


class Watcher:
    """``pushes``: different values that came; ``ages``: microseconds from the edge's clock to the arrival, of those
    that came after ``settled`` (microseconds)."""

    _log = Logger()

    def __init__(self, port: int, edge_id: str, follow: bool = False) -> None:
        self.edge_id = edge_id
        self._follow = follow
        self._watching = False
        self.since = 0
        self.samples: list[tuple[int, int]] = []
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
        await self._subscribe()
        self._watching = True

    async def _subscribe(self) -> None:
        await self.connection.request("authenticateWithPassword", {"username": "bench", "password": "bench"})
        await self.connection.request("subscribeEdges", {"edges": [self.edge_id]})
        payload = {
            "jsonrpc": "2.0",
            "method": "subscribeChannels",
            "params": {"count": 1, "channels": CHANNELS},
            "id": new_id(),
        }
        self.since = time.time_ns() // 1000
        await self.connection.request("edgeRpc", {"edgeId": self.edge_id, "payload": payload})

    async def stop(self) -> None:
        await self._client.stop()

    # IEndpoint

    def opened(self) -> None:
        if not self._opened.called:
            self._opened.callback(None)
        elif self._watching and self._follow:
            again = Deferred.fromCoroutine(self._subscribe())
            # The next connection tries it once more.
            again.addErrback(lambda failure: self._log.failure("cannot watch again", failure))

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
            if self._follow and sent_at >= self.since:
                self.samples.append((arrived, arrived - sent_at))
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


async def exchange(watchers: list[Watcher], options: argparse.Namespace) -> None:
    """The one that came first leaves, another one comes for the same edge."""
    leaving = watchers[-options.watchers]
    await leaving.stop()
    leaving.samples.clear()
    coming = Watcher(options.port, leaving.edge_id, options.follow)
    watchers.append(coming)
    await coming.watch()


def failed(failure: Any) -> None:
    failure.printTraceback()
    if reactor.running:
        reactor.stop()


async def measure(options: argparse.Namespace) -> None:
    edges = options.edges
    watchers = [Watcher(options.port, edges[n % len(edges)], options.follow) for n in range(options.watchers)]
    for begin in range(0, len(watchers), 50):
        some = watchers[begin : begin + 50]
        await gatherResults([Deferred.fromCoroutine(watcher.watch()) for watcher in some])
    settled = int((time.time() + options.settle) * 1_000_000)
    for watcher in watchers:
        watcher.settled = settled
    print("ready", flush=True)
    leaving = LoopingCall(lambda: Deferred.fromCoroutine(exchange(watchers, options)))
    if options.leave:
        leaving.start(options.leave, now=False).addErrback(failed)
    if options.follow:
        await deferToThread(sys.stdin.readline)
    else:
        await deferLater(reactor, options.seconds)
    if leaving.running:
        leaving.stop()
    ages = sorted(age for watcher in watchers for age in watcher.ages)
    print(
        json.dumps(
            {
                "watchers": options.watchers,
                "left": len(watchers) - options.watchers,
                "pushes": sum(watcher.pushes for watcher in watchers),
                "fewest_pushes_of_a_watcher": min(watcher.pushes for watcher in watchers),
                "p50_ms": percentile(ages, 0.5),
                "p99_ms": percentile(ages, 0.99),
                "max_ms": percentile(ages, 1.0),
                "watchers_cpu_seconds": round(time.process_time(), 3),
                **({"samples": [s for watcher in watchers for s in watcher.samples]} if options.follow else {}),
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
    parser.add_argument("--follow", action="store_true")
    parser.add_argument("--settle", type=float, default=0.0, help="seconds whose pushes are counted, not measured")
    parser.add_argument(
        "--leave", type=float, default=0.0, help="each so many seconds one leaves and another one comes"
    )
    options = parser.parse_args()
    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(measure(options)).addErrback(failed))
    reactor.run()


if __name__ == "__main__":
    main()
