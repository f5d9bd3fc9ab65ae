"""What the fleet does, as metrics (metrics.md 17)."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.edge.counters import SAMPLE
from openems.common.jsonrpc import new_id
from tests.backend.edge.world import START
from tests.backend.metrics.world import MetricsWorld

P = "openems_backend_"


def data(method: str, time: int, **values: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": {str(time): {f"_sum/{k}": v for k, v in values.items()}}}


def wrapped(edge_id: str, message: dict[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "edgeRpc", "params": {"edgeId": edge_id, "payload": message}}


class TestFleet(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = MetricsWorld()

    def test_states(self) -> None:
        self.assertEqual(self.world.values()[(f"{P}edges", "never")], 2)
        connection = self.world.direct("key0")
        connection.receive(data("timestampedData", START, State=3))
        values = self.world.values()
        self.assertEqual((values[(f"{P}edges", "online")], values[(f"{P}edges", "never")]), (1, 1))
        self.assertEqual(values[(f"{P}edges_sum_state", "fault")], 1)
        connection.lose()
        values = self.world.values()
        self.assertEqual((values[(f"{P}edges", "offline")], values[(f"{P}edges_sum_state", "fault")]), (1, 0))
        self.assertEqual(values[(f"{P}edge_connects_total", "direct")], 1)
        self.assertEqual(values[(f"{P}edge_disconnects_total", "closed")], 1)

    def test_replaced(self) -> None:
        self.world.direct("key0")
        self.world.direct("key0")
        values = self.world.values()
        self.assertEqual(values[(f"{P}edge_connects_total", "direct")], 2)
        self.assertEqual(values[(f"{P}edge_disconnects_total", "replaced")], 1)

    def test_refused(self) -> None:
        self.world.direct("nope")
        self.world.application("")
        values = self.world.values()
        self.assertEqual(values[(f"{P}edge_auth_failures_total", "apikey")], 1)
        self.assertEqual(values[(f"{P}edge_auth_failures_total", "application_id")], 1)

    def test_silent(self) -> None:
        self.world.direct("key0")
        self.assertEqual(self.world.values()[(f"{P}edges_silent",)], 0)
        self.world.clock.advance(1000)
        values = self.world.values()
        self.assertEqual(values[(f"{P}edges_silent",)], 1)
        self.assertEqual(values[(f"{P}edge_last_message_age_seconds", "1")], 1000)

    def test_data_is_counted_exactly_and_its_age_sampled(self) -> None:
        connection = self.world.direct("key0")
        for _ in range(SAMPLE + 3):
            connection.receive(data("timestampedData", START - 20_000, A=1, B=2))
        connection.receive(data("aggregatedData", START, A=1))
        values = self.world.values()
        self.assertEqual(values[(f"{P}edge_data_points_total", "timestamped")], 2 * (SAMPLE + 3))
        self.assertEqual(values[(f"{P}edge_data_points_total", "aggregated")], 1)
        self.assertEqual(values[(f"{P}edge_data_lag_seconds_count", "timestamped")], SAMPLE + 3)
        self.assertEqual(values[(f"{P}edge_data_lag_seconds_bucket", "timestamped", "10.0")], 0)
        self.assertEqual(values[(f"{P}edge_data_lag_seconds_bucket", "timestamped", "30.0")], SAMPLE + 3)
        method = ("websocket_requests_count", "Backend.Edge.Server", "timestampedData")
        self.assertEqual(values[method], SAMPLE + 3)
        self.assertEqual(values[("thread_pool_queue", "edges0")], 0)

    def test_6_2_both_doors_have_javas_labels(self) -> None:
        application = self.world.application("edges0")
        for _ in range(3):
            application.receive(wrapped("edge0", data("timestampedData", START, A=1)))
        application.receive(wrapped("edge0", {"jsonrpc": "2.0", "method": "edgeConfig", "params": {}}))
        application.receive(wrapped("edge0", {"jsonrpc": "2.0", "method": "made up", "params": {}}))
        application.receive({"jsonrpc": "2.0", "method": "connectedEdges", "params": {"edgeIds": [], "metrics": {}}})
        values = self.world.values()
        for method, count in (
            ("edgeRpc/timestampedData", 3),
            ("edgeRpc/edgeConfig", 1),
            ("edgeRpc/other", 1),
            ("connectedEdges", 1),
        ):
            self.assertEqual(values[("websocket_requests_count", "Edge.Manager", method)], count, method)
        self.assertNotIn("made up", self.world.text())

    def test_what_edges_ask(self) -> None:
        connection = self.world.direct("key0")
        for method in ("checkSetupPassword", "invented"):
            params = {"setupPassword": "x"}
            connection.receive({"jsonrpc": "2.0", "id": new_id(), "method": method, "params": params})
        values = self.world.values()
        asked = f"{P}jsonrpc_requests_total"
        self.assertEqual(values[(asked, "edge", "checkSetupPassword", "denied")], 1)
        self.assertEqual(values[(asked, "edge", "other", "error")], 1)

    def test_dropped(self) -> None:
        connection = self.world.direct("key0")
        connection.receive(data("timestampedData", 5, A=1))
        values = self.world.values()
        self.assertEqual(values[(f"{P}edge_dropped_points_total", "time")], 1)
        self.assertEqual(values[(f"{P}edge_dropped_points_total", "row")], 0)

    def test_a_consumer_that_raises_does_not_stop_others(self) -> None:
        class Broken:
            def consume_metrics(self, now: int, metrics: Any) -> None:
                raise RuntimeError("broken")

        self.world.manager.metrics_consumers.insert(0, Broken())
        application = self.world.application("edges0")
        told = {"edgeIds": [], "metrics": {"Connections": 7}}
        application.receive(json.dumps({"jsonrpc": "2.0", "method": "connectedEdges", "params": told}))
        self.assertEqual(self.world.values()[("websocket_connections", "edges0")], 7)
