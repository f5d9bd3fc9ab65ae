"""Requests of users, by method and how they ended; sessions and subscriptions (metrics.md 17)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics.requests import Requests
from openems.backend.metrics.servers import Servers
from openems.common.role import Role
from tests.backend.metrics.test_process import values
from tests.backend.ui.world import World


class TestUi(SynchronousTestCase):
    def setUp(self) -> None:
        self.requests = Requests()
        self.world = World(observe=self.requests.observer("uiwebsocket0"))
        self.world.server.observe_result = self.requests.result_observer("ui")
        self.servers = Servers({"ui": self.world.server.websocket}, self.world.server)

    def results(self) -> dict[tuple[str, ...], int]:
        return {(method, result): count for (_, method, result), count in self.requests.results.items() if count}

    def test_results(self) -> None:
        stranger = self.world.connect()
        stranger.ask("getEdges")
        stranger.ask("invented")
        self.assertEqual(self.results(), {("getEdges", "denied"): 1, ("other", "denied"): 1})
        self.assertEqual(self.requests.seconds[("uiwebsocket0", "getEdges")].count, 1)
        ui = self.world.login()
        ui.ask("getEdge", {"edgeId": "nope"})
        got = self.results()
        self.assertEqual(got[("authenticateWithPassword", "ok")], 1)
        self.assertEqual(got[("getEdge", "error")], 1)

    def test_cancelled(self) -> None:
        ui = self.world.login()
        self.world.handler.answers["getEdgesStatus"] = Deferred()
        ui.send("getEdgesStatus", {})
        ui.connection.lost()
        self.assertEqual(self.results()[("getEdgesStatus", "cancelled")], 1)

    def test_too_many(self) -> None:
        ui = self.world.login()
        for _ in range(100):
            ui.send("getEdges", {})
        got = self.results()
        self.assertGreater(got[("getEdges", "limited")], 0)
        self.assertEqual(sum(n for (method, _), n in got.items() if method == "getEdges"), 100)
        counted = values(self.servers.collect())[("jsonrpc_rate_limited_total", "ui")]
        self.assertEqual(counted, got[("getEdges", "limited")])

    def test_sessions_and_subscriptions(self) -> None:
        def counted() -> dict[tuple[str, ...], Any]:
            return values(self.servers.collect())

        self.world.connect()
        self.assertEqual(counted()[("sessions_active", "ui")], 0)
        ui = self.world.login()
        self.world.metadata.roles["edge0"] = Role.OWNER
        ui.ask("subscribeEdges", {"edges": ["edge0"]})
        ui.subscribe("_sum/EssSoc")
        got = counted()
        self.assertEqual(got[("sessions_active", "ui")], 1)
        self.assertEqual((got[("subscriptions_active", "edges")], got[("subscriptions_active", "channels")]), (1, 1))
        self.assertEqual(got[("subscriptions_active", "systemlog")], 0)
