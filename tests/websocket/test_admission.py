"""New connections come a few in each turn of the reactor, however many wait."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor, tcp
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.websocket import admission
from openems.websocket.server import WebSocketServer


class FakePort:
    """As Twisted's port: takes up to ``numberAccepts``, and more the next time if all of these were there."""

    def __init__(self) -> None:
        self.numberAccepts = 100
        self.taken: list[int] = []

    def doRead(self) -> None:
        self.taken.append(self.numberAccepts)
        self.numberAccepts += 20


class TestPace(SynchronousTestCase):
    def test_never_more_than_the_number(self) -> None:
        port = FakePort()
        admission.pace(port, 7)
        for _ in range(5):
            port.doRead()
        self.assertEqual(port.taken, [7] * 5)

    def test_fewer_where_twisted_wants_fewer(self) -> None:
        port = FakePort()
        admission.pace(port, 7)
        port.numberAccepts = 1
        port.doRead()
        self.assertEqual(port.taken, [1])


class TestListener(TestCase):
    timeout = 20

    async def burst(self, shared: bool) -> None:
        """100 clients wait at the port: between any two turns at most ACCEPTS of them come in, and all do."""
        server = WebSocketServer("Test", lambda connection: None, reactor=reactor)
        port = await server.listen(0, "127.0.0.1", shared=shared)
        taken: list[int] = []
        build, pending = server._factory.buildProtocol, [0]

        def counting(address: Any) -> Any:
            pending[0] += 1
            return build(address)

        def turn(read: Any) -> Any:
            pending[0] = 0
            result = read()
            taken.append(pending[0])
            return result

        self.assertIsInstance(server._port, tcp.Port)
        server._factory.buildProtocol = counting
        paced = server._port.doRead
        server._port.doRead = lambda: turn(paced)
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
        try:
            while sum(taken) < 100:
                await deferLater(reactor, 0)  # type: ignore[arg-type]
            self.assertLessEqual(max(taken), admission.ACCEPTS)
        finally:
            for client in clients:
                client.close()
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]
            await server.stop()

    def test_port_of_ones_own(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.burst(False))

    def test_shared_port(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.burst(True))
