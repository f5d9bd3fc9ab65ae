"""A user who asks an edge, and the edge that answers: ``python -m bench.roundtrips UI EDGE APIKEY EDGE_ID --rate N``.

Prints ``ready``, asks for the given seconds, prints the times from request to answer as one JSON object. Requests leave
by the clock, whether or not the earlier ones were answered.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater

from bench.watchers import percentile, reactor
from openems.application.running import in_reactor
from openems.common.jsonrpc import Notification, Request, new_id
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection


class Peer:
    """Either end: the edge answers, the user only asks."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._client = ReconnectingClient(
            url, headers, self._made, reactor=reactor, min_wait=0.5, max_wait=1.0, name="Bench"
        )
        self._opened: Deferred[None] = Deferred()

    def _made(self, connection: Connection) -> Peer:
        self.connection = connection
        return self

    async def start(self) -> None:
        self._client.start()
        await self._opened.addTimeout(30, reactor)

    # IEndpoint

    def opened(self) -> None:
        if not self._opened.called:
            self._opened.callback(None)

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Request) -> Any:
        inner = request.members().request()
        return {"payload": {"jsonrpc": "2.0", "id": inner.id, "result": {}}}

    def notification(self, notification: Notification) -> None: ...

    def closed(self) -> None: ...


async def measure(options: argparse.Namespace) -> None:
    edge = Peer(f"ws://127.0.0.1:{options.edge}", {"apikey": options.apikey})
    user = Peer(f"ws://127.0.0.1:{options.ui}", {})
    await edge.start()
    await user.start()
    await user.connection.request("authenticateWithPassword", {"username": "bench", "password": "bench"})
    took: list[int] = []
    failed: list[str] = []

    def ask() -> None:
        began = time.perf_counter_ns()
        payload = {"jsonrpc": "2.0", "method": "bench", "params": {}, "id": new_id()}
        asked = user.connection.request("edgeRpc", {"edgeId": options.edge_id, "payload": payload})
        asked.addCallbacks(
            lambda _: took.append((time.perf_counter_ns() - began) // 1000),
            lambda failure: failed.append(failure.getErrorMessage()),
        )

    for _ in range(100):
        ask()
        await deferLater(reactor, 0.01)
    if failed:
        raise RuntimeError(failed[0])
    print("ready", flush=True)
    took.clear()
    loop = LoopingCall(ask)
    loop.start(1 / options.rate)
    await deferLater(reactor, options.seconds)
    loop.stop()
    await deferLater(reactor, 1)
    took.sort()
    figures = {
        "requests": len(took),
        "failed": len(failed),
        "p50_ms": percentile(took, 0.5),
        "p99_ms": percentile(took, 0.99),
        "max_ms": percentile(took, 1.0),
    }
    print(json.dumps(figures), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.roundtrips")
    parser.add_argument("ui", type=int)
    parser.add_argument("edge", type=int)
    parser.add_argument("apikey")
    parser.add_argument("edge_id")
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()

    in_reactor(lambda _: measure(options))


if __name__ == "__main__":
    main()
