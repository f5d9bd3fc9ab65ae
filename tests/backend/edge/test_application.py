"""A Backend.Edge.App and the edges behind it (edge.md 3.2 to 3.6, vectors 9.4, 9.6)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.application import CONFIRMATION, MAX_METRICS, ApplicationEndpoint
from openems.backend.events import LastmessageSet, OnlineSet
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import loads, new_id
from openems.common.role import Role
from openems.testing.connections import FakeConnection
from openems.testing.services import now_of

from .world import START, USER, World, connected, data, edge_rpc, envelope, notification, request

KEYS = {"k1": "edge1", "k2": "edge2", "k3": "edge3"}


class ApplicationCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(KEYS)
        now_of(self.world.manager.start())
        self.application = self.world.application()
        self.greeting = self.application.take()

    def online(self) -> list[tuple[str, bool]]:
        events = [(e.edge_id, e.online) for e in self.world.of(OnlineSet)]
        self.world.seen.clear()
        return sorted(events)

    def values(self, edge_id: str) -> Any:
        return self.world.manager.get_channel_values(edge_id, ["c/a"])["c/a"]


class Keys(ApplicationCase):
    def test_t001_the_map_comes_first(self) -> None:
        self.assertEqual(self.greeting, [notification("updateMetadataCache", {"apikeysToEdgeIds": KEYS})])

    def test_t001_and_again_when_it_changes(self) -> None:
        keys = {**KEYS, "k4": "edge4"}
        self.world.metadata.set_keys(keys)
        self.assertEqual(self.application.take(), [notification("updateMetadataCache", {"apikeysToEdgeIds": keys})])

    def test_an_empty_map_is_sent_too(self) -> None:
        world = World({})
        self.assertEqual(world.application().take()[0]["params"], {"apikeysToEdgeIds": {}})

    def test_an_edge_that_is_deleted_is_offline(self) -> None:
        self.application.receive(connected("edge1", "edge2"))
        self.online()
        self.world.metadata.set_keys({"k2": "edge2"})
        self.assertEqual(self.online(), [("edge1", False)])

    def test_without_id(self) -> None:
        for headers in ({}, {"id": ""}):
            connection = FakeConnection(headers, self.world.clock)
            connection.open(ApplicationEndpoint(connection, self.world.manager))
            self.assertFalse(connection.is_open)
            self.assertEqual(connection.sent, [])


class ConnectedEdges(ApplicationCase):
    def test_9_4(self) -> None:
        self.application.receive(connected("edge1", "edge2"))
        self.application.receive(edge_rpc("edge1", data({"c/a": 1})))
        self.application.receive(edge_rpc("edge2", data({"c/a": 2})))
        self.application.receive(connected("edge1", "edge2"))
        self.online()
        self.world.timedata.written.clear()
        self.application.receive(connected("edge2", "edge3", metrics={"Connections": 2, "Foo": 1}))
        self.assertEqual([e.edge_id for e in self.world.of(LastmessageSet)], ["edge3"])
        self.assertEqual(self.online(), [("edge1", False), ("edge3", True)])
        self.assertEqual((self.values("edge1"), self.values("edge2")), (None, 2))
        [(edge_id, written)] = self.world.timedata.written
        self.assertEqual((edge_id, written.rows), ("backend0", {START: {"edges0/Connections": 2, "edges0/Foo": 1}}))

    def test_9_4_no_metrics_no_write(self) -> None:
        self.application.receive(connected("edge1", metrics={}))
        self.assertEqual(self.world.timedata.written, [])

    def test_9_4_without_metrics_nothing_happens(self) -> None:
        self.application.receive(notification("connectedEdges", {"edgeIds": ["edge1"]}))
        many = {f"m{number}": 1 for number in range(MAX_METRICS + 1)}
        for metrics in ({"x": "y"}, {"x": None}, {"x": True}, {"x": {}}, [], "x", many, {"x": 1e300}, {"x": 10**400}):
            self.application.receive(notification("connectedEdges", {"edgeIds": ["edge1"], "metrics": metrics}))
        self.assertEqual(self.online(), [])
        self.assertTrue(self.application.is_open)

    def test_nonsense_ids(self) -> None:
        ids: list[Any] = ["edge1", None, 5, {}, [], "edge9", "", "edge1", "x" * 100_000]
        self.application.receive(notification("connectedEdges", {"edgeIds": ids, "metrics": {}}))
        self.assertEqual(self.online(), [("edge1", True)])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_9_4_backend0_as_a_real_edge_gets_no_metrics(self) -> None:
        world = World({"k": "backend0"})
        world.application().receive(connected(metrics={"Connections": 1}))
        self.assertEqual(world.timedata.written, [])

    def test_the_application_leaves(self) -> None:
        self.application.receive(connected("edge1"))
        self.application.receive(edge_rpc("edge2", data({"c/a": 1})))
        self.online()
        self.application.lose()
        self.assertEqual(self.online(), [("edge1", False), ("edge2", False)])
        self.world.clock.advance(60)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_two_applications_and_one_edge(self) -> None:
        """It moved from one to the other; the old one's list comes last."""
        other = self.world.application("edges1")
        self.application.receive(connected("edge1"))
        other.receive(connected("edge1"))
        self.application.receive(connected())
        self.assertEqual(self.online(), [("edge1", True)])
        other.lose()
        self.assertEqual(self.online(), [("edge1", False)])

    def test_an_edge_that_went_back_to_the_first(self) -> None:
        """The newer application says 4004, and did not tell yet that the edge has left."""
        other = self.world.application("edges1")
        self.application.receive(connected("edge1"))
        other.receive(connected("edge1"))
        for connection in (self.application, other):
            connection.take()
        asked = Deferred.fromCoroutine(self.world.manager.send("edge1", USER, Role.OWNER, request("x")))
        self.assertEqual((len(other.take()), self.application.take()), (1, []))
        other.fail(OpenemsError(errors.JSONRPC_SEND_FAILED))
        [up] = self.application.take()
        payload = up["params"]["payload"]
        self.application.answer({"payload": {"jsonrpc": "2.0", "id": payload["id"], "result": envelope({"a": 1})}})
        self.assertEqual(loads(self.successResultOf(asked)), {"a": 1})

    def test_other_errors_are_the_edges_answer(self) -> None:
        other = self.world.application("edges1")
        self.application.receive(connected("edge1"))
        other.receive(connected("edge1"))
        self.application.take()
        asked = Deferred.fromCoroutine(self.world.manager.send("edge1", USER, Role.OWNER, request("x")))
        other.fail(OpenemsError(errors.BACKEND_EDGE_NOT_CONNECTED, "edge1"))
        self.assertEqual(self.failureResultOf(asked, OpenemsError).value.code, 3000)
        self.assertEqual(self.application.take(), [])


