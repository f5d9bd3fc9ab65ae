"""Which road frames take: a connection that is never silent must come back to the fast one."""

from __future__ import annotations

import os
import random
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from websockets.speedups import apply_mask

from openems.websocket.peer import Connection
from openems.websocket.server import PONG_AGE, ServerProtocol, WebSocketServer

UPGRADE = b"GET / HTTP/1.1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"


def frame(payload: bytes, opcode: int = 1, *, final: bool = True) -> bytes:
    mask = os.urandom(4)
    head = bytes(((0x80 if final else 0) | opcode,))
    length = len(payload)
    if length < 126:
        head += bytes((0x80 | length,))
    elif length < 65536:
        head += bytes((0x80 | 126,)) + length.to_bytes(2, "big")
    else:
        head += bytes((0x80 | 127,)) + length.to_bytes(8, "big")
    return head + mask + apply_mask(payload, mask)


class Endpoint:
    def __init__(self, connection: Connection) -> None:
        self.texts: list[bytes] = []
        Endpoint.last = self  # type: ignore[attr-defined]

    def opened(self) -> None:
        pass

    def received(self, text: bytes) -> bool:
        self.texts.append(text)
        return True

    def closed(self) -> None:
        pass


class Roads(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = WebSocketServer("Test", Endpoint, reactor=Clock())
        self.protocol: Any = self.server._factory.buildProtocol(None)
        self.slow = 0
        original = ServerProtocol.onMessageEnd

        def on_message_end(protocol: Any) -> None:
            self.slow += 1
            original(protocol)

        self.patch(ServerProtocol, "onMessageEnd", on_message_end)
        self.protocol.makeConnection(StringTransport())
        self.protocol.dataReceived(UPGRADE)

    def feed(self, stream: bytes, sizes: Any) -> list[bytes]:
        position = 0
        while position < len(stream):
            size = next(sizes)
            self.protocol.dataReceived(stream[position : position + size])
            position += size
        return Endpoint.last.texts  # type: ignore[attr-defined]

    def test_a_stream_without_end(self) -> None:
        sent = [b"%d" % n + b"x" * 4000 for n in range(2000)]
        # Chunks as the reactor reads them; now and then a few bytes only, which leaves a frame in three pieces.
        generator = random.Random(1)
        sizes = iter(lambda: generator.choice((65536, 65536, 65536, 65536, 10, 7)), None)
        self.assertEqual(self.feed(b"".join(map(frame, sent)), sizes), sent)
        self.assertLess(self.slow, 200)

    def test_everything_in_any_pieces(self) -> None:
        generator = random.Random(2)
        for _ in range(30):
            self.setUp()
            sent, stream = [], b""
            for number in range(60):
                text = b"%d" % number + b"y" * generator.choice((0, 1, 100, 130, 5000, 70_000))
                sent.append(text)
                if generator.random() < 0.2:
                    cut = generator.randrange(len(text) + 1)
                    stream += frame(text[:cut], final=False) + frame(b"ping", 9) + frame(text[cut:], 0)
                else:
                    stream += frame(text)
                if generator.random() < 0.2:
                    stream += frame(b"", 10) + frame(b"\x00", 2)
            sizes = iter(lambda: generator.choice((1, 2, 3, 6, 200, 5000, 65536)), None)
            self.assertEqual(self.feed(stream, sizes), sent)

    def test_after_a_large_one(self) -> None:
        sent = [b"x" * 100_000] + [b"y" * 1000] * 1000
        sizes = iter(lambda: 60_001, None)
        self.assertEqual(self.feed(b"".join(map(frame, sent)), sizes), sent)
        self.assertLess(self.slow, 20)


class Pausing(SynchronousTestCase):
    """A peer that is not read from."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server = WebSocketServer("Test", Endpoint, reactor=self.clock)
        self.protocol: Any = self.server._factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.protocol.dataReceived(UPGRADE)
        self.connection: Connection = self.protocol.connection

    def test_it_is_not_taken_for_silent(self) -> None:
        """Its pongs wait unread; they count from when it is read again."""
        self.connection.pause_reading()
        self.assertEqual(self.transport.producerState, "paused")
        self.clock.advance(PONG_AGE * 3)
        self.server._tick()
        self.assertTrue(self.connection.is_open)
        self.connection.resume_reading()
        self.assertEqual(self.transport.producerState, "producing")
        self.server._tick()
        self.assertTrue(self.connection.is_open)
        self.clock.advance(PONG_AGE + 1)
        self.server._tick()
        self.assertTrue(self.transport.disconnecting or self.transport.disconnected or self.transport.aborting)

    def test_its_close_frame_is_read(self) -> None:
        self.connection.pause_reading()
        self.connection.close(1000)
        self.assertEqual(self.transport.producerState, "producing")
        self.protocol.forget_timers()

    def test_flow_is_told(self) -> None:
        told: list[bool] = []
        self.connection.on_flow = told.append
        self.protocol.pauseProducing()
        self.protocol.pauseProducing()
        self.protocol.resumeProducing()
        self.assertEqual(told, [False, True])
