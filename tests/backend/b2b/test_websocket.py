from __future__ import annotations

import base64
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from openems.backend.b2b import credentials
from openems.backend.b2b import session as module
from openems.backend.b2b.session import Session
from openems.backend.interfaces import IDebugLoggable, IEndpoint
from openems.common.jsonrpc import Request
from openems.testing.connections import FakeConnection
from tests.backend.b2b.sockets import WebsocketWorld, ask
from tests.backend.b2b.world import SlowHandler, basic

ID = "3c6c1b64-0a51-4f7c-9a44-6f4f2d0c1a11"
INNER = "9b1f0a77-3f7e-4a83-8a5d-3b1d2c4e5f05"


class AuthenticationTest(SynchronousTestCase):
    """b2b.md 3.2, 8"""

    def setUp(self) -> None:
        self.world = WebsocketWorld()

    def test_interfaces(self) -> None:
        verifyObject(IEndpoint, self.world.server.endpoint(FakeConnection()))
        verifyObject(IDebugLoggable, self.world.server)

    def test_closed_with_a_reason(self) -> None:
        bad = (None, "Bearer x", "Basic %%%", basic("alice", "wrong"), basic("nobody"), basic(" alice "))
        for number, authorization in enumerate(bad):
            connection = self.world.connect(authorization)
            self.assertEqual((connection.close_code, connection.close_reason), (1000, "Authentication failed"))
            self.assertEqual(connection.sent, [])
            self.assertEqual(self.world.server.unauthenticated, number + 1)
        self.assertEqual(self.world.server.sessions, {})

    def test_pages_of_other_sites(self) -> None:
        admits = self.world.server.websocket.admits
        for site, admitted in (("cross-site", False), ("same-site", False), ("same-origin", True), ("none", True)):
            self.assertEqual(admits({"sec-fetch-site": site}), admitted)
        self.assertTrue(admits({}))

    def test_good(self) -> None:
        text = base64.b64encode(b"alice:s3cret").decode()
        for authorization in (f"Basic {text}", f"Basic{text}", f"bASIC  {text} "):
            connection = self.world.connect(authorization)
            self.assertEqual(connection.sent, [])
            self.assertEqual(ask(connection, "getEdgesStatus", {"edgeIds": []}), {})

    def test_colon_in_the_password(self) -> None:
        self.world.passwords.passwords["alice"] = "a:b"
        self.assertIsNone(self.world.connect(basic("alice", "a:b")).close_code)

    def test_blanks_are_part_of_the_password(self) -> None:
        """b2b.md 7, 8"""
        self.assertIsNone(self.world.connect(basic("bob", " blank ")).close_code)
        self.assertEqual(self.world.connect(basic("bob", "blank")).close_code, 1000)

    def test_early_requests_wait(self) -> None:
        """T087"""
        self.world.passwords.wait = True
        connection = self.world.connect()
        connection.receive(Request("getEdgesStatus", b'{"edgeIds":["edge4"]}', ID))  # type: ignore[arg-type]
        connection.receive(Request("getEdgesStatus", b'{"edgeIds":[]}', INNER))  # type: ignore[arg-type]
        self.world.clock.advance(2)
        self.assertEqual(connection.sent, [])
        self.world.passwords.waiting[0].callback(None)
        self.assertEqual([message["id"] for message in connection.take()], [ID, INNER])

    def test_early_requests_of_a_stranger(self) -> None:
        self.world.passwords.wait = True
        connection = self.world.connect(basic("alice", "wrong"))
        connection.receive(Request("getEdgesStatus", b'{"edgeIds":["edge4"]}', ID))  # type: ignore[arg-type]
        self.world.passwords.waiting[0].callback(None)
        self.assertEqual((connection.close_code, connection.sent), (1000, []))

    def test_early_requests_are_few(self) -> None:
        self.patch(module, "MAX_EARLY", 2)
        self.world.passwords.wait = True
        connection = self.world.connect()
        for _ in range(3):
            connection.receive(Request("getEdgesStatus", b'{"edgeIds":[]}', ID))  # type: ignore[arg-type]
        self.assertEqual(
            [message["error"]["message"] for message in connection.take()], ["User is not authenticated. [UNKNOWN]"]
        )
        self.world.passwords.waiting[0].callback(None)
        self.assertEqual(len(connection.take()), 2)

    def test_early_requests_are_small(self) -> None:
        world = WebsocketWorld(max_message_size=10_000)
        world.passwords.wait = True
        connection = world.connect()
        for id_, size in ((ID, 9_000), (INNER, 2_000)):
            connection.receive({"id": id_, "method": "x" * size, "params": {}})
        self.assertEqual([(m["id"], m["error"]["code"]) for m in connection.take()], [(INNER, 4005)])
        world.passwords.waiting[0].callback(None)
        connection.take()
        world.server.handler = SlowHandler()
        for id_ in (ID, INNER):
            connection.receive({"id": id_, "method": "x" * 9_000, "params": {}})
        self.assertEqual(connection.sent, [])
        connection.lose()

    def test_nobody_can_tell(self) -> None:
        self.world.metadata.initialized = False
        connection = self.world.connect()
        self.assertEqual(connection.close_code, 1013)
        self.assertIn("currently not available", connection.close_reason)
        self.world.metadata.initialized = True
        self.world.passwords.wait = True
        connection = self.world.connect()
        self.world.clock.advance(credentials.TIMEOUT)
        self.assertEqual(connection.close_code, 1013)

    def test_login_that_fails_unforeseen(self) -> None:
        self.world.passwords.error = RuntimeError("x")
        self.assertEqual(self.world.connect().close_code, 1013)
        self.flushLoggedErrors(RuntimeError)

    def test_guesses_are_limited(self) -> None:
        codes = [self.world.connect(basic("alice", f"no{n}")).close_code for n in range(30)]
        self.assertEqual(codes[-1], 1013)
        self.assertLess(len(self.world.passwords.asked), 25)

    def test_lost_at_the_login(self) -> None:
        self.world.passwords.wait = True
        connection = self.world.connect()
        connection.lose()
        self.assertEqual(self.world.server.sessions, {})
        self.world.passwords.waiting[0].callback(None)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_too_many(self) -> None:
        world = WebsocketWorld(max_connections=1)
        first = world.connect()
        second = world.connect()
        self.assertEqual((second.close_code, second.close_reason), (1013, "Too many connections"))
        first.lose()
        self.assertIsNone(world.connect().close_code)

    def test_strangers_make_room(self) -> None:
        world = WebsocketWorld(max_connections=3)
        known = world.connect()
        world.passwords.wait = True
        oldest, other = (world.connect(basic("alice", "guess")) for _ in range(2))
        self.assertIsNone(world.connect().close_code)
        self.assertEqual((oldest.close_code, oldest.close_reason), (1013, "Too many connections"))
        self.assertEqual((known.close_code, other.close_code), (None, None))
        self.assertEqual((len(world.server.sessions), world.server.refused), (3, 1))

    def test_login_that_ends_after_making_room(self) -> None:
        """The client's own Close frame may take a while."""
        world = WebsocketWorld(max_connections=1)
        world.passwords.wait = True
        slow = world.connect()
        self.patch(slow._wire, "close", lambda code, reason: None)
        world.connect(basic("alice", "guess"))
        session = slow._endpoint
        self.assertEqual(len(world.server.sessions), 1)
        world.passwords.waiting[0].callback(None)
        self.assertIsNone(session.user)

    def test_name(self) -> None:
        """b2b.md 8, WsData"""
        session = Session(self.world.server, FakeConnection())
        self.assertEqual(str(session), "B2bWebsocket.WsData [user=UNDEFINED]")
        connection = self.world.connect()
        self.assertEqual(str(self.world.server.sessions[connection.id]), "B2bWebsocket.WsData [user=alice]")


