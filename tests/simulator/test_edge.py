"""What a simulated edge sends and answers: edge.md 4, reality.md R2, R11."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.common import jsonrpc
from openems.simulator.edge import SimulatedEdge
from openems.simulator.fleet import Fleet
from openems.testing.connections import FakeConnection

START = 1_775_383_200_000
USER = {"id": "jane@example.org", "name": "Jane", "language": "EN", "role": "admin"}


class Simulated(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def now(self) -> int:
        return START + int(self.clock.seconds() * 1000)

    def edge(self, **options: Any) -> SimulatedEdge:
        edge = SimulatedEdge(0, seed=1, reactor=self.clock, now=self.now, cycle=1.0, **options)
        edge.start()
        self.addCleanup(edge.stop)
        return edge

    def connect(self, edge: SimulatedEdge) -> FakeConnection:
        connection = FakeConnection({}, self.clock)
        connection.open(edge.endpoint(connection))
        return connection

    def seconds(self, count: int) -> None:
        self.clock.pump([1.0] * count)

    def ask(self, connection: FakeConnection, method: str, params: dict[str, Any], role: str = "admin") -> Any:
        user = {**USER, "role": role}
        payload = {"method": method, "params": params, "id": jsonrpc.new_id()}
        request_id = jsonrpc.new_id()
        connection.sent.clear()
        connection.receive(
            {"method": "authenticatedRpc", "params": {"user": user, "payload": payload}, "id": request_id}
        )
        return next(message for message in connection.messages() if message.get("id") == request_id)

    def test_configuration_snapshot_changes(self) -> None:
        edge = self.edge()
        connection = self.connect(edge)
        connection.lose()
        connection = self.connect(edge)
        self.assertEqual([m["method"] for m in connection.take()], ["edgeConfig"])
        self.seconds(1)
        (snapshot,) = connection.take()
        ((time, values),) = snapshot["params"].items()
        self.assertEqual((int(time), list(values)), (START + 1000, sorted(values)))
        self.assertIn("_meta/Version", values)
        self.seconds(1)
        (changes,) = connection.take()
        self.assertLess(len(next(iter(changes["params"].values()), {})), len(values))
        self.seconds(300)
        full = [m for m in connection.take() if m["method"] == "timestampedData" and m["params"]]
        self.assertIn(len(values), [len(next(iter(m["params"].values()))) for m in full])

    def test_first_start(self) -> None:
        """reality.md R5, R8: a burst of growing configurations, and two questions."""
        connection = self.connect(self.edge())
        self.seconds(200)
        sent = connection.take()
        sizes = [len(m["params"]["components"]) for m in sent if m["method"] == "edgeConfig"]
        self.assertEqual((len(sizes), sizes[0] < sizes[-1], sizes), (13, True, sorted(sizes)))
        asked = [m["params"]["payload"] for m in sent if m["method"] == "appCenter"]
        self.assertEqual([m["method"] for m in asked], ["getPossibleApps", "getInstalledApps"])

    def test_away_is_resent_and_warned_of(self) -> None:
        """edge.md 4.6, reality.md R7, R10: floating point rows, parts of five minutes, counters each hour only."""
        edge = self.edge(resend_wait=(300.0, 300.0))
        connection = self.connect(edge)
        self.seconds(400)
        connection.lose()
        self.seconds(3600)
        connection = self.connect(edge)
        self.seconds(1)
        live = self.snapshot(connection)
        self.assertEqual((live["ctrlBackend0/UnableToSend"], live["_sum/State"]), (1, 2))
        self.assertEqual([m for m in connection.take() if m["method"] == "resendData"], [])
        self.seconds(900)
        sent = connection.take()
        rows = {int(t): row for m in sent if m["method"] == "resendData" for t, row in m["params"].items()}
        self.assertEqual(set(rows), {START + n * 300_000 for n in range(14)})
        self.assertTrue(all(isinstance(value, float) for row in rows.values() for value in row.values()))
        hourly = [time for time, row in rows.items() if "_sum/ConsumptionActiveEnergy" in row]
        self.assertEqual(hourly, [time for time in rows if time % 3_600_000 == 0])
        self.assertEqual({len(m["params"]) for m in sent if m["method"] == "resendData"} - {0, 1, 2}, set())
        changes: dict[str, Any] = {}
        for message in sent:
            if message["method"] == "timestampedData":
                for values in message["params"].values():
                    changes.update(values)
        self.assertEqual((changes["ctrlBackend0/UnableToSend"], changes["_sum/State"]), (0, 0))

    def snapshot(self, connection: FakeConnection) -> dict[str, Any]:
        for message in connection.messages():
            if message["method"] == "timestampedData":
                return dict(next(iter(message["params"].values())))
        raise AssertionError("no snapshot")

    def test_a_slow_link(self) -> None:
        edge = self.edge()
        edge.slow = 5.0
        connection = self.connect(edge)
        self.seconds(20)
        self.assertEqual(len([m for m in connection.take() if m["method"] == "timestampedData"]), 4)
        asked = jsonrpc.new_id()
        payload = {"method": "getEdgeConfig", "params": {}, "id": jsonrpc.new_id()}
        connection.receive({"method": "authenticatedRpc", "params": {"user": USER, "payload": payload}, "id": asked})
        self.assertNotIn(asked, [m.get("id") for m in connection.messages()])
        self.seconds(5)
        self.assertIn(asked, [m.get("id") for m in connection.messages()])

    def test_the_log_subscription_ends_with_a_line_nobody_hears(self) -> None:
        edge = self.edge()
        connection = self.connect(edge)
        self.ask(connection, "subscribeSystemLog", {"subscribe": True})
        connection.lose()
        self.seconds(6)
        connection = self.connect(edge)
        self.seconds(11)
        self.assertNotIn("systemLog", [m["method"] for m in connection.messages()])

    def test_aggregates_are_of_their_window(self) -> None:
        connection = self.connect(self.edge())
        self.seconds(570)
        sent = connection.take()
        (aggregated,) = [m["params"] for m in sent if m["method"] == "aggregatedData"]
        ((time, row),) = aggregated.items()
        self.assertEqual(int(time), START)
        counter = "_sum/ConsumptionActiveEnergy"
        seen = [
            values[counter]
            for m in sent
            if m["method"] == "timestampedData"
            for at, values in m["params"].items()
            if int(at) < START + 300_000 and counter in values
        ]
        self.assertEqual(row[counter], max(seen))

    def test_backfill(self) -> None:
        """Day by day beside the live values, whose counters go on where it ends."""
        told: list[str] = []
        connection = self.connect(self.edge(backfill_days=2, backfilled=lambda: told.append("backfilled")))
        self.seconds(5)
        self.assertEqual(told, ["backfilled"])
        sent = connection.take()
        history = {int(t): row for m in sent if m["method"] == "resendData" for t, row in m["params"].items()}
        self.assertEqual(list(history), list(range(START - 2 * 86_400_000 + 300_000, START, 300_000)))
        counter = "_sum/ConsumptionActiveEnergy"
        counters = [row[counter] for row in history.values()]
        live = next(row for m in sent if m["method"] == "timestampedData" for row in m["params"].values())
        self.assertEqual(counters, sorted(counters))
        self.assertTrue(0 <= live[counter] - counters[-1] < 1000)

    def test_a_change_is_in_the_next_configuration(self) -> None:
        connection = self.connect(self.edge())
        params = {"componentId": "ctrlLimit0", "properties": [{"name": "min_Soc", "value": 20}]}
        self.assertEqual(self.ask(connection, "updateComponentConfig", params)["result"]["payload"]["result"], {})
        config = next(m for m in connection.messages() if m.get("method") == "edgeConfig")["params"]
        properties = config["components"]["ctrlLimit0"]["properties"]
        self.assertEqual((properties["min.Soc"], properties["_lastChangeBy"]), (20, "jane@example.org: Jane"))

    def test_refusals(self) -> None:
        connection = self.connect(self.edge())
        for method, params, role, error in (
            ("updateComponentConfig", {"componentId": "noSuch0", "properties": []}, "admin", (2000, ["noSuch0"])),
            ("updateComponentConfig", {}, "guest", (1002, ["updateComponentConfig", "GUEST"])),
            ("noSuch", {}, "admin", (1, ['Endpoint with method "noSuch" is not defined!'])),
            (
                "createComponentConfig",
                {"factoryPid": "X", "properties": [{"name": "id", "value": "ess0"}]},
                "admin",
                (1, ["A Component with id [ess0] is already existing!"]),
            ),
            (
                "setChannelValue",
                {"componentId": "ess0", "channelId": "NoSuch", "value": 1},
                "admin",
                (
                    1,
                    ["Channel [NoSuch] is not defined for ID [ess0]. Implementation [Simulator.EssSymmetric.Reacting]"],
                ),
            ),
            ("componentJsonApi", {"componentId": "_sum"}, "admin", (1, ["No response"])),
            ("updateComponentConfig", {"componentId": 1}, "admin", (1, ["No response"])),
        ):
            reply = self.ask(connection, method, params, role)["error"]
            self.assertEqual((method, reply["code"], reply["data"]), (method, *error))

    def test_system_log(self) -> None:
        connection = self.connect(self.edge())
        reply = self.ask(connection, "subscribeSystemLog", {"subscribe": True})["result"]
        self.assertEqual(reply["payload"]["result"]["payload"]["result"], {})
        connection.sent.clear()
        self.seconds(6)
        self.assertIn("systemLog", [m["method"] for m in connection.messages()])

    def test_a_set_value_is_held_for_a_minute(self) -> None:
        connection = self.connect(self.edge())
        self.seconds(3)
        self.ask(connection, "setChannelValue", {"componentId": "meter0", "channelId": "State", "value": 2})
        connection.take()
        self.seconds(1)
        self.assertEqual(self.snapshot(connection)["meter0/State"], 2)
        self.seconds(62)
        row: dict[str, Any] = {}
        for message in connection.take():
            for values in message["params"].values():
                row.update(values)
        self.assertEqual(row["meter0/State"], 0)

    def test_unknown_scenario(self) -> None:
        with self.assertRaises(ValueError):
            Fleet("ws://127.0.0.1:1", {}, reactor=self.clock, now=self.now, scenario="noSuch")
