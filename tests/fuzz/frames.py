"""The fast road for frames against Autobahn's own machine: the same bytes, in whatever pieces they come, must give the
same messages, the same replies and the same end.

An input is a program: for each frame a byte that says its kind and size, or bytes that are sent as they are.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import random
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from websockets.speedups import apply_mask

from openems.websocket.client import ReconnectingClient
from openems.websocket.server import WebSocketServer

UPGRADE = b"GET / HTTP/1.1\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
#: Small, so that inputs of a few KB go beyond it.
LARGEST = 2000
#: Opcodes by the low four bits of a program's byte.
_KINDS = (1, 1, 1, 1, 0, 2, 8, 9, 10, 3, 1, 1, 0, 1, 1, 1)
_SIZES = (0, 1, 3, 20, 125, 126, 130, 2001)
MASK = b"\x11\x00\xfe\x7a"


_LONGEST = 6000
#: Shorter streams come byte by byte, too.
_BY_BYTE = 600
_CLOCK = Clock()


class Difference(Exception):
    """What the two made of the same bytes."""


def frame(payload: bytes, first: int, *, masked: bool, long_form: bool = False) -> bytes:
    mask_bit = 0x80 if masked else 0
    length = len(payload)
    if length < 126 and not long_form:
        head = bytes((first, mask_bit | length))
    else:
        head = bytes((first, mask_bit | 126)) + length.to_bytes(2, "big")
    return head + (MASK + apply_mask(payload, MASK) if masked else payload)


def stream_of(program: bytes, *, masked: bool) -> bytes:
    """The bytes that a program sends."""
    parts = []
    at = 0
    while at < len(program) and len(parts) < 200:
        what = program[at]
        at += 1
        if what == 0xFF:  # the rest as it is
            parts.append(program[at:])
            break
        size = _SIZES[(what >> 4) & 7]
        given = program[at : at + min(size, 8)]
        at += len(given)
        payload = (given * (size // len(given) + 1))[:size] if given else b"z" * size
        final = 0 if what & 0x80 else 0x80
        kind = what & 0x0F
        # 13: a length in the long form where the short one would do; 14: reserved bits; 15: not masked as it should be
        first = final | _KINDS[kind] | (0x40 if kind == 14 else 0)
        parts.append(frame(payload, first, masked=masked is not (kind == 15), long_form=kind == 13))
    return b"".join(parts)[:_LONGEST]


@functools.cache
def _factory(server: bool) -> Any:
    """One for all connections: making one costs more than most inputs."""
    endpoint: Any = lambda connection: Side.current  # noqa: E731
    made: Any
    if server:
        made = WebSocketServer("Test", endpoint, reactor=_CLOCK, max_message_size=LARGEST)
    else:
        made = ReconnectingClient(
            "ws://127.0.0.1:1",
            {},
            endpoint,
            reactor=_CLOCK,
            min_wait=1,
            max_wait=1,
            name="Test",
            max_message_size=LARGEST,
        )
    return made._factory


class Side:
    """One end of a connection in memory; ``slow``: everything is left to Autobahn."""

    current: Side

    def __init__(self, *, server: bool, slow: bool) -> None:
        Side.current = self
        self.texts: list[bytes] = []
        self.protocol: Any = _factory(server).buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.protocol.dataReceived(UPGRADE if server else self._answer(self.transport.value()))
        if self.protocol.state != self.protocol.STATE_OPEN:
            raise Difference("the handshake failed")
        if slow:
            self.protocol.dataReceived = self.protocol._dataReceived
        self.transport.clear()

    def _answer(self, request: bytes) -> bytes:
        key = request.split(b"Sec-WebSocket-Key: ")[1].split(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        return head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"

    def opened(self) -> None: ...

    def received(self, text: bytes) -> bool:
        self.texts.append(text)
        return True

    def closed(self) -> None: ...

    def feed(self, stream: bytes, sizes: Any) -> Any:
        """Messages, end, replies (unmasked)."""
        at = 0
        while at < len(stream):
            size = next(sizes)
            self.protocol.dataReceived(stream[at : at + size])
            at += size
        protocol = self.protocol
        # What comes after a mistake that we have ended the connection for is nobody's any more.
        end = (protocol.state == protocol.STATE_OPEN, None if protocol.failedByMe else protocol.remoteCloseCode)
        _CLOCK.advance(0)
        replies = self._replies(self.transport.value())
        protocol.connectionLost(Failure(ConnectionDone()))
        # After two Close frames Autobahn forgets the first of its timers.
        for call in reactor.getDelayedCalls():  # type: ignore[attr-defined]
            if getattr(call.func, "__self__", None) is protocol:
                call.cancel()
        return self.texts, end, replies

    def _replies(self, sent: bytes) -> list[tuple[int, bytes]]:
        """First byte and content of each frame: a client's masks are random."""
        found = []
        at = 0
        while at < len(sent):
            first, length = sent[at], sent[at + 1]
            at += 2
            if length & 0x7F == 126:
                size = int.from_bytes(sent[at : at + 2], "big")
                at += 2
            else:
                size = length & 0x7F
            mask = b"\0\0\0\0"
            if length & 0x80:
                mask = sent[at : at + 4]
                at += 4
            found.append((first, bytes(apply_mask(sent[at : at + size], mask))))
            at += size
        return found


def frames(program: bytes) -> None:
    seed, program = program[:1], program[1:]
    generator = random.Random(seed)
    for server in (True, False):
        stream = stream_of(program, masked=server)
        whole = itertools.repeat(65536)
        expected = Side(server=server, slow=True).feed(stream, whole)
        for pieces in (
            whole,
            itertools.repeat(1 if len(stream) < _BY_BYTE else 50),
            iter(lambda: generator.choice((1, 2, 5, 7, 30, 300, 4000)), None),
        ):
            got = Side(server=server, slow=False).feed(stream, pieces)
            if got != expected:
                raise Difference(
                    f"{'server' if server else 'client'} {stream[:300]!r}: {got!r} not {expected!r}"[:3000]
                )
