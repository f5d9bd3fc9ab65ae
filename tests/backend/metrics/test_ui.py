"""Requests of users, by method and how they ended; sessions and subscriptions (metrics.md 17)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics.requests import Requests
from openems.backend.metrics.servers import Servers
from openems.common.role import Role
from tests.backend.b2b.sockets import WebsocketWorld, ask, subscribe
from tests.backend.b2b.world import basic
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


class TestB2b(SynchronousTestCase):
    """Several servers are one interface."""

    def setUp(self) -> None:
        self.worlds = [WebsocketWorld(request_limit=5), WebsocketWorld(number=1)]
        self.servers = Servers({})

    def counted(self) -> dict[tuple[str, ...], Any]:
        return values(self.servers.collect())

    def test_none(self) -> None:
        self.assertNotIn(("subscriptions_active", "b2b"), self.counted())

    def test_sessions_and_subscriptions(self) -> None:
        self.servers.add_b2b([world.server for world in self.worlds])
        self.assertEqual(self.counted()[("sessions_active", "b2b_ws")], 0)
        for world in self.worlds:
            for _ in range(2):
                connection = world.connect()
                subscribe(connection, 1, ["edge4", "edge7"], ["_sum/EssSoc"])
                world.clock.advance(0)
        subscribe(self.worlds[0].connect(), 1, ["edge4"], ["_sum/EssSoc"])
        self.worlds[0].clock.advance(0)
        self.worlds[1].passwords.wait = True
        self.worlds[1].connect(basic("bob", " blank "))
        got = self.counted()
        self.assertEqual(got[("sessions_active", "b2b_ws")], 5)
        self.assertEqual(got[("subscriptions_active", "b2b")], 9)
        self.assertEqual(got[("jsonrpc_rate_limited_total", "b2b_ws")], 0)
        for _ in range(8):
            ask(connection := self.worlds[0].connect(), "getEdgesStatus", {"edgeIds": []})
            connection.lose()
        limited = self.worlds[0].server.limited
        self.assertGreater(limited, 0)
        self.assertEqual(self.counted()[("jsonrpc_rate_limited_total", "b2b_ws")], limited)

    def test_traffic_and_load(self) -> None:
        self.servers.add_b2b([world.server for world in self.worlds])
        for number, world in enumerate(self.worlds, 1):
            traffic = world.server.websocket.traffic
            traffic.opened += number
            traffic.received_bytes += 10 * number
            traffic.sent_sizes[8] += number
            traffic.handshake_failures["timeout"] += number
            traffic.ended("slow", 1001)
            world.server.websocket.connections.add(_Loaded(number))  # type: ignore[arg-type]
        got = self.counted()
        self.assertEqual(got[("websocket_connections_opened_total", "b2b_ws")], 3)
        self.assertEqual(got[("websocket_received_bytes_total", "b2b_ws")], 30)
        self.assertEqual(got[("websocket_message_size_bytes_count", "sent", "b2b_ws")], 3)
        self.assertEqual(got[("websocket_handshake_failures_total", "b2b_ws", "timeout")], 3)
        self.assertEqual(got[("websocket_connections_closed_total", "b2b_ws", "slow")], 2)
        self.assertEqual(got[("websocket_close_codes_total", "1001", "b2b_ws")], 2)
        self.assertEqual(got[("jsonrpc_requests_in_progress", "b2b_ws")], 3)
        self.assertEqual(got[("jsonrpc_pending_replies", "b2b_ws")], 30)
        self.assertEqual(got[("websocket_send_buffer_bytes", "b2b_ws")], 300)
        self.assertEqual(got[("websocket_send_buffer_max_bytes", "b2b_ws")], 200)
        self.assertEqual(got[("websocket_producers_paused", "b2b_ws")], 2)


class _Loaded:
    def __init__(self, number: int) -> None:
        self.running = number
        self.pending = 10 * number
        self.waiting = 100 * number
