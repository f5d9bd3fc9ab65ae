"""This edge application and this backend's manager, joined without sockets."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.application import CONFIRMATION
from openems.backend.events import OnlineSet
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import new_id
from openems.common.role import Role
from openems.testing.connections import FakeConnection
from openems.testing.services import now_of
from tests.backend.edge import world as backend
from tests.backend.edgeapplication.world import World, data, notification, request

KEYS = {"key0": "edge0", "key1": "edge1"}
NASTY: tuple[bytes, ...] = (
    b"{",
    b"",
    b"[]",
    b'{"jsonrpc":"2.0","method":"timestampedData","params":{"a":"\xff"}}',
    b'{"jsonrpc":"2.0","method":"timestampedData","params":{"1":{"c/a":"\\ud800"}}}',
    b'{"jsonrpc":"2.0","method":"timestampedData","params":{"1":{"c/a":NaN}},"x":"\\udfff"}',
    b'{"jsonrpc":"2.0","method":"timestampedData","params":{"1":{"c/a":' + b"[" * 900 + b"]" * 900 + b"}}}",
    b'{"jsonrpc":"2.0","method":"x","params":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
    b'{"jsonrpc":"2.0","method":"connectedEdges","params":{"edgeIds":[],"metrics":{}}}',
    b'{"jsonrpc":"2.0","method":"edgeRpc","params":{"edgeId":"edge1","payload":{"jsonrpc":"2.0","method":"timestampedData"'
    b',"params":{"1775383200000":{"c/a":666}}}}}',
    b'{"jsonrpc":"2.0","method":"updateMetadataCache","params":{"apikeysToEdgeIds":{}}}',
    b'{"jsonrpc":"2.0","method":"timestampedData","params":{"x":1}},"edgeId":"edge1"}',
    b'{"id":"1-1-1-1-1","result":{}}',
    b'{"id":"1-1-1-1-1","error":5}',
    b'{"jsonrpc":"2.0","method":"edgeRpc","params":{},"id":"1-1-1-1-1"}',
    b'{"jsonrpc":"2.0","method":"nope","params":{"a":"' + b"x" * 100_000 + b'"},"id":"1-1-1-1-2"}',
    b"\x00" * 1000,
)


class Joined(SynchronousTestCase):
    def setUp(self) -> None:
        self.backend = backend.World(KEYS)
        self.world = World(connect=False)
        self.connect()

    def connect(self, application_id: str = "edges0") -> None:
        self.down = self.world.connect()
        self.up = self.backend.application(application_id)
        self.pump()

    def pump(self) -> None:
        """Carry frames until nobody has one."""
        while self.up.sent or self.down.sent:
            for source, target in ((self.up, self.down), (self.down, self.up)):
                sent, source.sent[:] = list(source.sent), []
                for text in sent:
                    target.text_received(bytes(text))

    def value(self, edge_id: str) -> Any:
        return self.backend.manager.get_channel_values(edge_id, ["c/a"])["c/a"]

    def test_nothing_that_an_edge_sends_touches_another_one(self) -> None:
        good = self.world.edge("key1")
        for number, text in enumerate(NASTY):
            bad = self.world.edge("key0")
            bad.receive(text)
            good.receive(data(number))
            self.world.tick()
            self.pump()
            self.assertEqual(self.value("edge1"), number, text[:100])
            self.assertTrue(self.up.is_open and self.down.is_open and good.is_open, text[:100])
            self.assertEqual(good.sent, [])
        self.assertTrue(self.backend.online("edge1"))
        self.assertEqual(self.flushLoggedErrors(), [])

    def send(self, edge_id: str = "edge0") -> Deferred[Any]:
        asked = Deferred.fromCoroutine(
            self.backend.manager.send(edge_id, backend.USER, Role.OWNER, backend.request("foo"))
        )
        self.pump()
        return asked

    def test_a_request_and_its_answer(self) -> None:
        edge = self.world.edge()
        edge.receive(data(1))
        self.pump()
        asked = self.send()
        edge.answer(backend.envelope({"a": 12}))
        self.pump()
        self.assertEqual(json.loads(bytes(self.successResultOf(asked))), {"a": 12})

    def test_nonsense_as_an_answer(self) -> None:
        edge = self.world.edge()
        edge.receive(data(1))
        self.pump()
        for reply, code in (
            ({"result": {}}, 5003),
            ({"result": {"payload": {}}}, 5003),
            ({"error": {"code": 1, "message": "\ud800"}}, 1),
            ({"error": {"code": 3000, "data": [[[]]]}}, 3000),
            ({"error": "x"}, 1),
        ):
            asked = self.send()
            [message] = edge.take()
            edge.receive(json.dumps({"id": message["id"], **reply}))
            self.pump()
            self.assertEqual(self.failureResultOf(asked, OpenemsError).value.code, code, reply)

    def test_an_edge_that_never_answers_ends_at_the_manager_first(self) -> None:
        edge = self.world.edge()
        edge.receive(data(1))
        self.world.tick()
        self.pump()
        asked = self.send()
        self.backend.clock.advance(60)
        self.assertEqual(self.failureResultOf(asked, OpenemsError).value.code, 1)
        self.world.reactor.advance(400)
        self.pump()  # the late error is nobody's any more
        self.assertTrue(self.up.is_open)

    def test_an_edge_asks(self) -> None:
        edge = self.world.edge()
        for method, params, code in (
            ("checkSetupPassword", {"setupPassword": "setup-edge0"}, None),
            ("checkSetupPassword", {"setupPassword": "setup-edge1"}, 1003),
            ("nope", {}, 4001),
            ("edgeRpc", {"edgeId": "edge1"}, 4001),
        ):
            asked = request(method, params)
            edge.receive(asked)
            self.pump()
            [reply] = edge.take()
            self.assertEqual((reply["id"], reply.get("error", {}).get("code")), (asked["id"], code))

    def test_the_manager_restarts(self) -> None:
        """What was said meanwhile arrives; the edge is never offline at the new one."""
        edge = self.world.edge()
        edge.receive(data(1))
        self.world.tick()
        self.pump()
        self.up.lose()
        self.world.lose()
        self.assertEqual([e.online for e in self.backend.of(OnlineSet)], [True, False])
        for number in range(2, 50):
            edge.receive(data(number))
        self.backend = backend.World(KEYS)
        self.connect()
        self.assertEqual(self.value("edge0"), 49)
        self.assertEqual(len(self.backend.timedata.written), 48 + 1)  # and the application's own metrics
        self.backend.clock.advance(CONFIRMATION + 1)
        self.assertEqual([e.online for e in self.backend.of(OnlineSet)], [True])

    def test_an_edge_that_left_while_the_manager_was_away(self) -> None:
        """Its messages still arrive; then it is offline."""
        edge = self.world.edge()
        self.up.lose()
        self.world.lose()
        edge.receive(data(5))
        edge.lose()
        self.connect()
        self.assertEqual(len(self.backend.timedata.written), 1)
        self.backend.clock.advance(CONFIRMATION + 1)
        self.assertFalse(self.backend.online("edge0"))

    def test_keys_change_at_the_backend(self) -> None:
        now_of(self.backend.manager.start())
        edge = self.world.edge("key1")
        self.backend.metadata.set_keys({"key0": "edge0", "key9": "edge1"})
        self.pump()
        self.assertEqual(edge.close_code, 1000)
        self.assertFalse(self.world.edge("key1").is_open)
        self.assertTrue(self.world.edge("key9").is_open)

    def test_system_log(self) -> None:
        edge = self.world.edge()
        edge.receive(data(1))
        self.pump()
        self.backend.ui.sessions.add("u1")
        subscribe = backend.request("subscribeSystemLog", {"subscribe": True})
        told = Deferred.fromCoroutine(
            self.backend.manager.subscribe_system_log("edge0", backend.USER, Role.OWNER, "u1", subscribe)
        )
        self.pump()
        [asked] = edge.take()
        self.assertEqual(asked["params"]["payload"]["method"], "subscribeSystemLog")
        inner = {"payload": {"jsonrpc": "2.0", "id": new_id(), "result": {}}}
        edge.receive({"jsonrpc": "2.0", "id": asked["id"], "result": backend.envelope(inner)})
        self.pump()
        self.assertEqual(json.loads(bytes(self.successResultOf(told))), inner)  # wrapped twice, as it came
        line = {"time": "2026-04-05T12:02:00.5+02:00", "level": "INFO", "source": "s", "message": "ä"}
        edge.receive(notification("systemLog", {"line": line}))
        self.pump()
        self.assertEqual(len(self.backend.ui.sent), 1)


class Roaming(SynchronousTestCase):
    def test_between_two_applications(self) -> None:
        """It comes back through the other one, then through the first again, faster than lists are told."""
        manager = backend.World(KEYS)
        worlds = [World(connect=False), World(connect=False)]
        links: list[tuple[FakeConnection, FakeConnection]] = []
        for number, world in enumerate(worlds):
            links.append((world.connect(), manager.application(f"edges{number}")))

        def pump() -> None:
            while any(down.sent or up.sent for down, up in links):
                for down, up in links:
                    for source, target in ((up, down), (down, up)):
                        sent, source.sent[:] = list(source.sent), []
                        for text in sent:
                            target.text_received(bytes(text))

        pump()
        for turn, number in enumerate((0, 1, 0, 1, 0)):
            edge = worlds[number].edge()
            edge.receive(data(turn))
            pump()
            self.assertEqual(manager.manager.get_channel_values("edge0", ["c/a"])["c/a"], turn)
            asked = Deferred.fromCoroutine(
                manager.manager.send("edge0", backend.USER, Role.OWNER, backend.request("foo"))
            )
            pump()
            edge.answer(backend.envelope({"turn": turn}))
            pump()
            self.assertEqual(json.loads(bytes(self.successResultOf(asked))), {"turn": turn})
            edge.lose()
        self.assertEqual([e.online for e in manager.of(OnlineSet)], [True])
        for world in worlds:
            world.tick()
        pump()
        manager.clock.advance(CONFIRMATION + 1)
        self.assertFalse(manager.online("edge0"))
