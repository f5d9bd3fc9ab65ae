"""Simulated edges, this edge application and this backend over real sockets in one process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.application import config
from openems.application.backend import Backend
from openems.application.service import now_milliseconds
from openems.backend.edgeapplication.application import EdgeApplication
from openems.backend.metadata.file.demo import create_demo_file
from openems.common.jsonrpc import Notification, Request, raw
from openems.simulator.fleet import Fleet
from openems.testing.uiclient import UiClient
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection
from openems.websocket.server import WebSocketServer
from tests.application.ports import free_offset

KEYS = {"edge0": "key-of-edge-0-0123456789", "edge1": "key-of-edge-1-0123456789"}


class Peer:
    """A bare end of a WebSocket: keeps what it gets."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.texts: list[bytes] = []
        self.closes = 0

    def __call__(self, connection: Connection) -> Peer:
        self.connection = connection
        return self

    def opened(self) -> None:
        pass

    def received(self, text: bytes) -> bool:
        self.texts.append(text)
        return True

    async def request(self, request: Request) -> None:
        return None

    def notification(self, notification: Notification) -> None:
        pass

    def closed(self) -> None:
        self.connection = None
        self.closes += 1


class LiveCase(TestCase):
    timeout = 180

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())
        self.offset = free_offset()
        os.makedirs(self.state)

    async def until(self, condition: Callable[[], Any], seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, "waited in vain")
            await deferLater(reactor, 0.02)  # type: ignore[arg-type]

    async def backend(self) -> Backend:
        create_demo_file(os.path.join(self.state, "metadata.json"), "pass word", list(KEYS.items()))
        sections = {
            "backend": {"stateDir": self.state, "offset": self.offset, "interface": "127.0.0.1"},
            "health": {"enabled": False},
            "edge.manager": {},
            "ui.websocket": {},
            "metadata.file": {"path": os.path.join(self.state, "metadata.json")},
        }
        backend = Backend(config.parse(config.to_toml(sections), "test"), reactor=reactor, now=now_milliseconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        await backend.start()
        await backend.listening()
        return backend

    async def application(
        self, application_id: str = "edges0", port: int | None = None, **more: Any
    ) -> EdgeApplication:
        application = EdgeApplication(
            application_id,
            f"ws://127.0.0.1:{port or 8083 + self.offset}",
            reactor=reactor,
            port=0,
            interface="127.0.0.1",
            reconnect_wait=(0.1, 0.1),
            **more,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(application.stop()))
        application.start()
        await self.until(lambda: application.port)
        return application

    async def fleet(self, application: EdgeApplication, *edge_ids: str) -> Fleet:
        fleet = Fleet(
            f"ws://127.0.0.1:{application.port}",
            {edge_id: KEYS[edge_id] for edge_id in edge_ids or KEYS},
            reactor=reactor,
            now=now_milliseconds,
            cycle=0.2,
            min_wait=0.2,
            max_wait=0.3,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(fleet.stop()))
        await fleet.start()
        return fleet

    async def tab(self, backend: Backend) -> UiClient:
        ui = UiClient(f"ws://127.0.0.1:{backend.ports['ui.websocket']}", reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(ui.close()))
        await ui.connect()
        await ui.login("admin", "pass word")
        return ui

    def edge(self, application: EdgeApplication, edge_id: str = "edge0") -> tuple[Peer, ReconnectingClient]:
        peer = Peer()
        client = ReconnectingClient(
            f"ws://127.0.0.1:{application.port}",
            {"apikey": KEYS[edge_id]},
            peer,
            reactor=reactor,
            min_wait=60,
            max_wait=60,
            name="Edge",
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(client.stop()))
        client.start()
        return peer, client


class EndToEnd(LiveCase):
    async def test_what_a_user_does(self) -> None:
        backend = await self.backend()
        application = await self.application()
        fleet = await self.fleet(application)
        ui = await self.tab(backend)
        await self.until(lambda: backend.edge_manager.is_connected("edge0"))
        await self.until(lambda: fleet.edges[0].connection is not None)

        await ui.request("subscribeEdges", {"edges": ["edge0"]})
        await ui.edge_rpc("edge0", "subscribeChannels", {"count": 0, "channels": ["_sum/EssSoc", "no/Such"]})
        values = await ui.push("currentData", where=lambda p: p.get("_sum/EssSoc") is not None)
        self.assertEqual(list(values), ["_sum/EssSoc", "no/Such"])

        properties = [{"name": "minSoc", "value": 33}]
        result = await ui.edge_rpc(
            "edge0", "updateComponentConfig", {"componentId": "ctrlLimit0", "properties": properties}
        )
        self.assertEqual(result, {})
        changed = await ui.push(
            "edgeConfig", where=lambda p: p["components"]["ctrlLimit0"]["properties"]["minSoc"] == 33
        )
        self.assertIn("_sum", changed["components"])

        self.assertFalse(fleet.edges[0].log_subscribed)
        await ui.edge_rpc("edge0", "subscribeSystemLog", {"subscribe": True})
        self.assertTrue(fleet.edges[0].log_subscribed)
        line = await ui.push("systemLog", 15)
        self.assertIn("message", line["line"])

        await fleet.stop()
        await self.until(lambda: not backend.edge_manager.is_connected("edge0"))
        status = application.status()
        self.assertEqual((status.edges, status.dropped_messages, status.invalid_messages), (0, 0, 0))

    async def test_the_manager_restarts(self) -> None:
        backend = await self.backend()
        application = await self.application()
        fleet = await self.fleet(application)
        await self.until(lambda: backend.edge_manager.is_connected("edge1"))
        await self.until(lambda: all(edge.connection is not None for edge in fleet.edges))
        connections = [edge.connection for edge in fleet.edges]
        # Said once, with the first message: it does not change.
        constant = ["_meta/Version"]
        await self.until(lambda: backend.edge_manager.get_channel_values("edge0", constant)[constant[0]])
        await backend.stop()
        await self.until(lambda: not application.status().connected)
        before = application.status().messages_up
        await self.until(lambda: application.status().waiting_messages >= 10)
        again = await self.backend()
        await self.until(lambda: again.edge_manager.is_connected("edge0") and not len(application.outbox))
        self.assertIsInstance(again.edge_manager.get_channel_values("edge0", constant)[constant[0]], str)
        await self.until(lambda: again.edge_manager.messages > 20)
        status = application.status()
        self.assertEqual([edge.connection for edge in fleet.edges], connections)
        self.assertEqual((status.dropped_messages, status.reconnects), (0, 1))
        # Everything that was said since then is there.
        self.assertGreaterEqual(again.edge_manager.messages + 2, status.messages_up - before)

    async def test_two_applications_and_one_fleet(self) -> None:
        backend = await self.backend()
        applications = [await self.application("edges0"), await self.application("edges1")]
        manager = backend.edge_manager
        _, first_client = self.edge(applications[0])
        await self.fleet(applications[1], "edge1")
        await self.until(lambda: manager.is_connected("edge0") and manager.is_connected("edge1"))
        # It comes back through the other one while the first still believes in it.
        second, _ = self.edge(applications[1])
        await self.until(lambda: second.connection)
        second.connection.notify(Notification("timestampedData", raw({str(now_milliseconds()): {"c/a": 7}})))
        await self.until(lambda: manager.get_channel_values("edge0", ["c/a"]) == {"c/a": 7})
        await first_client.stop()
        await self.until(lambda: not applications[0].status().edges)
        # The manager was told so; the edge has its other connection.
        await self.until(lambda: [a.application_id for a in manager._applications if "edge0" in a.edges] == ["edges1"])
        self.assertTrue(manager.is_connected("edge0"))
        # One of them leaves: the other's edges stay.
        await applications[0].stop()
        await self.until(lambda: len(manager._applications) == 1)
        self.assertTrue(manager.is_connected("edge0") and manager.is_connected("edge1"))
        await applications[1].stop()
        await self.until(lambda: not manager.is_connected("edge0"))


class SlowPeers(LiveCase):
    async def manager(self) -> tuple[Peer, int, WebSocketServer]:
        peer = Peer()
        server = WebSocketServer("Manager", peer, reactor=reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return peer, await server.listen(0, "127.0.0.1"), server

    async def met(self, **more: Any) -> tuple[Peer, EdgeApplication]:
        manager, port, _ = await self.manager()
        keys = {"apikeysToEdgeIds": {key: edge_id for edge_id, key in KEYS.items()}}

        def opened() -> None:
            manager.connection.notify(Notification("updateMetadataCache", raw(keys)))

        manager.opened = opened  # type: ignore[method-assign]
        return manager, await self.application(port=port, **more)

    def numbers(self, texts: list[bytes]) -> list[int]:
        found = []
        for text in texts:
            params = json.loads(text)["params"]
            if "payload" in params:
                found.append(params["payload"]["params"]["n"])
        return found

    async def test_a_manager_that_stops_reading(self) -> None:
        manager, application = await self.met()
        edge, _ = self.edge(application)
        await self.until(lambda: edge.connection and manager.connection)
        manager.connection.pause_reading()
        number = 0
        filler = "x" * 20_000
        while not application.status().paused_edges:
            for _ in range(20):
                edge.connection.notify(Notification("x", raw({"n": number, "filler": filler})))
                number += 1
            await deferLater(reactor, 0)  # type: ignore[arg-type]
            self.assertLess(number, 5000)
        self.assertLess(application.status().waiting_bytes, 6_000_000)
        manager.connection.resume_reading()
        await self.until(lambda: len(self.numbers(manager.texts)) == number)
        self.assertEqual(self.numbers(manager.texts), list(range(number)))
        status = application.status()
        self.assertEqual((status.paused_edges, status.dropped_messages, status.waiting_bytes), (0, 0, 0))

    async def test_an_edge_that_stops_reading(self) -> None:
        manager, application = await self.met()
        edge, _ = self.edge(application)
        other, _ = self.edge(application, "edge1")
        await self.until(lambda: edge.connection and other.connection and manager.connection)
        await self.until(lambda: application.status().edges == 2)
        edge.connection.pause_reading()
        payload = {"jsonrpc": "2.0", "method": "x", "params": {"filler": "x" * 1_000_000}}
        for _ in range(40):
            manager.connection.notify(Notification("edgeRpc", raw({"edgeId": "edge0", "payload": payload})))
            await deferLater(reactor, 0.005)  # type: ignore[arg-type]
        await self.until(lambda: application.status().edges == 1)
        manager.connection.notify(
            Notification("edgeRpc", raw({"edgeId": "edge1", "payload": {**payload, "params": {"n": 1}}}))
        )
        await self.until(lambda: other.texts)
        edge.connection.resume_reading()

    async def test_what_waits_is_sent_at_the_end(self) -> None:
        manager, application = await self.met()
        edge, _ = self.edge(application)
        await self.until(lambda: edge.connection and manager.connection)
        manager.connection.pause_reading()
        for number in range(300):
            edge.connection.notify(Notification("x", raw({"n": number, "filler": "x" * 20_000})))
        await self.until(lambda: application.status().waiting_messages)
        await self.until(lambda: application.status().messages_up >= 300 or application.status().paused_edges)
        sent = application.status().messages_up
        reactor.callLater(0.3, manager.connection.resume_reading)  # type: ignore[attr-defined]
        await application.stop()
        await self.until(lambda: len(self.numbers(manager.texts)) >= sent)
        self.assertEqual(application.status().dropped_messages, 0)
