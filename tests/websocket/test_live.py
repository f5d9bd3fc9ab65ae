"""WebSocket behaviour on real sockets: wire.md 9.2, and the troubles of proxies and slow peers."""

from __future__ import annotations

import json
import os
import struct
from random import Random
from typing import Any

from twisted.internet import defer, protocol, reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from openems.common.errors import generic
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Refused
from openems.websocket.server import WebSocketServer

U = "c48e2e28-09be-41d5-8e58-260d162991cc"
UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)


def as_generic(text: str) -> dict[str, Any]:
    return {"code": 1, "message": text, "data": [text]}


class Endpoint:
    """Does what the method's name says."""

    seen: Any = None

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.closed_calls = 0
        type(self).seen = self

    def opened(self) -> None:
        refuse = self.connection.headers.get("refuse")
        if refuse is not None:
            raise Refused(None if refuse == "drop" else int(refuse))

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Any) -> Any:
        if request.method == "ok":
            return {}
        if request.method == "raise":
            raise generic("thrown")
        if request.method == "bug":
            raise KeyError("secret")
        if request.method == "never":
            await Deferred()
        if request.method == "unserialisable":
            return {"x": object()}
        return None

    def notification(self, notification: Any) -> None:
        raise RuntimeError("handler failed")

    def closed(self) -> None:
        self.closed_calls += 1


