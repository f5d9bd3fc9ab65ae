"""The services wired together, over real sockets in one process."""

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.application import config
from openems.application.backend import Backend
from openems.application.service import embedded, now_milliseconds
from openems.backend.metadata.file.demo import create_demo_file
from openems.common.jsonrpc import Notification
from openems.testing.uiclient import UiClient
from openems.websocket.client import ClientProtocol, ReconnectingClient
from tests.application.ports import free_offset


class Edge:
    """Connects with an apikey; ``closed_with`` is the code of the Close frame."""

    def __init__(self, port: int, apikey: str) -> None:
        self.client = ReconnectingClient(
            f"ws://127.0.0.1:{port}",
            {"apikey": apikey},
            lambda connection: self,
            reactor=reactor,
            min_wait=60,
            max_wait=60,
            name="Edge",
        )

    def opened(self) -> None:
        pass

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Any) -> None:
        return None

    def notification(self, notification: Notification) -> None:
        pass

    def closed(self) -> None:
        pass


class TestBackend(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())
        self.offset = free_offset()
        self.closes: list[tuple[str, bool, int | None]] = []
        original = ClientProtocol.onClose
        closes = self.closes

        def on_close(protocol: Any, was_clean: bool, code: int | None, reason: str | None) -> None:
            closes.append((protocol.client.name, was_clean, protocol.remoteCloseCode))
            original(protocol, was_clean, code, reason)

        self.patch(ClientProtocol, "onClose", on_close)

    def backend(self) -> Backend:
        configuration = config.parse(embedded(self.state, self.offset), "test")
        backend = Backend(configuration, reactor=reactor, now=now_milliseconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        return backend

    def metadata(self) -> None:
        create_demo_file(
            os.path.join(self.state, "metadata.json"), "pass word", [("edge0", "key-of-edge-0-0123456789")]
        )

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, "waited in vain")
            await deferLater(reactor, 0.05)  # type: ignore[arg-type]

    async def test_edge_and_ui_and_the_end_of_both(self) -> None:
        self.metadata()
        backend = self.backend()
        await backend.start()
        await backend.listening()
        self.assertEqual(backend.ports["ui.websocket"], 8082 + self.offset)
        self.assertTrue(all(part.ok for part in backend.health().values()), backend.health())
        edge = Edge(backend.ports["edge"], "key-of-edge-0-0123456789")
        edge.client.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(edge.client.stop()))
        ui = UiClient(f"ws://127.0.0.1:{backend.ports['ui.websocket']}", reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(ui.close()))
        await ui.connect()
        await ui.login("admin", "pass word")
        await self.until(lambda: backend.edge_manager.is_connected("edge0"))
        page = await ui.request("getEdges", {"page": 0, "limit": 20, "searchParams": {}})
        self.assertEqual([(e["id"], e["isOnline"], e["role"]) for e in page["edges"]], [("edge0", True, "admin")])

        began = time.monotonic()
        await backend.stop()
        self.assertLess(time.monotonic() - began, 9)
        await self.until(lambda: len(self.closes) == 2)
        closes = {name: (was_clean, code) for name, was_clean, code in self.closes}
        self.assertEqual(closes["Edge"][1], 1001)
        # reality.md R21: after a Close frame the UI would not come back.
        self.assertEqual(closes["UiClient"], (False, None))

    async def test_ports_open_when_the_metadata_file_appears(self) -> None:
        """T003, T007"""
        backend = self.backend()
        await backend.start()
        listening = Deferred.fromCoroutine(backend.listening())
        self.assertNotIn("edge", backend.ports)
        health = backend.health()
        self.assertFalse(health["Metadata"].ok)
        self.assertIn(os.path.join(self.state, "metadata.json"), health["Metadata"].state)
        self.assertEqual(health["edge"].state, "not open")
        self.metadata()
        await listening.addTimeout(20, reactor)  # type: ignore[arg-type]
        self.assertIn("edge", backend.ports)

    async def test_second_backend_on_the_same_ports(self) -> None:
        self.metadata()
        first = self.backend()
        await first.start()
        await first.listening()
        self.state = os.path.abspath(self.mktemp())
        self.metadata()
        with self.assertRaises(CannotListenError):
            await self.backend().start()

    async def test_second_backend_on_the_same_state(self) -> None:
        self.metadata()
        first = self.backend()
        await first.start()
        await first.listening()
        self.offset = free_offset()
        with self.assertRaisesRegex(Exception, "metadata-state.json"):
            await self.backend().start()

    async def test_unchecked_logins_are_for_this_machine_only(self) -> None:
        """T031"""
        text = f'[backend]\noffset = {self.offset}\nstateDir = "{self.state}"\n[ui.websocket]\n[metadata.dummy]\n'
        backend = Backend(config.parse(text, "test"), reactor=reactor, now=now_milliseconds)
        self.assertEqual(backend._login_interface(None, "the UI"), "127.0.0.1")
        self.assertEqual(backend._login_interface("10.0.0.1", "the UI"), "10.0.0.1")
