"""Sections, Felix files, what is built of them."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor as reactor_
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.application import config, felix
from openems.application.backend import Backend
from openems.application.service import embedded, now_milliseconds
from openems.backend.b2b import subscriptions
from openems.backend.metadata.file.demo import create_demo_file
from openems.common.jsonrpc import new_id
from tests.application.ports import free_offset
from tests.backend.b2b.world import basic

reactor: Any = reactor_
DUMMY = "[metadata.dummy]\n"


class ConfigurationTest(SynchronousTestCase):
    def test_absent(self) -> None:
        made = config.parse(DUMMY, "f.toml")
        self.assertEqual((made.backend2backend_rest, made.backend2backend_websocket), (None, []))

    def test_defaults(self) -> None:
        made = config.parse(DUMMY + "[backend2backend.rest]\n[[backend2backend.websocket]]\n", "f.toml")
        rest, (websocket,) = made.backend2backend_rest, made.backend2backend_websocket
        assert rest is not None
        self.assertEqual((rest.port, rest.max_body, rest.request_limit), (8075, 1024 * 1024, None))
        self.assertEqual((websocket.port, websocket.max_values, websocket.max_connections), (8076, 50_000, 2000))
        self.assertIsNone(websocket.request_limit)

    def test_several(self) -> None:
        made = config.parse(
            DUMMY + "[[backend2backend.websocket]]\n[[backend2backend.websocket]]\nport = 8077\n", "f.toml"
        )
        self.assertEqual(
            {name: port for name, port in config.listeners(made).items() if "2" in name},
            {"backend2backend.websocket": 8076, "backend2backend.websocket 2": 8077},
        )

    def test_equal_ports(self) -> None:
        text = DUMMY + "[[backend2backend.websocket]]\n[[backend2backend.websocket]]\n"
        problem = self.assertRaises(config.BadConfiguration, config.parse, text, "f.toml").problems[0]
        self.assertIn("8076 is the port of [backend2backend.websocket] already", problem)

    def test_bad_values(self) -> None:
        for line in ("maxBody = 1", "requestLimit = 0", "prot = 8075", "port = 70000"):
            text = f"{DUMMY}[backend2backend.rest]\n{line}\n"
            self.assertRaises(config.BadConfiguration, config.parse, text, "f.toml")

    def test_nobody_takes_passwords(self) -> None:
        text = DUMMY + '[backend2backend.rest]\n[authentication]\npasswords = ["oauth"]\n'
        problem = self.assertRaises(config.BadConfiguration, config.parse, text, "f.toml").problems[0]
        self.assertIn("[backend2backend] needs passwords", problem)

    def test_felix(self) -> None:
        root = Path(self.mktemp())
        for name, text in {
            "Backend2Backend/Rest/4554366a.config": 'service.factoryPid="Backend2Backend.Rest"\nport=I"9075"\n',
            "Backend2Backend/Websocket/1.config": 'service.factoryPid="Backend2Backend.Websocket"\nport=I"9076"\n'
            'poolSize=I"10"\n',
            "Backend2Backend/Websocket/2.config": 'port=I"9077"\n',
            "Metadata/Dummy.config": "",
        }.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        made, notes = felix.load(root)
        rest = made.backend2backend_rest
        assert rest is not None
        self.assertEqual(rest.port, 9075)
        self.assertEqual([section.port for section in made.backend2backend_websocket], [9076, 9077])
        self.assertEqual(notes, [])
        (root / "Backend2Backend/Rest/2.config").write_text('port=I"9078"\n')
        _, notes = felix.load(root)
        self.assertEqual(len(notes), 1)
        self.assertIn("a second Backend2Backend.Rest", notes[0])


class WiringTest(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.state = os.path.abspath(self.mktemp())
        self.offset = free_offset()

    def backend(self, text: str) -> Backend:
        backend = Backend(config.parse(text, "test"), reactor=reactor, now=now_milliseconds)
        self.addCleanup(lambda: Deferred.fromCoroutine(backend.stop()))
        return backend

    def embedded(self, more: str) -> Backend:
        return self.backend(embedded(self.state, self.offset) + more)

    def write_metadata(self) -> None:
        create_demo_file(os.path.join(self.state, "metadata.json"), "secret", [("edge0", "key-of-edge-0-0123456789")])

    async def get(self, port: int, path: str) -> str:
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        return await deferToThread(_talk, port, request.encode())

    async def test_rest_is_there_before_users_are(self) -> None:
        """b2b.md 7, 25; T007"""
        backend = self.embedded("\n[backend2backend.rest]\n[[backend2backend.websocket]]\n")
        await backend.start()
        port = backend.ports["backend2backend.rest"]
        self.assertNotIn("backend2backend.websocket", backend.ports)
        self.assertIn("200 OK", await self.get(port, "/live"))
        self.assertTrue(backend.health()["backend2backend.rest"].ok)
        self.assertFalse(backend.health()["backend2backend.websocket"].ok)
        request = (
            f"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('admin', 'secret')}\r\n"
            "Connection: close\r\nContent-Length: 2\r\n\r\n{}"
        )
        self.assertIn("503 Service", await deferToThread(_talk, port, request.encode()))
        listening = Deferred.fromCoroutine(backend.listening())
        self.write_metadata()
        await listening.addTimeout(20, reactor)
        self.assertIn("400 Bad", await deferToThread(_talk, port, request.encode()))
        self.assertTrue(backend.health()["backend2backend.websocket"].ok)

    async def test_unchecked_logins_are_for_this_machine_only(self) -> None:
        """T031"""
        backend = self.backend(
            f'[backend]\noffset = {self.offset}\nstateDir = "{self.state}"\n{DUMMY}'
            "[backend2backend.rest]\n[[backend2backend.websocket]]\n"
        )
        await backend.start()
        await backend.listening()
        rest = backend.b2b.rest
        assert rest is not None
        self.assertEqual(rest._port.getHost().host, "127.0.0.1")
        (websocket,) = backend.b2b.websockets.values()
        self.assertEqual(websocket.websocket._port.getHost().host, "127.0.0.1")

    async def test_metrics(self) -> None:
        self.write_metadata()
        backend = self.embedded(
            f"\n[backend2backend.rest]\n[[backend2backend.websocket]]\nrequestLimit = 7\n"
            f"[[backend2backend.websocket]]\nport = 8077\n[metrics.prometheus]\nport = {free_offset()}\n"
        )
        await backend.start()
        await backend.listening()
        request = (
            f"POST /jsonrpc HTTP/1.1\r\nHost: x\r\nAuthorization: {basic('admin', 'secret')}\r\n"
            'Connection: close\r\nContent-Length: 54\r\n\r\n{"method":"getEdgesStatus","params":{"edgeIds":[]}}   '
        )
        self.assertIn("200 OK", await deferToThread(_talk, backend.ports["backend2backend.rest"], request.encode()))
        self.assertEqual(backend.b2b.rest.debug_metrics()["b2brest0/Completed"], 1)  # type: ignore[union-attr]
        lines = (await self.get(backend.ports["metrics.prometheus"], "/metrics")).splitlines()
        for part in (
            'websocket_connections{component="b2bwebsocket0"} 0.0',
            'websocket_connections{component="b2bwebsocket1"} 0.0',
            'openems_backend_websocket_connections_opened_total{interface="b2b_ws"} 0.0',
            'openems_backend_sessions_active{interface="b2b_ws"} 0.0',
            'openems_backend_subscriptions_active{kind="b2b"} 0.0',
            'openems_backend_jsonrpc_rate_limited_total{interface="b2b_rest"} 0.0',
            'interface="b2b_rest",method="getEdgesStatus",result="ok"',
        ):
            self.assertTrue(any(part in line for line in lines), part)

    async def test_first_request_with_the_handshake(self) -> None:
        """T087: in one packet, while the login takes its time"""
        backend = await self._with_websocket()
        await deferToThread(self._early, backend.ports["backend2backend.websocket"])

    def _early(self, port: int) -> None:
        id_ = new_id()
        text = json.dumps({"id": id_, "method": "getEdgesStatus", "params": {"edgeIds": ["edge0"]}})
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(_handshake() + _frame(text.encode()))
            data = b""
            while b'"result"' not in data:
                data += _some(connection)
        self.assertEqual(data.count(id_.encode()), 1)

    async def test_stop(self) -> None:
        """b2b.md 3.6"""
        backend = await self._with_websocket()
        port = backend.ports["backend2backend.websocket"]
        connection = await deferToThread(socket.create_connection, ("127.0.0.1", port), 20)
        self.addCleanup(connection.close)
        await deferToThread(connection.sendall, _handshake())
        self.assertIn(b" 101 ", await deferToThread(_some, connection))
        stopped = Deferred.fromCoroutine(backend.stop())
        self.assertEqual(await deferToThread(_some, connection), b"\x88\x02" + (1001).to_bytes(2, "big"))
        connection.close()
        await stopped

    async def test_reader_who_does_not_read(self) -> None:
        """b2b.md 7, 17: others get theirs, he is skipped, nothing piles up"""
        self.patch(subscriptions, "PERIOD", 0.02)
        self.patch(subscriptions, "FRESH", 0.0)
        backend = await self._with_websocket()
        server = backend.b2b.websockets["backend2backend.websocket"]
        channels = [f"component{n}/SomeChannelWithALongName" for n in range(20_000)]
        params = {"count": 1, "ids": ["edge0"], "channels": channels}
        text = json.dumps({"id": new_id(), "method": "subscribeEdgesChannels", "params": params})
        port = backend.ports["backend2backend.websocket"]
        connection = await deferToThread(socket.create_connection, ("127.0.0.1", port), 20)
        self.addCleanup(connection.close)
        await deferToThread(connection.sendall, _handshake() + _frame(text.encode()))
        for _ in range(400):
            if server.subscriptions.skipped > 10:
                break
            await _later(0.05)
        self.assertGreater(server.subscriptions.skipped, 10)
        (session,) = server.sessions.values()
        self.assertLess(session.connection.waiting, 3_000_000)

    async def _with_websocket(self) -> Backend:
        self.write_metadata()
        backend = self.embedded("\n[[backend2backend.websocket]]\n")
        await backend.start()
        await backend.listening()
        return backend


def _talk(port: int, request: bytes) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        data = b""
        while part := connection.recv(65536):
            data += part
    return data.decode()


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise AssertionError("closed")
    return data


def _handshake() -> bytes:
    return (
        "GET /any HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: {basic('admin', 'secret')}\r\n\r\n"
    ).encode()


def _frame(text: bytes) -> bytes:
    """A masked text frame; the mask is nought."""
    length = len(text)
    if length < 126:
        head = bytes([0x81, 0x80 | length])
    elif length < 65536:
        head = b"\x81\xfe" + length.to_bytes(2, "big")
    else:
        head = b"\x81\xff" + length.to_bytes(8, "big")
    return head + b"\0\0\0\0" + text


def _later(seconds: float) -> Deferred[None]:
    later: Deferred[None] = Deferred()
    reactor.callLater(seconds, later.callback, None)
    return later
