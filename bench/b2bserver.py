"""The processes of bench.b2b: a bare Klein resource, a backend with edges and their values, the subscribers."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.stdio import StandardIO
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver

from bench.server import free_port, reactor
from openems.common.jsonrpc import Notification, Request, raw
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection


class Control(LineReceiver):
    delimiter = b"\n"

    def __init__(self, figures: Callable[[], dict[str, Any]]) -> None:
        self._figures = figures

    def lineReceived(self, line: bytes) -> None:
        self.say({"cpu_seconds": time.process_time(), **self._figures()})

    def say(self, value: Any) -> None:
        self.sendLine(json.dumps(value).encode())  # type: ignore[no-untyped-call]

    def connectionLost(self, reason: Any = None) -> None:
        if reactor.running:
            reactor.stop()


class Peer:
    """One WebSocket client; counts what comes."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self.arrived = 0
        self.bytes = 0
        self.opened_: Deferred[None] = Deferred()
        self.client = ReconnectingClient(
            f"ws://127.0.0.1:{port}", headers, self._made, reactor=reactor, min_wait=60, max_wait=60, name="Peer"
        )

    async def connect(self) -> Connection:
        self.client.start()
        await self.opened_.addTimeout(30, reactor)
        return self.connection

    def _made(self, connection: Connection) -> Peer:
        self.connection = connection
        return self

    def opened(self) -> None:
        self.opened_.callback(None)

    def received(self, text: bytes) -> bool:
        if b'"edgesCurrentData"' not in text[:60]:
            return False
        self.arrived += 1
        self.bytes = len(text)
        return True

    async def request(self, request: Request) -> None:
        return None

    def notification(self, notification: Notification) -> None:
        pass

    def closed(self) -> None:
        pass


async def bare(options: argparse.Namespace) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
    from klein import Klein
    from twisted.web.server import Site

    answer = options.answer.read_bytes()
    app: Any = Klein()

    @app.route("/jsonrpc", methods=["POST"])  # type: ignore[untyped-decorator]
    def jsonrpc(request: Any) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"content-length", b"%d" % len(answer))
        return answer

    site: Any = Site(app.resource())
    site.log = lambda request: None
    listening = reactor.listenTCP(0, site, interface="127.0.0.1")
    return {"rest": listening.getHost().port}, dict


async def backend(
    options: argparse.Namespace, edges: list[str], channels: list[str]
) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
    from openems.application import config
    from openems.application.backend import Backend

    path = Path(options.folder, "metadata.json")
    path.write_text(json.dumps({"edges": {edge: {"comment": edge, "apikey": f"key-of-{edge}"} for edge in edges}}))
    path.chmod(0o600)
    text = config.to_toml(
        {
            "backend": {"stateDir": str(options.folder), "interface": "127.0.0.1"},
            "health": {"enabled": False},
            "edge": {"port": free_port()},
            "metadata.file": {"path": str(path), "singleUser": True},
            "backend2backend.rest": {"port": free_port()},
            "backend2backend.websocket": [{"port": free_port()}],
        }
    )
    made = Backend(config.parse(text, "the benchmark"), reactor=reactor, now=lambda: time.time_ns() // 1_000_000)
    await made.start()
    await made.listening()
    reactor.addSystemEventTrigger("before", "shutdown", lambda: Deferred.fromCoroutine(made.stop()))
    for number, edge in enumerate(edges):
        connection = await Peer(made.ports["edge"], {"apikey": f"key-of-{edge}"}).connect()
        values = {channel: 1000 * number + n for n, channel in enumerate(channels)}
        connection.notify(Notification("timestampedData", raw({str(time.time_ns() // 1_000_000): values})))
    await deferLater(reactor, 0.5)
    server = made.b2b.websockets["backend2backend.websocket"]

    def figures() -> dict[str, Any]:
        subscriptions = server.subscriptions
        return {
            "pushed": subscriptions.pushed,
            "encoded": subscriptions.encoded,
            "skipped": subscriptions.skipped,
        }

    return {
        "rest": made.ports["backend2backend.rest"],
        "websocket": made.ports["backend2backend.websocket"],
    }, figures


async def watch(
    options: argparse.Namespace, edges: Callable[[int], list[str]], channels: Callable[[int], list[str]], login: str
) -> tuple[dict[str, Any], Callable[[], dict[str, Any]]]:
    peers = []
    for number in range(options.watchers):
        peer = Peer(options.port, {"Authorization": login})
        connection = await peer.connect()
        wanted = channels(10)
        if options.which == "different":
            wanted[-1] = f"meter9/Other{number}"
        params = {"count": 1, "ids": edges(50), "channels": wanted}
        await connection.request("subscribeEdgesChannels", params)
        peers.append(peer)
    return {"watchers": len(peers)}, lambda: {"arrived": sum(p.arrived for p in peers), "bytes": peers[0].bytes}


def run(
    options: argparse.Namespace, edges: Callable[[int], list[str]], channels: Callable[[int], list[str]], login: str
) -> None:
    async def go() -> None:
        if options.kind == "bare":
            first, figures = await bare(options)
        elif options.kind == "backend":
            first, figures = await backend(options, edges(options.edges), channels(options.channels))
        else:
            first, figures = await watch(options, edges, channels, login)
        control = Control(figures)
        StandardIO(control)
        control.say(first)

    def failed(failure: Any) -> None:
        failure.printTraceback(file=sys.stderr)
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(go()).addErrback(failed))
    reactor.run()
