"""UI watchers that stop reading: ``python -m bench.stalled PORT READERS EDGE...``.

Each watches 700 channels of all those edges. Says ``ready``; after a line on stdin they read no more, after a second
one they read again for ``AGAIN`` seconds, and what came is printed as one JSON object.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import time
from typing import Any

import orjson
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from bench.watchers import Watcher, reactor
from openems.common.jsonrpc import new_id

#: All that a snapshot of the generator has.
CHANNELS = ["_sum/BenchSentAt", *(f"meter{n // 20}/BenchChannel{n % 20}" for n in range(699))]
#: Bytes of the receive buffer: soon full. With less than a packet of loopback reading is a crawl.
WINDOW = 128 * 1024
#: Seconds of reading before they are ready, and after the stop.
FIRST, AGAIN = 1.5, 5.0


class Stalled(Watcher):
    """``late``: values sent by an edge before it read again, which it got only then; ``until_new``: microseconds from
    there to the first newer one."""

    def __init__(self, port: int, edges: list[str]) -> None:
        super().__init__(port, edges[0])
        self._edges = edges
        self.begun = 0
        self.late = 0
        self.late_bytes = 0
        self.new = 0
        self.until_new: int | None = None
        self.disordered = 0
        self._newest: dict[str, int] = {}

    async def watch(self) -> None:
        self._client.start()
        await self._opened.addTimeout(30, reactor)
        self.connection._wire.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW)  # type: ignore[attr-defined]
        await self.connection.request("authenticateWithPassword", {"username": "bench", "password": "bench"})
        await self.connection.request("subscribeEdges", {"edges": self._edges})
        for edge_id in self._edges:
            params = {"count": 1, "channels": CHANNELS}
            payload = {"jsonrpc": "2.0", "method": "subscribeChannels", "params": params, "id": new_id()}
            await self.connection.request("edgeRpc", {"edgeId": edge_id, "payload": payload})

    def begin(self) -> None:
        self.begun = time.time_ns() // 1000
        self.connection.resume_reading()

    def received(self, text: bytes) -> bool:
        if b'"currentData"' not in text:
            return False
        params = orjson.loads(text)["params"]
        edge_id, sent_at = params["edgeId"], params["payload"]["params"].get("_sum/BenchSentAt") or 0
        self.disordered += sent_at < self._newest.get(edge_id, 0)
        self._newest[edge_id] = sent_at
        self.pushes += 1
        if not self.begun:
            return True
        if sent_at < self.begun:
            self.late += 1
            self.late_bytes += len(text)
        else:
            self.new += 1
            if self.until_new is None:
                self.until_new = time.time_ns() // 1000 - self.begun
        return True


async def measure(options: argparse.Namespace) -> None:
    readers = [Stalled(options.port, options.edges) for _ in range(options.readers)]
    for begin in range(0, len(readers), 10):
        await gatherResults([Deferred.fromCoroutine(reader.watch()) for reader in readers[begin : begin + 10]])
    await deferLater(reactor, FIRST)
    print("ready", flush=True)
    await deferToThread(sys.stdin.readline)
    for reader in readers:
        reader.connection.pause_reading()
    print(json.dumps({"slow": len(readers)}), flush=True)
    await deferToThread(sys.stdin.readline)
    for reader in readers:
        reader.begin()
    await deferLater(reactor, AGAIN)
    waits = [reader.until_new for reader in readers if reader.until_new is not None]
    figures: dict[str, Any] = {
        "late_pushes": statistics.median(reader.late for reader in readers),
        "late_bytes": statistics.median(reader.late_bytes for reader in readers),
        "readers_with_newest_values": sum(reader.new >= len(options.edges) for reader in readers),
        "until_new_values_ms": round(statistics.median(waits) / 1000, 1) if waits else None,
        "longest_until_new_values_ms": round(max(waits) / 1000, 1) if waits else None,
        "older_after_newer": sum(reader.disordered for reader in readers),
        "readers_still_connected": sum(reader.connection.is_open for reader in readers),
    }
    print(json.dumps(figures), flush=True)
    reactor.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.stalled")
    parser.add_argument("port", type=int)
    parser.add_argument("readers", type=int)
    parser.add_argument("edges", nargs="+")
    options = parser.parse_args()

    def failed(failure: Any) -> None:
        failure.printTraceback()
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(measure(options)).addErrback(failed))
    reactor.run()


if __name__ == "__main__":
    main()
