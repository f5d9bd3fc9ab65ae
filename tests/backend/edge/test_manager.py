"""The fleet (edge.md 3, 5, 9)."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.cache import GAP
from openems.backend.edge.manager import CACHE_GRACE, CONFIG_PATIENCE, CONFIG_QUIET, level_of
from openems.backend.events import ConfigReceived, LastmessageSet, OnlineSet, SumStateSet, VersionSet
from openems.common.data import DataKind
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import dumps
from openems.common.role import Level, Role
from openems.testing.services import decoded

from .world import START, USER, World, data, edge_rpc, envelope, notification, request


class DataOfAnEdge(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.edge = self.world.direct()

    def values(self, *channels: str) -> dict[str, Any]:
        return self.world.manager.get_channel_values("edge0", channels)

    def test_t025_the_first_message_is_kept(self) -> None:
        self.edge.receive(notification("edgeConfig", {"components": {}, "factories": {}}))
        row = {f"c/{i}": i for i in range(300)}
        self.edge.receive(data(row))
        self.assertEqual(self.values("c/0", "c/299"), {"c/0": 0, "c/299": 299})
        [(edge_id, written)] = self.world.timedata.written
        self.assertEqual((edge_id, written.kind, written.rows), ("edge0", DataKind.TIMESTAMPED, {START: row}))
        self.assertEqual(self.world.ui.new_values, ["edge0"])

    def test_r6_the_same_timestamp_twice(self) -> None:
        self.edge.receive(data({"c/a": 1}))
        self.edge.receive(data({"c/a": 2}))
        self.assertEqual(self.values("c/a"), {"c/a": 2})
        self.assertEqual(len(self.world.timedata.written), 2)

    def test_r7_an_empty_resend(self) -> None:
        self.edge.receive(notification("resendData", {}))
        self.assertEqual(self.world.timedata.written, [])

    def test_resend_is_history_only(self) -> None:
        self.edge.receive(data({"c/a": 1, "_sum/State": 3}, START - 86_400_000, "resendData"))
        self.assertEqual(self.values("c/a"), {"c/a": None})
        self.assertEqual(self.world.ui.new_values, [])
        self.assertEqual(self.world.of(SumStateSet), [])
        self.assertEqual(self.world.timedata.written[0][1].kind, DataKind.RESEND)

    def test_9_9_current_before_aggregated(self) -> None:
        self.edge.receive(data({"c/a": 1}))
        self.edge.receive(data({"c/a": 9, "c/b": 2}, method="aggregatedData"))
        self.assertEqual(list(self.values("c/b", "c/a", "c/z").items()), [("c/a", 1), ("c/b", 2), ("c/z", None)])
        self.edge.lose()
        self.assertEqual(self.values("c/b", "c/a"), {"c/a": None, "c/b": None})

    def test_r3_a_bare_nan_is_text(self) -> None:
        self.edge.receive(
            f'{{"jsonrpc":"2.0","method":"timestampedData","params":{{"{START}":{{"c/a":NaN,"c/b":1}}}}}}'
        )
        self.assertEqual(self.values("c/a", "c/b"), {"c/a": "NaN", "c/b": 1})

    def test_nonsense_costs_only_itself(self) -> None:
        far = START + 7_200_000
        self.edge.receive(
            notification(
                "timestampedData",
                {
                    str(START): {"c/a": 1, "noslash": 2, "c/o": {}},
                    "yesterday": {"c/a": 5},
                    str(far): {"c/a": 6},
                    "12": {"c/a": 7},
                    str(START + 1): [1],
                },
            )
        )
        self.assertEqual(self.values("c/a"), {"c/a": 1})
        self.assertEqual(self.world.manager.dropped, {"time": 3, "row": 1, "address": 1, "value": 1})
        self.edge.receive(data({"c/a": 2}, START + 1))
        self.assertEqual(self.values("c/a", "c/o"), {"c/a": 2, "c/o": None})

    def test_params_of_wrong_types(self) -> None:
        for params in (None, [], 1, "x", True, {"x": 1}):
            self.edge.receive(notification("timestampedData", params))
        self.assertTrue(self.edge.is_open)
        self.assertEqual(self.world.timedata.written, [])
        self.edge.receive(data({"c/a": 2}))
        self.assertEqual(self.values("c/a"), {"c/a": 2})

    def test_twenty_thousand_channels(self) -> None:
        self.edge.receive(data({f"c/{i}": i for i in range(20_000)}))
        self.assertEqual(self.values("c/1"), {"c/1": 1})
        self.assertTrue(self.edge.is_open)

    def test_the_cache_survives_a_short_absence(self) -> None:
        self.edge.receive(data({"c/a": 1}))
        self.edge.lose()
        self.world.clock.advance(CACHE_GRACE - 1)
        again = self.world.direct()
        self.assertEqual(self.values("c/a"), {"c/a": 1})
        again.lose()
        self.world.clock.advance(CACHE_GRACE + 1)
        self.world.direct()
        self.assertEqual(self.values("c/a"), {"c/a": None})

    def test_a_gap_empties(self) -> None:
        self.edge.receive(data({"c/a": 1}))
        self.world.clock.advance(GAP / 1000 + 1)
        self.edge.receive(data({"c/b": 1}, START + GAP + 1))
        self.assertEqual(self.values("c/a", "c/b"), {"c/a": None, "c/b": 1})

    def test_lastmessage_once_a_minute(self) -> None:
        for _ in range(121):
            self.edge.receive(data({"c/a": 1}, self.world.now()))
            self.world.clock.advance(1)
        self.assertEqual([e.lastmessage - START for e in self.world.of(LastmessageSet)], [0, 60_000, 120_000])


class SumState(SynchronousTestCase):
    def test_9_3_levels(self) -> None:
        for value, level in (
            (0, Level.OK), (1, Level.INFO), (2, Level.WARNING), (3, Level.FAULT), ("2", Level.WARNING),
            (2.7, Level.WARNING), (7, Level.FAULT), (-1, Level.FAULT), ("abc", Level.FAULT), (True, Level.FAULT),
            (float("nan"), Level.FAULT), (float("inf"), Level.FAULT), (10**400, Level.FAULT), ("9" * 5000, Level.FAULT),
        ):  # fmt: skip
            self.assertIs(level_of(value), level, repr(value)[:50])

    def test_9_3_null_objects_and_absence_change_nothing(self) -> None:
        world = World()
        edge = world.direct()
        edge.receive(data({"_sum/State": 2}))
        for row in ({"_sum/State": None}, {"_sum/State": {}}, {"c/a": 1}):
            edge.receive(data(row))
        self.assertEqual([(e.old, e.new) for e in world.of(SumStateSet)], [(None, Level.WARNING)])

    def test_aggregated_data_does_not_count(self) -> None:
        """It is minutes old (edge.md 8, 6)."""
        world = World()
        world.direct().receive(data({"_sum/State": 3, "_meta/Version": "2020.1.0"}, method="aggregatedData"))
        self.assertEqual(world.of(SumStateSet) + world.of(VersionSet), [])

    def test_9_3_versions(self) -> None:
        world = World()
        edge = world.direct()
        for version in ("2026.4.0-SNAPSHOT", "2018", "xyz", None, ""):
            edge.receive(data({"_meta/Version": version, "c/a": version}))
        self.assertEqual([str(e.new) for e in world.of(VersionSet)], ["2026.4.0-SNAPSHOT", "2018.0.0", "0.0.0"])
        self.assertEqual(len(world.timedata.written), 5)


class Links(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.manager = self.world.manager

    def send(self, edge_id: str = "edge0", timeout: int | None = None) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.manager.send(edge_id, USER, Role.OWNER, request("foo", {"n": 1}, timeout)))

    def test_t019_a_late_close_does_not_count(self) -> None:
        old = self.world.direct()
        new = self.world.direct()
        self.assertEqual(old.close_code, 1000)
        old.lose()
        self.world.clock.advance(60)
        self.assertEqual([e.online for e in self.world.of(OnlineSet)], [True])
        new.receive(data({"c/a": 1}, self.world.now()))
        self.assertEqual(self.manager.get_channel_values("edge0", ["c/a"]), {"c/a": 1})
        answered = self.send()
        new.answer(envelope({"ok": True}))
        self.assertEqual(decoded(self.successResultOf(answered)), {"ok": True})

    def test_application_and_direct_at_once(self) -> None:
        application = self.world.application()
        application.receive(edge_rpc("edge0", data({"c/a": 1})))
        direct = self.world.direct()
        direct.receive(data({"c/b": 2}))
        self.assertTrue(application.is_open)
        application.take()
        answered = self.send()
        self.assertEqual([m["method"] for m in direct.take()], ["authenticatedRpc"])
        direct.answer(envelope({}))
        self.successResultOf(answered)
        direct.lose()
        self.assertTrue(self.world.online())
        answered = self.send()
        [sent] = application.take()
        self.assertEqual((sent["method"], sent["params"]["edgeId"]), ("edgeRpc", "edge0"))
        self.assertEqual(sent["params"]["payload"]["method"], "authenticatedRpc")
        application.lose()
        self.assertEqual(self.failureResultOf(answered, OpenemsError).value.message, "Websocket connection closed")
        self.assertFalse(self.world.online())

    def test_9_6_not_connected(self) -> None:
        for edge_id in ("edge9", "edge0"):
            error = self.failureResultOf(self.send(edge_id), OpenemsError).value
            self.assertEqual((error.code, error.data), (3000, [edge_id]))

    def test_9_6_an_answer_without_payload(self) -> None:
        edge = self.world.direct()
        answered = self.send()
        edge.answer({})
        error = self.failureResultOf(answered, OpenemsError).value
        self.assertEqual((error.code, error.data), (5003, ["payload", "{}"]))
        self.assertEqual(error.message, "JSON [payload] ist not a member of JSON-Object [{}]")

    def test_9_6_the_connection_closes(self) -> None:
        edge = self.world.direct()
        answered = self.send()
        edge.lose()
        error = self.failureResultOf(answered, OpenemsError).value
        self.assertEqual((error.code, error.message), (1, "Websocket connection closed"))

    def test_time_out(self) -> None:
        self.world.direct()
        for timeout, seconds in ((5, 5), (None, 60), (0, 60), (-1, 60)):
            answered = self.send(timeout=timeout)
            self.world.clock.advance(seconds - 0.5)
            self.assertNoResult(answered)
            self.world.clock.advance(1)
            self.assertEqual(self.failureResultOf(answered, OpenemsError).value.code, 1)

    def test_who_asks(self) -> None:
        """The edge refuses a user without name; the payload keeps its bytes."""
        edge = self.world.direct()
        answered = self.send()
        [sent] = edge.messages()
        self.assertEqual(sent["params"]["user"], {"id": "user0", "name": "user0", "language": "DE", "role": "owner"})
        self.assertEqual((sent["params"]["payload"]["method"], sent["params"]["payload"]["params"]), ("foo", {"n": 1}))
        edge.receive({"jsonrpc": "2.0", "id": sent["id"], "result": envelope({"n": 12345678901234567890})})
        self.assertEqual(bytes(self.successResultOf(answered)), b'{"n":12345678901234567890}')

    def test_r11_errors_of_the_edge_keep_code_and_data(self) -> None:
        edge = self.world.direct()
        answered = self.send()
        [sent] = edge.messages()
        error = {"code": 2000, "message": "whatever", "data": ["noSuch0"]}
        edge.receive({"jsonrpc": "2.0", "id": sent["id"], "error": error})
        failure = self.failureResultOf(answered, OpenemsError).value
        self.assertEqual((failure.code, failure.data), (2000, ["noSuch0"]))


class Configurations(SynchronousTestCase):
    """R5: a burst reaches the UIs as its last member."""

    def setUp(self) -> None:
        self.world = World()
        self.edge = self.world.direct()

    def configure(self, number: int) -> None:
        self.edge.receive(notification("edgeConfig", {"components": {"n": number}, "factories": {}}))

    def pushed(self) -> list[int]:
        return [decoded(n.params)["components"]["n"] for _, n in self.world.ui.broadcasts]

    def test_r5_burst(self) -> None:
        for number in range(13):
            self.configure(number)
            self.world.clock.advance(0.15)
        self.world.clock.advance(CONFIG_QUIET)
        self.assertEqual(self.pushed(), [12])
        self.assertEqual(len(self.world.of(ConfigReceived)), 13)

    def test_endless_burst(self) -> None:
        for number in range(40):
            self.configure(number)
            self.world.clock.advance(0.1)
        self.assertGreaterEqual(len(self.pushed()), 1)
        self.assertLessEqual(len(self.pushed()), 1 + 40 * 0.1 / CONFIG_PATIENCE)

    def test_r1_verbatim(self) -> None:
        params = b'{"x" : 1.50, "factories":{}, "n":12345678901234567890}'
        self.edge.receive(b'{"jsonrpc":"2.0","method":"edgeConfig","params":%b}' % params)
        self.world.clock.advance(1)
        [(_, pushed)] = self.world.ui.broadcasts
        self.assertEqual(bytes(pushed.params), params)

    def test_the_last_one_of_an_edge_that_left(self) -> None:
        self.configure(1)
        self.edge.lose()
        self.world.clock.advance(60)
        self.assertEqual(self.pushed(), [1])


ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6)),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([str(START), "edgeId", "payload", "method", "params", "line", "_sum/State", "_meta/Version",
                         "edgeIds", "metrics", "level", "msg", "time"]) | st.text(max_size=4),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
METHODS = st.sampled_from(
    ["timestampedData", "aggregatedData", "resendData", "edgeConfig", "systemLog", "logMessage", "edgeRpc",
     "connectedEdges", "x"]
)  # fmt: skip


class Anything(SynchronousTestCase):
    """No params raise out of ``received``, close the connection, or spoil the next message."""

    @settings(max_examples=150, deadline=None)
    @given(METHODS, ANY, st.booleans())
    def test_direct(self, method: str, params: Any, row: bool) -> None:
        world = World()
        edge = world.direct()
        message = notification(method, {str(START): params} if row else params)
        edge._endpoint.received(dumps(message))
        edge.receive(message)
        self.healthy(world, edge, data({"c/good": 1}))

    @settings(max_examples=150, deadline=None)
    @given(METHODS, METHODS, ANY, st.booleans())
    def test_application(self, outer: str, method: str, params: Any, nested: bool) -> None:
        world = World()
        application = world.application()
        message = edge_rpc("edge0", notification(method, params)) if nested else notification(outer, params)
        application._endpoint.received(dumps(message))
        application.receive(message)
        self.healthy(world, application, edge_rpc("edge0", data({"c/good": 1})))

    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=40) | ANY.map(dumps))
    def test_bytes(self, text: bytes) -> None:
        world = World()
        world.direct()._endpoint.received(text)
        world.application()._endpoint.received(text)

    def healthy(self, world: World, connection: Any, good: Any) -> None:
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertTrue(connection.is_open)
        connection.receive(good)
        self.assertEqual(world.manager.get_channel_values("edge0", ["c/good"]), {"c/good": 1})
        world.clock.advance(10)
        self.assertEqual(self.flushLoggedErrors(), [])
