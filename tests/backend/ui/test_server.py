from __future__ import annotations

import base64
import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from openems.backend.events import MetadataInitialized
from openems.backend.interfaces import IDebugLoggable, IUiWebsocket
from openems.common.role import Role
from tests.backend.ui.world import ID, World, failed

UNAVAILABLE = failed(1006, "This service is currently not available. Please try again later")


class ServerTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.server = self.world.server

    def test_interfaces(self) -> None:
        verifyObject(IUiWebsocket, self.server)
        verifyObject(IDebugLoggable, self.server)

    def test_t21_health_check(self) -> None:
        """ui.md 20 T21"""
        ui = self.world.connect()
        self.assertEqual(ui.connection.sent, [])
        ui.connection.close(1000, "Health check")
        self.assertEqual(self.server.sessions, {})

    def test_debug(self) -> None:
        self.assertEqual(self.server.debug_log(), "[Ui.Websocket] [monitor] NOT STARTED")
        self.world.connect()
        self.assertEqual(self.server.debug_metrics()["uiwebsocket0/Connections"], 1)

    def test_too_many_connections(self) -> None:
        self.world = World(max_connections=2)
        uis = [self.world.login(), self.world.login(), self.world.connect()]
        self.assertEqual([ui.connection.is_open for ui in uis], [True, True, False])
        self.assertTrue(uis[2].connection.dropped)
        uis[0].connection.lose()
        self.assertTrue(self.world.connect().connection.is_open)

    def test_refused_connection_leaves_the_others_alone(self) -> None:
        self.world = World(max_connections=1)
        ui = self.world.login()
        self.world.connect()
        self.assertEqual(list(self.world.server.sessions), [ui.session.id])

    def test_stop_answers_what_is_pending(self) -> None:
        """T047"""
        slow: Deferred[Any] = Deferred()
        self.world.handler.answers["getEdgesStatus"] = slow
        ui = self.world.login()
        ui.send("getEdgesStatus", {})
        ui.connection.take()
        stopped = Deferred.fromCoroutine(self.server.stop())
        self.assertEqual(ui.connection.take(), [UNAVAILABLE])
        self.world.clock.advance(0.05)
        self.successResultOf(stopped)
        self.assertEqual(ui.ask("getEdges", {"page": 0}), UNAVAILABLE)
        self.assertFalse(self.world.connect().connection.is_open)

    def test_stop_waits_a_moment_for_slow_readers(self) -> None:
        ui = self.world.login()
        ui.connection.slow = 1
        stopped = Deferred.fromCoroutine(self.server.stop())
        self.assertNoResult(stopped)
        self.world.clock.pump([0.05] * 21)
        self.successResultOf(stopped)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])


