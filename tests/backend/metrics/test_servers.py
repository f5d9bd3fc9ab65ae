"""What connections carry, over real sockets (metrics.md 17)."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.backend.metrics.servers import Servers
from openems.common.jsonrpc import Notification, Request, raw
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection, Refused
from openems.websocket.server import WebSocketServer

reactor: Any = _reactor
P = "openems_backend_"


class Endpoint:
    """Answers, unless the server does not want it."""

    def __init__(self, connection: Connection, refuse: bool = False) -> None:
        self.connection = connection
        self.refuse = refuse

    def opened(self) -> None:
        if self.refuse:
            raise Refused

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Request) -> Any:
        if request.method == "wait":
            await deferLater(reactor, 60)
        return {}

    def notification(self, notification: Notification) -> None:
        pass

    def closed(self) -> None:
        pass


class TestServers(TestCase):
    timeout = 20
    refuse = False

    async def setUp(self) -> None:
        self.server = WebSocketServer("Test", lambda c: Endpoint(c, self.refuse), reactor=reactor)
        self.port = await self.server.listen(0, "127.0.0.1")
        self.servers = Servers({"ui": self.server})
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.stop(None)))

    def values(self) -> dict[tuple[str, ...], float]:
        return {
            (
                sample.name.removeprefix(P),
                *(v for k, v in sorted(sample.labels.items()) if k != "interface"),
            ): sample.value
            for family in self.servers.collect()
            for sample in family.samples
        }

    async def client(self, connected: bool = True) -> ReconnectingClient:
        client = ReconnectingClient(
            f"ws://127.0.0.1:{self.port}", {}, Endpoint, reactor=reactor, min_wait=60, max_wait=60, name="Client"
        )
        client.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(client.stop()))
        while connected and client.connection is None:
            await deferLater(reactor, 0.01)
        return client

    async def until(self, key: tuple[str, ...], value: float) -> dict[tuple[str, ...], float]:
        for _ in range(300):
            if self.values()[key] == value:
                break
            await deferLater(reactor, 0.01)
        self.assertEqual(self.values()[key], value)
        return self.values()

    async def test_messages_and_bytes(self) -> None:
        client = await self.client()
        assert client.connection is not None
        await client.connection.request("x", {"text": "y" * 2000})
        values = self.values()
        self.assertEqual(values[("websocket_connections_opened_total",)], 1)
        self.assertEqual(values[("websocket_received_messages_total",)], 1)
        self.assertEqual(values[("websocket_sent_messages_total",)], 1)
        self.assertGreater(values[("websocket_received_bytes_total",)], 2000)
        self.assertEqual(values[("websocket_message_size_bytes_bucket", "received", "1024.0")], 0)
        self.assertEqual(values[("websocket_message_size_bytes_bucket", "received", "4096.0")], 1)
        self.assertEqual(values[("websocket_message_size_bytes_count", "sent")], 1)

    async def test_a_size_on_a_bound_belongs_to_it(self) -> None:
        client = await self.client()
        assert client.connection is not None
        empty = Notification("x", raw({"t": ""})).encode()
        for size in (256, 257):
            client.connection.notify(Notification("x", raw({"t": "y" * (size - len(empty))})))
        values = await self.until(("websocket_received_messages_total",), 2)
        self.assertEqual(values[("websocket_message_size_bytes_bucket", "received", "256.0")], 1)
        self.assertEqual(values[("websocket_message_size_bytes_bucket", "received", "1024.0")], 2)

    async def test_what_waits(self) -> None:
        client = await self.client()
        assert client.connection is not None
        client.connection.request("wait", {}).addErrback(lambda _: None)
        await self.until(("jsonrpc_requests_in_progress",), 1)
        served = next(iter(self.server.connections))
        served.request("wait", {}).addErrback(lambda _: None)
        self.assertEqual(self.values()[("jsonrpc_pending_replies",)], 1)
        self.assertEqual(self.server.pool("x")["x/Active"], 1)
        for connection in (client.connection, served):
            for running in tuple(connection._running):
                running.cancel()

    async def test_ends(self) -> None:
        client = await self.client()
        assert client.connection is not None
        client.connection.close(1000)
        values = await self.until(("websocket_connections_closed_total", "clean"), 1)
        self.assertEqual(values[("websocket_close_codes_total", "1000")], 1)
        client = await self.client()
        assert client.connection is not None
        client.connection.drop()
        values = await self.until(("websocket_connections_closed_total", "error"), 1)
        self.assertEqual(values[("websocket_close_codes_total", "1006")], 1)
        await self.client()
        for connection in tuple(self.server.connections):
            connection.close(1001)
        await self.until(("websocket_connections_closed_total", "server"), 1)
        await self.client()
        for protocol in self.server._protocols:
            protocol.last_pong = -1e9
        self.server._tick()
        await self.until(("websocket_connections_closed_total", "timeout"), 1)

    async def test_denied(self) -> None:
        self.refuse = True
        await self.client(connected=False)
        await self.until(("websocket_connections_closed_total", "denied"), 1)

    async def test_no_handshake(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
            await self.until(("websocket_handshake_failures_total", "refused"), 1)
        with socket.create_connection(("127.0.0.1", self.port)):
            pass  # somebody looks whether the port is open
        await deferLater(reactor, 0.05)
        values = self.values()
        self.assertEqual(values[("websocket_handshake_failures_total", "timeout")], 0)
        self.assertEqual(values[("websocket_connections_opened_total",)], 0)
        self.assertEqual(sum(v for k, v in values.items() if k[0] == "websocket_connections_closed_total"), 0)
