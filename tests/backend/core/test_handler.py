"""Requests of users (core.md 2, 3, vectors 2.2, 12.4, 12.7; wire.md 9.3)."""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core.jsonrpcrequesthandler import JsonRpcRequestHandler
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.events import EventBus
from openems.backend.models import User
from openems.backend.roles import assert_user_role
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Request, new_id, raw
from openems.common.role import Language, Role
from openems.testing.services import FakeEdgeManager, FakeMetadata, FakeTimedata, decoded, now_of

USER = User(id="jane", user_id="7", name="Jane", language=Language.EN)
DAY = {"timezone": "UTC", "fromDate": "2026-04-01", "toDate": "2026-04-01"}


class HandlerCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.metadata = FakeMetadata(EventBus(), {"k0": "edge0", "k1": "edge1"})
        self.metadata.roles = {"edge0": Role.OWNER, "edge1": Role.ADMIN}
        self.edges = FakeEdgeManager()
        self.timedata = FakeTimedata()
        self.handler = self.make([self.timedata])

    def make(self, providers: list[FakeTimedata], **options: Any) -> JsonRpcRequestHandler:
        return JsonRpcRequestHandler(
            self.metadata, self.edges, TimedataManager(providers), reactor=self.clock, now=lambda: 0, **options
        )

    def begin(self, method: str, params: Any, timeout: int | None = None) -> Deferred[Any]:
        request = Request(method, raw(params), new_id(), timeout)
        return Deferred.fromCoroutine(self.handler.handle_request("test", USER, request))

    def ask(self, method: str, params: Any) -> Any:
        return decoded(now_of(self.begin(method, params)))

    def payload(self, method: str, params: Any, edge_id: str = "edge0") -> Any:
        self.inner_id = new_id()
        payload = {"jsonrpc": "2.0", "id": self.inner_id, "method": method, "params": params}
        return {"edgeId": edge_id, "payload": payload}

    def rpc(self, method: str, params: Any, edge_id: str = "edge0") -> Any:
        reply = self.ask("edgeRpc", self.payload(method, params, edge_id))
        self.assertEqual(reply["payload"]["id"], self.inner_id)
        return reply["payload"]["result"]

    def error(self, *arguments: Any) -> OpenemsError:
        return self.assertRaises(OpenemsError, *arguments)  # type: ignore[no-any-return]


class Fleet(HandlerCase):
    def test_unknown_method(self) -> None:
        self.assertEqual(self.error(self.ask, "foo", {}).code, 4001)

    def test_edges_status(self) -> None:
        self.metadata.get_edge("edge1").set_online(True)  # type: ignore[union-attr]
        result = self.ask("getEdgesStatus", {"edgeIds": ["edge0", "edge1"]})
        self.assertEqual(result, {"edge0": {"online": False}, "edge1": {"online": True}})
        self.assertEqual(self.error(self.ask, "getEdgesStatus", {"edgeIds": ["edge0", "edge9"]}).code, 1005)

    def test_values(self) -> None:
        self.edges.connected, self.edges.values = {"edge0"}, {"c/a": 1}
        result = self.ask("getEdgesChannelsValues", {"ids": ["edge1", "edge0"], "channels": ["c/b", "c/a"]})
        self.assertEqual(result, {"edge0": {"c/a": 1, "c/b": None}, "edge1": {"c/a": None, "c/b": None}})
        for channels, code in ((["nope"], 1000), ([5], 5009), ("c/a", 5007)):
            error = self.error(self.ask, "getEdgesChannelsValues", {"ids": ["edge0"], "channels": channels})
            self.assertEqual(error.code, code)

    def test_2_2_grid_schedule(self) -> None:
        self.edges.connected = {"edge0", "edge1"}
        entry = {"duration": 900, "activePowerSetPoint": -5}
        schedule = [{"startTimestamp": start, **entry} for start in (100, 200)]
        result = self.ask("setGridConnSchedule", {"id": "edge1", "schedule": schedule})
        [(_, _, role, sent)] = self.edges.requests
        params = decoded(sent.params)
        self.assertEqual(
            (sent.method, params["componentId"], role), ("componentJsonApi", "ctrlBalancingSchedule0", Role.ADMIN)
        )
        self.assertEqual([e["startTimestamp"] for e in params["payload"]["params"]["schedule"]], [200, 100])
        self.assertEqual((result["id"], result["result"]), (sent.id, {}))
        error = self.error(self.ask, "setGridConnSchedule", {"id": "edge0", "schedule": schedule})
        self.assertEqual((error.code, error.data), (1002, ["setGridConnSchedule", "OWNER"]))