class OwnApplications(SynchronousTestCase):
    def test_without_the_secret(self) -> None:
        world = World(KEYS)
        world.manager.application_secret = "a secret"
        for headers in ({}, {"secret": "another"}, {"secret": "ä"}):
            connection = FakeConnection({"id": "edges0", **headers}, world.clock)
            connection.open(ApplicationEndpoint(connection, world.manager))
            self.assertEqual((connection.is_open, connection.sent), (False, []))
        connection = FakeConnection({"id": "edges0", "secret": "a secret"}, world.clock)
        connection.open(ApplicationEndpoint(connection, world.manager))
        self.assertEqual(len(connection.sent), 1)


class FirstMessage(ApplicationCase):
    def test_t025_data_before_the_list(self) -> None:
        self.application.receive(edge_rpc("edge1", data({"c/a": 1})))
        self.assertEqual(self.values("edge1"), 1)
        self.assertEqual(len(self.world.timedata.written), 1)
        # A list that was made before that message must not take it back.
        self.application.receive(connected())
        self.assertEqual(self.values("edge1"), 1)
        self.application.receive(connected("edge1"))
        self.world.clock.advance(CONFIRMATION + 1)
        self.assertEqual(self.online(), [("edge1", True)])

    def test_never_confirmed(self) -> None:
        self.application.receive(edge_rpc("edge1", data({"c/a": 1})))
        self.world.clock.advance(CONFIRMATION + 1)
        self.assertEqual(self.online(), [("edge1", False), ("edge1", True)])

    def test_an_unknown_edge(self) -> None:
        self.application.receive(edge_rpc("edge9", data({"c/a": 1})))
        self.assertEqual(self.world.timedata.written, [])
        self.assertTrue(self.application.is_open)


class RequestsOfEdges(ApplicationCase):
    def ask(self, params: Any, method: str = "edgeRpc") -> Any:
        self.application.receive({"jsonrpc": "2.0", "id": new_id(), "method": method, "params": params})
        [reply] = self.application.take()
        return reply

    def test_the_inner_id_comes_back(self) -> None:
        inner = new_id()
        payload = {
            "jsonrpc": "2.0",
            "id": inner,
            "method": "checkSetupPassword",
            "params": {"setupPassword": "setup-edge1"},
        }
        reply = self.ask({"edgeId": "edge1", "payload": payload})
        self.assertEqual(reply["result"], {"payload": {"jsonrpc": "2.0", "id": inner, "result": {}}})

    def test_9_6_unknown_methods(self) -> None:
        payload = {"jsonrpc": "2.0", "id": new_id(), "method": "foo", "params": {}, "timeout": 5}
        error = self.ask({"edgeId": "edge1", "payload": payload})["error"]
        self.assertEqual((error["code"], error["data"]), (4001, ["foo"]))
        error = self.ask({}, "bar")["error"]
        self.assertEqual((error["code"], error["data"]), (4001, ["bar"]))

    def test_an_unknown_edge(self) -> None:
        payload = {"jsonrpc": "2.0", "id": new_id(), "method": "foo", "params": {}}
        error = self.ask({"edgeId": "edge9", "payload": payload})["error"]
        self.assertEqual((error["code"], error["message"]), (1, "Unable to find edge with id [edge9]"))

    def test_nonsense(self) -> None:
        for params in ({}, {"edgeId": 5}, {"edgeId": "edge1"}, {"edgeId": "edge1", "payload": {}}):
            self.assertIn(self.ask(params)["error"]["code"], range(5000, 5034))
