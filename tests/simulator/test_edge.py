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


class Simulated(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def now(self) -> int:
        return START + int(self.clock.seconds() * 1000)

    def edge(self, *, backfill_days: float = 0.0) -> SimulatedEdge:
        edge = SimulatedEdge(0, seed=1, reactor=self.clock, now=self.now, cycle=1.0, backfill_days=backfill_days)
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
        user = {"id": "jane@example.org", "name": "Jane", "language": "EN", "role": role}
        payload = {"method": method, "params": params, "id": jsonrpc.new_id()}
        request_id = jsonrpc.new_id()
        connection.sent.clear()
        connection.receive(
            {"method": "authenticatedRpc", "params": {"user": user, "payload": payload}, "id": request_id}
        )
        return next(message for message in connection.messages() if message.get("id") == request_id)

    def test_configuration_snapshot_changes(self) -> None:
        connection = self.connect(self.edge())
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

    def test_away_is_resent_once_and_forward(self) -> None:
        """The counters of what is resent end where the live ones begin."""
        edge = self.edge()
        connection = self.connect(edge)
        self.seconds(5)
        connection.lose()
        self.seconds(1200)
        connection = self.connect(edge)
        sent = connection.take()
        rows = [row for m in sent if m["method"] == "resendData" for row in m["params"].values()]
        self.assertEqual(len(rows), 4)
        counters = [row["_sum/ConsumptionActiveEnergy"] for row in rows]
        self.seconds(1)
        live = next(m for m in connection.take() if m["method"] == "timestampedData")
        counters.append(next(iter(live["params"].values()))["_sum/ConsumptionActiveEnergy"])
        self.assertEqual(counters, sorted(counters))
        self.assertLess(counters[-1] - counters[0], 5_000)

    def test_aggregates_are_of_their_window(self) -> None:
        connection = self.connect(self.edge())
        self.seconds(301)
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
        connection = self.connect(self.edge(backfill_days=2))
        times = [int(t) for m in connection.take() if m["method"] == "resendData" for t in m["params"]]
        self.assertEqual(times, list(range(START - 2 * 86_400_000 + 300_000, START, 300_000)))

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
        self.ask(connection, "setChannelValue", {"componentId": "meter0", "channelId": "State", "value": 2})
        self.seconds(1)
        self.assertEqual(next(iter(connection.take()[-1]["params"].values()))["meter0/State"], 2)
        self.seconds(62)
        row: dict[str, Any] = {}
        for message in connection.take():
            for values in message["params"].values():
                row.update(values)
        self.assertEqual(row["meter0/State"], 0)

    def test_unknown_scenario(self) -> None:
        with self.assertRaises(ValueError):
            Fleet("ws://127.0.0.1:1", {}, reactor=self.clock, now=self.now, scenario="noSuch")
