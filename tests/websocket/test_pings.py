"""Pings of many connections are spread, so that they and their pongs hold nobody up (wire.md 3.5)."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from openems.websocket.server import PING_INTERVAL, PINGS, WebSocketServer
from tests.websocket.test_fastroad import UPGRADE, Endpoint

PING = b"\x89\x00"


class Spread(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server = WebSocketServer("Test", Endpoint, reactor=self.clock)
        self.server._ping.start(PING_INTERVAL, now=False)
        self.addCleanup(self.server._ping.stop)
        self.protocols: list[Any] = []

    def connect(self, count: int) -> None:
        for _ in range(count):
            protocol: Any = self.server._factory.buildProtocol(None)
            protocol.makeConnection(StringTransport())
            protocol.dataReceived(UPGRADE)
            protocol.transport.clear()
            self.protocols.append(protocol)

    def pinged(self) -> int:
        return sum(protocol.transport.value().count(PING) for protocol in self.protocols)

    def test_a_few_at_once(self) -> None:
        self.connect(PINGS)
        self.clock.advance(PING_INTERVAL - 0.1)
        self.assertEqual(0, self.pinged())
        self.clock.advance(0.1)
        self.assertEqual(PINGS, self.pinged())

    def test_many_one_after_the_other(self) -> None:
        self.connect(3 * PINGS)
        self.clock.advance(PING_INTERVAL)
        self.assertEqual(PINGS, self.pinged())
        self.clock.advance(0.1)
        self.assertEqual(2 * PINGS, self.pinged())
        self.clock.pump([0.1] * 20)
        self.assertEqual([1] * len(self.protocols), [p.transport.value().count(PING) for p in self.protocols])

    def test_one_that_went_meanwhile(self) -> None:
        self.connect(2 * PINGS)
        self.clock.advance(PING_INTERVAL)
        waiting = [protocol for protocol in self.protocols if PING not in protocol.transport.value()]
        for protocol in waiting:
            self.server.closed(protocol)
        self.clock.advance(0.1)
        self.assertEqual(PINGS, self.pinged())