class LifeTest(TestCase):
    """With a real port."""

    def setUp(self) -> None:
        self.world = World(reactor=reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.world.server.stop()))

    async def _connect(self, port: int) -> Raw:
        wire: Raw = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Raw())
        key = base64.b64encode(os.urandom(16)).decode()
        wire.transport.write(
            f"GET /openems-backend?x=1 HTTP/1.1\r\nHost: ems.example.org\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        await wire.until(lambda data: b"\r\n\r\n" in data)
        self.assertTrue(wire.data.startswith(b"HTTP/1.1 101"))
        wire.data = wire.data.partition(b"\r\n\r\n")[2]
        return wire

    def test_stop_drops_without_a_close_frame(self) -> None:
        """T047, reality.md R21: the pending request is answered, then the connection ends without a Close frame."""

        async def scenario() -> None:
            self.world.handler.answers["getEdgesStatus"] = Deferred()
            port = await self.world.server.start(0, "127.0.0.1")
            assert port is not None
            wire = await self._connect(port)
            wire.text(f'{{"method":"authenticateWithToken","params":{{"token":"token-1"}},"id":"{ID}"}}')
            await wire.until(lambda data: b'"edges":[]' in data)
            wire.data = b""
            wire.text(f'{{"method":"getEdgesStatus","params":{{}},"id":"{ID}"}}')
            while not self.world.handler.requests:
                await wire.turn()
            await self.world.server.stop()
            await wire.lost
            self.assertEqual(wire.data[:1], b"\x81")
            self.assertIn(b'"code":1006', wire.data)
            length = wire.data[1] if wire.data[1] < 126 else int.from_bytes(wire.data[2:4], "big") + 2
            self.assertEqual(len(wire.data), 2 + length)

        return Deferred.fromCoroutine(scenario())  # type: ignore[return-value]

    def test_port_opens_when_metadata_is_initialized(self) -> None:
        """T007, ui.md 20 T21"""

        async def scenario() -> None:
            self.world.metadata.initialized = False
            self.assertIsNone(await self.world.server.start(0, "127.0.0.1"))
            self.assertIn("NOT STARTED", self.world.server.debug_log() or "")
            self.world.metadata.initialized = True
            self.world.events.publish(MetadataInitialized())
            self.assertIn("Connections: 0", self.world.server.debug_log() or "")

        return Deferred.fromCoroutine(scenario())  # type: ignore[return-value]


class Raw(Protocol):
    """A client that shows every byte it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.lost: Deferred[None] = Deferred()
        self._waiting: tuple[Any, Deferred[None]] | None = None

    def text(self, text: str) -> None:
        data = text.encode()
        head = (
            bytes([0x81, 0x80 | len(data)]) if len(data) < 126 else bytes([0x81, 0xFE]) + len(data).to_bytes(2, "big")
        )
        self.transport.write(head + b"\0\0\0\0" + data)

    def until(self, condition: Any) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self._waiting = (condition, done)
        self.dataReceived(b"")
        return done.addTimeout(5, reactor)

    def turn(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        reactor.callLater(0, done.callback, None)  # type: ignore[attr-defined]
        return done

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        if self._waiting is not None and self._waiting[0](self.data):
            done, self._waiting = self._waiting[1], None
            done.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


class TickTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.metadata.roles["edge0"] = Role.GUEST
        self.world.edges.connected.add("edge0")
        self.world.edges.values["edge0"] = {"A/x": 1}
        self.world.start()
        self.ui = self.world.login()
        self.ui.ask("subscribeEdges", {"edges": ["edge0"]})
        self.ui.subscribe("A/x")

    def test_slow_reader_catches_up(self) -> None:
        """ui.md 19, 38"""
        self.ui.connection.slow = 10**6
        for value in range(10):
            self.world.edges.values["edge0"]["A/x"] = value
            self.world.server.send_subscribed_channels("edge0")
            self.world.clock.advance(1)
        self.assertEqual(self.ui.pushes(), [])
        self.assertEqual(self.world.server.debug_metrics()["uiwebsocket0/Superseded"], 10)
        self.ui.connection.slow = 0
        self.world.clock.advance(1)
        self.assertEqual(self.ui.pushes(), [{"A/x": 9}])

    def test_role_withdrawn_without_an_event(self) -> None:
        del self.world.metadata.roles["edge0"]
        self.world.clock.pump([1.0] * 10)
        self.world.server.send_subscribed_channels("edge0")
        self.assertEqual(self.ui.pushes(), [])

    def test_removed_user_is_dropped(self) -> None:
        """ui.md 19, 4"""
        self.world.clock.pump([10.0] * 89)
        self.assertTrue(self.ui.connection.is_open)
        self.world.metadata.fail = RuntimeError("away")
        self.world.clock.pump([10.0] * 5)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(self.ui.connection.is_open)
        self.world.metadata.fail = None
        self.world.metadata.users.clear()
        self.world.clock.pump([10.0] * 100)
        self.assertTrue(self.ui.connection.dropped)
        self.assertEqual(self.world.server.sessions, {})