class RequestTest(SynchronousTestCase):
    """b2b.md 8, WebSocket"""

    def setUp(self) -> None:
        self.world = WebsocketWorld()
        self.connection = self.world.connect()

    def ask(self, method: str, params: Any, **members: Any) -> Any:
        return ask(self.connection, method, params, **members)

    def test_errors(self) -> None:
        denied = "Access to this resource [getEdgesStatus] is denied. Role for User [alice] is not defined"
        self.assertEqual(
            self.ask("getEdgesStatus", {"edgeIds": ["edge9"]}), (1005, denied, ["getEdgesStatus", "alice"])
        )
        self.assertEqual(self.ask("nope", {}), (4001, "Unhandled JSON-RPC method [nope]", ["nope"]))
        self.assertEqual(
            self.ask("getEdgesStatus", {}), (5007, "JSON [edgeIds:{}] is not JSON-Array", ["edgeIds", "{}"])
        )
        payload = {"method": "foo", "params": {}}
        text = '{"method":"foo","params":{}}'
        self.assertEqual(
            self.ask("edgeRpc", {"edgeId": "edge4", "payload": payload}),
            (5033, f"JSON [id:{text}] is not a UUID member", ["id", text]),
        )
        payload["id"] = INNER
        self.assertEqual(
            self.ask("edgeRpc", {"edgeId": "edge7", "payload": payload}),
            (3000, "Edge [edge7] is not connected", ["edge7"]),
        )
        self.assertEqual(
            self.ask("setGridConnSchedule", {"id": "edge7", "schedule": []})[0::2],
            (1002, ["setGridConnSchedule", "GUEST"]),
        )
        entry = {"startTimestamp": 1, "duration": 1}
        code, _, data = self.ask("setGridConnSchedule", {"id": "edge4", "schedule": [entry]})
        self.assertEqual((code, data), (5001, ["activePowerSetPoint", '{"startTimestamp":1,"duration":1}']))

    def test_no_reply(self) -> None:
        for text in ("garbage", '{"id":"abc","method":"x","params":{}}', '{"method":"x","params":{}}', "[]", "{}"):
            self.connection.receive(text)
        self.assertEqual(self.connection.sent, [])
        self.assertEqual(self.ask("getEdgesStatus", {"edgeIds": []}), {})

    def test_timeouts(self) -> None:
        """b2b.md 7, 20: a message that tells, and an end without ``timeout``, too"""
        handler = self.world.server.handler = SlowHandler()
        self.connection.receive({"id": ID, "method": "x", "params": {}, "timeout": 1})
        self.connection.receive({"id": INNER, "method": "x", "params": {}})
        self.world.clock.advance(1)
        self.assertEqual([m["error"]["message"] for m in self.connection.take()], ["Request timed out after 1 seconds"])
        self.world.clock.advance(59)
        self.assertEqual([m["error"]["message"] for m in self.connection.take()], ["Timeout after [60 s]"])
        self.assertTrue(all(waiting.called for waiting in handler.waiting))
        self.assertEqual(self.world.server.debug_metrics()["b2bwebsocket0/Active"], 0)

    def test_lost(self) -> None:
        handler = self.world.server.handler = SlowHandler()
        self.connection.receive({"id": ID, "method": "x", "params": {}})
        self.assertEqual(self.world.server.debug_metrics()["b2bwebsocket0/Active"], 1)
        self.connection.lose()
        self.assertTrue(handler.waiting[0].called)
        self.assertEqual(handler.requests[0][0], "Backend2Backend.Websocket")

    def test_observed(self) -> None:
        seen: list[tuple[str, float]] = []
        world = WebsocketWorld(observe=lambda method, seconds: seen.append((method, seconds)))
        connection = world.connect()
        for method in ("getEdgesStatus", "subscribeEdgesChannels", "invented"):
            ask(connection, method, {})
        self.assertEqual([name for name, _ in seen], ["getEdgesStatus", "subscribeEdgesChannels", "other"])