class Raw(protocol.Protocol):
    """A client that sees bytes."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False
        self._waiting: list[tuple[Any, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._check()

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True
        self._check()

    def until(self, condition: Any) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.append((condition, waiting))
        self._check()
        return waiting.addTimeout(5, reactor)

    def _check(self) -> None:
        for entry in tuple(self._waiting):
            if entry[0](self):
                self._waiting.remove(entry)
                entry[1].callback(None)

    def frame(self, payload: bytes, *, opcode: int = 1, fin: bool = True, masked: bool = True) -> None:
        mask = os.urandom(4)
        size = len(payload)
        bit = 0x80 if masked else 0
        head = bytes([(0x80 if fin else 0) | opcode])
        if size < 126:
            head += bytes([bit | size])
        elif size < 65536:
            head += struct.pack(">BH", bit | 126, size)
        else:
            head += struct.pack(">BQ", bit | 127, size)
        if masked:
            payload = mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self.transport.write(head + payload)

    async def take(self) -> tuple[int, bytes]:
        """The next frame of the server: opcode, payload."""
        await self.until(
            lambda raw: raw.lost or (len(raw.data) >= 2 and len(raw.data) >= 2 + raw._extra() + raw._size())
        )
        if len(self.data) < 2:
            return -1, b""
        start = 2 + self._extra()
        end = start + self._size()
        opcode, payload = self.data[0] & 15, self.data[start:end]
        self.data = self.data[end:]
        return opcode, payload

    def _whole(self) -> bool:
        return len(self.data) >= 2 and len(self.data) >= 2 + self._extra() + self._size()

    def _extra(self) -> int:
        return {126: 2, 127: 8}.get(self.data[1], 0)

    def _size(self) -> int:
        extra = self._extra()
        return int.from_bytes(self.data[2 : 2 + extra], "big") if extra else self.data[1]


class Live(TestCase):
    timeout = 30

    async def serve(self, **options: Any) -> int:
        self.server = WebSocketServer("Test", Endpoint, reactor=reactor, **options)
        # --until-failure uses this object again.
        self.addCleanup(delattr, self, "server")
        self.addCleanup(lambda: defer.ensureDeferred(self.server.stop(None)))
        return await self.server.listen(0, "127.0.0.1")

    async def dial(
        self, head: str | None = None, *, path: str = "/", host: str = "x", more: str = "", **options: Any
    ) -> Raw:
        port = await self.serve(**options) if not hasattr(self, "server") else self.port
        self.port = port
        raw = await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Raw())
        self.addCleanup(raw.until, lambda r: r.lost)
        self.addCleanup(raw.transport.abortConnection)
        raw.transport.write((head or UPGRADE.format(path=path, host=host, more=more)).encode("iso-8859-1"))
        await raw.until(lambda r: b"\r\n\r\n" in r.data or r.lost)
        raw.head, _, raw.data = raw.data.partition(b"\r\n\r\n")
        return raw

    async def ask(self, raw: Raw, message: Any) -> Any:
        raw.frame(json.dumps(message).encode())
        _, payload = await raw.take()
        return json.loads(payload)

    async def still_there(self, raw: Raw) -> None:
        reply = await self.ask(raw, {"id": U, "method": "ok", "params": {}})
        self.assertEqual(reply, {"jsonrpc": "2.0", "id": U, "result": {}})

    async def test_requests(self) -> None:
        raw = await self.dial()
        self.assertTrue(raw.head.startswith(b"HTTP/1.1 101 Web Socket Protocol Handshake\r\n"))
        self.assertIn(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", raw.head)
        await self.still_there(raw)
        for method, error in (
            ("null", {"code": 4001, "message": "Unhandled JSON-RPC method [null]", "data": ["null"]}),
            ("raise", {"code": 1, "message": "thrown", "data": ["thrown"]}),
            ("bug", {"code": 1, "message": "Internal error: KeyError", "data": ["Internal error: KeyError"]}),
            (
                "unserialisable",
                {"code": 1, "message": "Internal error: TypeError", "data": ["Internal error: TypeError"]},
            ),
        ):
            reply = await self.ask(raw, {"id": U, "method": method, "params": {}})
            self.assertEqual(reply, {"jsonrpc": "2.0", "id": U, "error": error})
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    async def test_timeout_of_a_request(self) -> None:
        raw = await self.dial()
        reply = await self.ask(raw, {"id": U, "method": "never", "params": {}, "timeout": 1})
        self.assertEqual(reply["error"]["code"], 1)
        await self.still_there(raw)

    async def test_nonsense_gets_no_reply(self) -> None:
        raw = await self.dial()
        for text in (
            "garbage",
            "",
            "[]",
            '{"id":"abc","result":{}}',
            json.dumps({"id": U, "result": {}}),
            json.dumps({"method": "note", "params": {}}),
            json.dumps({"id": U, "method": "ok"}),
            json.dumps({"id": "1", "method": "ok", "params": {}}),
            json.dumps({"id": None, "method": "ok", "params": {}}),
            json.dumps({"id": U, "method": "ok", "params": []}),
        ):
            raw.frame(text.encode())
        raw.frame(b"\x00\x01", opcode=2)
        await self.still_there(raw)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_frames(self) -> None:
        raw = await self.dial()
        request = json.dumps({"id": U, "method": "ok", "params": {"ä": "€"}}, ensure_ascii=False).encode()
        raw.frame(b"hi", opcode=9)
        self.assertEqual(await raw.take(), (10, b"hi"))
        split = request.index("€".encode()) + 1
        raw.frame(request[:split], fin=False)
        raw.frame(request[split:], opcode=0)
        self.assertEqual((await raw.take())[0], 1)
        raw.frame(request, masked=False)
        self.assertEqual((await raw.take())[0], 1)
        large = json.dumps({"id": U, "method": "ok", "params": {"x": "y" * 200_000}}).encode()
        raw.frame(large)
        raw.frame(request)
        self.assertEqual((await raw.take())[0], 1)
        self.assertEqual((await raw.take())[0], 1)

    async def test_byte_by_byte(self) -> None:
        raw = await self.dial()
        kept, raw.transport.write = raw.transport.write, lambda data: kept_bytes.extend(data)
        kept_bytes = bytearray()
        raw.frame(json.dumps({"id": U, "method": "ok", "params": {}}).encode())
        raw.transport.write = kept
        for byte in kept_bytes:
            raw.transport.write(bytes([byte]))
            await deferLater(reactor, 0)
        self.assertEqual((await raw.take())[0], 1)

    async def test_frames_in_any_pieces(self) -> None:
        """Order and content stay, wherever TCP cuts the stream."""
        raw = await self.dial()
        pieces, raw.transport.write = raw.transport.write, lambda data: stream.extend(data)
        stream = bytearray()
        ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(60)]
        for number, request_id in enumerate(ids):
            raw.frame(json.dumps({"id": request_id, "method": "ok", "params": {"x": "y" * number * 40}}).encode())
            if number % 7 == 0:
                raw.frame(b"p", opcode=9)
        raw.transport.write = pieces
        random = Random(4)
        position = 0
        while position < len(stream):
            size = random.choice((1, 2, 3, 5, 100, 1500, 4000))
            raw.transport.write(bytes(stream[position : position + size]))
            position += size
            await deferLater(reactor, 0)
        seen = []
        while len(seen) < len(ids):
            opcode, payload = await raw.take()
            if opcode == 1:
                seen.append(json.loads(payload)["id"])
        self.assertEqual(seen, ids)

    async def test_first_frame_with_the_handshake(self) -> None:
        """T087 of the floor: early frames are served."""
        body = json.dumps({"id": U, "method": "ok", "params": {}}).encode()
        frame = bytes([0x81, len(body)]) + body
        head = UPGRADE.format(path="/", host="x", more="") + frame.decode("iso-8859-1")
        raw = await self.dial(head)
        self.assertEqual(json.loads((await raw.take())[1])["result"], {})

    async def test_invalid_utf8(self) -> None:
        raw = await self.dial()
        raw.frame(b"\xff\xfe")
        opcode, payload = await raw.take()
        self.assertEqual(
            (opcode, payload[:2], payload[2:]), (8, b"\x03\xef", b"Received text is no valid utf8 string!")
        )

    async def test_protocol_errors(self) -> None:
        for frames in (
            [(b"", 3, True)],
            [(b"", 0, True)],
            [(b"a", 1, False), (b"b", 1, True)],
            [(b"x" * 126, 9, True)],
        ):
            raw = await self.dial()
            for payload, opcode, fin in frames:
                raw.frame(payload, opcode=opcode, fin=fin)
            opcode, payload = await raw.take()
            self.assertEqual((opcode, payload[:2]), (8, b"\x03\xea"))

    async def test_too_big(self) -> None:
        raw = await self.dial(max_message_size=1000)
        raw.frame(b"x" * 2000)
        opcode, payload = await raw.take()
        self.assertEqual((opcode, payload[:2]), (8, struct.pack(">H", 1009)))

    async def test_headers(self) -> None:
        await self.dial(more="apikey: a\r\nAPIKEY: b\r\nspaced:   x y   \r\n")
        self.assertEqual(Endpoint.seen.connection.headers["apikey"], "a; b")
        self.assertEqual(Endpoint.seen.connection.headers["spaced"], "x y")

    async def test_any_path_and_host(self) -> None:
        """T015, T017"""
        for path in ("/", "/edge-to-backend", "/edge-to-backend/", "/openems-backend?x=1", "//a//b", "/#frag"):
            for host in ("ems.example.org", "ems.example.org:443", "[2001:db8::1]:8081"):
                raw = await self.dial(path=path, host=host)
                self.assertTrue(raw.head.startswith(b"HTTP/1.1 101 "), (path, host, raw.head))

    async def test_offers_are_not_taken(self) -> None:
        """T023"""
        raw = await self.dial(
            more="Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
            "Sec-WebSocket-Protocol: foo, bar\r\n"
        )
        self.assertTrue(raw.head.startswith(b"HTTP/1.1 101 "))
        self.assertNotIn(b"sec-websocket-extensions", raw.head.lower())
        self.assertNotIn(b"sec-websocket-protocol", raw.head.lower())

    async def test_bad_handshakes(self) -> None:
        good = UPGRADE.format(path="/", host="x", more="")
        for head in (
            good.replace("Version: 13", "Version: 8"),
            good.replace("Sec-WebSocket-Version: 13\r\n", ""),
            good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
            good.replace("GET", "POST"),
            good.replace("HTTP/1.1", "HTTP/1.0"),
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "nonsense\r\n\r\n",
            "GET / HTTP/1.1\r\n" + "x: y\r\n" * 20_000,
        ):
            raw = await self.dial(head)
            self.assertTrue(raw.head.startswith(b"HTTP/1.1 404 WebSocket Upgrade Failure\r\n"), raw.head)
            await raw.until(lambda r: r.lost)

    async def test_refusals(self) -> None:
        raw = await self.dial(more="refuse: drop\r\n")
        await raw.until(lambda r: r.lost)
        self.assertEqual((raw.head[:13], raw.data), (b"HTTP/1.1 101 ", b""))
        raw = await self.dial(more="refuse: 1000\r\n")
        self.assertEqual(await raw.take(), (8, b"\x03\xe8"))

    async def test_close_is_echoed(self) -> None:
        raw = await self.dial()
        endpoint = Endpoint.seen
        raw.frame(b"\x03\xe8bye", opcode=8)
        self.assertEqual(await raw.take(), (8, b"\x03\xe8bye"))
        await raw.until(lambda r: r.lost)
        self.assertEqual(endpoint.closed_calls, 1)

    async def test_server_stop(self) -> None:
        raw = await self.dial()
        stopped = defer.ensureDeferred(self.server.stop())
        self.assertEqual(await raw.take(), (8, b"\x03\xe9"))
        raw.frame(b"\x03\xe9", opcode=8)
        await stopped
        self.assertEqual(self.server.connections, set())

    async def test_server_stop_without_close_frame(self) -> None:
        """reality.md R21: what the UI needs to come back"""
        raw = await self.dial()
        await self.server.stop(None)
        await raw.until(lambda r: r.lost)
        self.assertEqual(raw.data, b"")

    async def test_requests_of_ours_end(self) -> None:
        raw = await self.dial()
        connection = Endpoint.seen.connection
        waiting = connection.request("x", {}, timeout=0.05)
        error = await self.assertFailure(waiting, Exception)
        self.assertEqual(error.code, 1)
        waiting = connection.request("x", {}, id=U)
        error = await self.assertFailure(connection.request("x", {}, id=U), Exception)
        self.assertEqual(error.code, 4000)
        raw.transport.abortConnection()
        error = await self.assertFailure(waiting, Exception)
        self.assertEqual(error.message, "Websocket connection closed")
        error = await self.assertFailure(connection.request("x", {}), Exception)
        self.assertEqual(error.code, 4004)

    async def test_slow_reader_is_dropped(self) -> None:
        raw = await self.dial(send_limit=1_000_000)
        raw.transport.pauseProducing()
        connection = Endpoint.seen.connection
        text = b'"' + b"x" * 100_000 + b'"'
        sent = 0
        while connection.send(text) and sent < 1000:
            sent += 1
            await deferLater(reactor, 0)
        self.assertLess(sent, 1000)
        self.assertFalse(connection.is_open)
        raw.transport.resumeProducing()

    async def test_client_comes_back(self) -> None:
        port = await self.serve()
        client = ReconnectingClient(
            f"ws://127.0.0.1:{port}/", {"apikey": "k"}, Endpoint, reactor=reactor, min_wait=0, max_wait=0, name="Client"
        )
        client.start()
        self.addCleanup(lambda: defer.ensureDeferred(client.stop()))
        while client.connection is None:
            await deferLater(reactor, 0.01)
        self.assertEqual(bytes(await client.connection.request("ok", {})), b"{}")
        next(iter(self.server.connections)).drop()
        first = client.connection
        while client.connection is None or client.connection is first:
            await deferLater(reactor, 0.01)
        self.assertEqual(bytes(await client.connection.request("ok", {})), b"{}")