class Roles(HandlerCase):
    def test_9_3(self) -> None:
        self.metadata.roles["edge1"] = None
        error = self.error(assert_user_role, self.metadata, USER, "edge1", Role.GUEST, "resource")
        self.assertEqual((error.code, error.data), (1005, ["resource", "jane"]))
        error = self.error(assert_user_role, self.metadata, USER, "edge0", Role.INSTALLER, "resource")
        self.assertEqual((error.code, error.data), (1002, ["resource", "OWNER"]))
        self.assertIs(assert_user_role(self.metadata, USER, "edge0", Role.GUEST, "resource"), Role.OWNER)

    def test_nothing_reaches_an_edge_without_a_role(self) -> None:
        self.edges.connected = {"edge9"}
        self.assertEqual(self.error(self.rpc, "foo", {}, "edge9").code, 1005)
        self.assertEqual(self.edges.requests, [])


class EdgeRpc(HandlerCase):
    def test_12_4_offline(self) -> None:
        self.assertEqual(self.error(self.rpc, "foo", {}).code, 3000)

    def test_12_4_forwarded(self) -> None:
        self.edges.connected = {"edge0"}
        self.assertEqual(self.rpc("foo", {}), {})

    def test_bytes_are_passed_on_verbatim(self) -> None:
        self.edges.connected = {"edge0"}
        self.edges.answer = Raw(b'{"b" : 1.50,"a":12345678901234567890}')
        inner = b'{"z" : 1.0,"a":98765432109876543210}'
        payload = b'{"jsonrpc":"2.0","method":"foo","params":%b,"id":"%b"}' % (inner, new_id().encode())
        reply = now_of(self.begin("edgeRpc", Raw(b'{"edgeId":"edge0","payload":%b}' % payload)))
        self.assertEqual(bytes(self.edges.requests[0][3].params), inner)
        self.assertIn(b'"result":{"b" : 1.50,"a":12345678901234567890}', bytes(reply))

    def test_the_outer_time_out_holds_inside(self) -> None:
        self.edges.connected = {"edge0"}
        now_of(self.begin("edgeRpc", self.payload("foo", {}), 7))
        self.assertEqual(self.edges.requests[0][3].timeout, 7)

    def test_12_4_no_app_center(self) -> None:
        inner = {"jsonrpc": "2.0", "id": new_id(), "method": "isKeyApplicable", "params": {"key": "x"}}
        error = self.error(self.rpc, "appCenter", {"payload": inner})
        self.assertEqual((error.code, error.message), (1, "No AppCenter Metadata provided."))

    def test_12_4_audit(self) -> None:
        self.edges.connected = {"edge0"}
        command = {"command": "ls", "sudo": True, "username": "u", "password": "p"}
        params = {
            "componentId": "_host",
            "payload": {"jsonrpc": "2.0", "method": "executeSystemCommand", "params": command},
        }
        self.rpc("componentJsonApi", params)
        values = {"Sudo": "true", "Command": "ls", "Username": "u", "Password": "[SET]", "Run in Background": "false"}
        self.assertEqual(self.metadata.audit, [("edge0", "jane", "Systemcommand: ls", values)])
        self.assertEqual(decoded(self.edges.requests[0][3].params), params)

    def test_audit_of_the_others_and_of_no_other_component(self) -> None:
        self.edges.connected = {"edge0"}
        for component, method, params in (
            ("_host", "executeSystemUpdate", {}), ("_host", "executeSystemRestart", {"type": "HARD"}),
            ("_host", "getSystemUpdateState", {}), ("other0", "executeSystemUpdate", {}),
        ):  # fmt: skip
            payload = {"jsonrpc": "2.0", "method": method, "params": params}
            self.rpc("componentJsonApi", {"componentId": component, "payload": payload})
        audit = [(teaser, values) for _, _, teaser, values in self.metadata.audit]
        self.assertEqual(audit, [("Systemupdate", {}), ("Systemrestart", {"type": "HARD"})])

    def test_a_malformed_component_request_fails_here(self) -> None:
        self.edges.connected = {"edge0"}
        for params, code in (({}, 5010), ({"componentId": "x"}, 5003), ({"componentId": "x", "payload": {}}, 5010)):
            self.assertEqual(self.error(self.rpc, "componentJsonApi", params).code, code)
        self.assertEqual(self.edges.requests, [])