class RateTest(SynchronousTestCase):
    """b2b.md 7, 7: as with REST, for each user, over all his connections"""

    def test_no_limit_unless_configured(self) -> None:
        connection = WebsocketWorld().connect()
        for _ in range(500):
            self.assertEqual(ask(connection, "getEdgesStatus", {"edgeIds": []}), {})

    def test_too_often(self) -> None:
        world = WebsocketWorld(request_limit=5)
        seen: list[tuple[str, str]] = []
        world.server.observe_result = lambda method, result: seen.append((method, result))
        first, second, other = world.connect(), world.connect(), world.connect(basic("bob", " blank "))
        good = [ask(first, "getEdgesStatus", {"edgeIds": []}) for _ in range(6)]
        self.assertEqual(good, [{}] * 6)
        for connection, method in ((first, "getEdgesStatus"), (second, "subscribeEdgesChannels")):
            self.assertEqual(ask(connection, method, {"count": 1, "ids": [], "channels": []})[0], 4005)
            self.assertIsNone(connection.close_code)
        self.assertEqual(seen[-2:], [("getEdgesStatus", "limited"), ("subscribeEdgesChannels", "limited")])
        self.assertEqual(ask(other, "getEdgesStatus", {"edgeIds": []}), {})
        self.assertEqual(world.server.debug_metrics()["b2bwebsocket0/Limited"], 2)
        world.seconds(1)
        self.assertEqual(ask(second, "getEdgesStatus", {"edgeIds": []}), {})