class Configurations(HandlerCase):
    STORED = Raw(b'{"components":{"_sum":{"alias":"A","factoryId":"F","properties":{}}},"x" : 1.50,"factories":{}}')

    def config(self) -> bytes:
        return bytes(now_of(self.handler._edge_config("edge0")))

    def test_12_4_nothing_stored(self) -> None:
        self.assertEqual(self.rpc("getEdgeConfig", {}), {"components": {}, "factories": {}})

    def test_r1_stored_verbatim(self) -> None:
        self.metadata.configs["edge0"] = self.STORED
        self.edges.connected = {"edge0"}
        self.assertEqual(self.config(), bytes(self.STORED))
        self.assertEqual(self.edges.requests, [])

    def test_t027_asked_at_the_edge(self) -> None:
        self.edges.connected, self.edges.answer = {"edge0"}, self.STORED
        self.assertEqual(self.config(), bytes(self.STORED))
        [(_, _, role, sent)] = self.edges.requests
        self.assertEqual((sent.method, decoded(sent.params)["componentId"]), ("componentJsonApi", "_componentManager"))
        self.assertIs(role, Role.ADMIN)
        self.assertEqual(decoded(sent.params)["payload"]["method"], "getEdgeConfig")
        self.assertIsNotNone(sent.timeout)

    def test_r18_part_of_a_burst(self) -> None:
        """Answered at once; the edge is asked meanwhile, once."""
        part = raw({"components": {"a0": {"alias": "", "factoryId": "A", "properties": {}}}, "factories": {}})
        self.metadata.configs["edge0"] = part
        self.edges.connected, self.edges.answer = {"edge0"}, self.STORED
        self.assertEqual(self.config(), bytes(part))
        self.assertEqual([sent.method for _, _, _, sent in self.edges.requests], ["componentJsonApi"])

    def test_t027_the_edge_does_not_say(self) -> None:
        self.edges.connected, self.edges.answer = {"edge0"}, generic("No response")
        self.assertEqual(self.rpc("getEdgeConfig", {}), {"components": {}, "factories": {}})


class History(HandlerCase):
    def data(self, **changed: Any) -> dict[str, Any]:
        return {**DAY, "channels": ["a/X"], "resolution": {"value": 1, "unit": "Days"}, **changed}

    def test_12_4_no_answer(self) -> None:
        error = self.error(self.rpc, "queryHistoricTimeseriesData", self.data())
        self.assertEqual((error.code, error.message), (1, "Unable to query historic data. Result is null"))

    def test_the_three_shapes(self) -> None:
        self.timedata.data = {"a/X": {1_775_001_600_000: 7}}
        table = {"timestamps": ["2026-04-01T00:00:00Z"], "data": {"a/X": [7]}}
        self.assertEqual(self.rpc("queryHistoricTimeseriesData", self.data()), table)
        self.assertEqual(self.rpc("queryHistoricTimeseriesEnergyPerPeriod", self.data()), table)
        self.assertEqual(self.rpc("queryHistoricTimeseriesEnergy", self.data()), {"data": {"a/X": 7}})

    def test_12_4_pool(self) -> None:
        """Two of four distinct queries fit; the others are told at once (where Java lets them time out)."""
        self.timedata.data = {f"a/{n}": {} for n in range(4)}
        self.timedata.delay = self.three_seconds
        self.handler = self.make([self.timedata], pool_size=1, max_queue_size=1)
        asked = [
            self.begin("edgeRpc", self.payload("queryHistoricTimeseriesData", self.data(channels=[f"a/{n}"])), 12)
            for n in range(4)
        ]
        for rejected in asked[2:]:
            self.assertEqual(self.failureResultOf(rejected, OpenemsError).value.code, 4005)
        self.clock.advance(3)
        self.successResultOf(asked[0])
        self.assertNoResult(asked[1])
        self.clock.advance(3)
        self.successResultOf(asked[1])
        self.assertIn("RejectedExecutions:2", self.handler.debug_log() or "")

    async def three_seconds(self) -> None:
        waiting: Deferred[None] = Deferred()
        self.clock.callLater(3, waiting.callback, None)
        await waiting

    def test_12_7_metrics(self) -> None:
        self.handler = self.make([], pool_size=1)
        names = {"PoolSize": 0, "MaxPoolSize": 1, "Active": 0, "Pending": 0, "Completed": 0}
        expected = {f"coreJsonRpcRequestHandler0/{name}": value for name, value in names.items()}
        self.assertEqual(self.handler.debug_metrics(), expected)
        line = self.handler.debug_log() or ""
        self.assertTrue(
            line.startswith("[Core.JsonRpcRequestHandler] [monitor] Timedata-Executor: Pool: 0/1, Pending: 0")
        )
