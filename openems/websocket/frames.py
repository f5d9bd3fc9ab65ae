"""The fast road for frames, laid over Autobahn.

Nearly all traffic is whole, final, masked text frames below 64 KiB. Those are cut out of the received bytes and
unmasked in one call; every other frame, and every other state of a connection, is left to Autobahn's own machine.
Which of the two took a message makes no difference to anybody else: both end in :meth:`text_received`.

UTF-8 is not checked here: a JSON decoder does it anyway, whoever handles a text without one must do it (wire.md 3.4).
"""

from __future__ import annotations

import os
from typing import Any

from autobahn.websocket import protocol as _protocol
from autobahn.websocket.protocol import WebSocketProtocol
from websockets.speedups import apply_mask

from openems.websocket.traffic import Traffic

_OPEN = WebSocketProtocol.STATE_OPEN
_FINAL_TEXT = 0x81
#: A message of more fragments than this must bring so many bytes with each, on the average.
MANY_FRAGMENTS, LEAST_FRAGMENT = 1024, 32
#: Twisted pauses a producer when this much waits in the transport's buffer.
_TRANSPORT_BUFFER = 64 * 1024


# At each connection Autobahn makes a text of all its options, for a log line that nobody sees: half the cost of one.
_protocol.pformat = lambda _: ""  # type: ignore[assignment, attr-defined, misc]


class SilentLog:
    """Autobahn logs each step of each connection; what of it matters is logged by the peer in one line."""

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        return None

    trace = debug = info = warn = error = critical = failure = _nothing
    log_level = "none"


class FastFrames:
    """Mixed in before an Autobahn protocol. ``masked_in``: frames come masked, that is: this side is the server."""

    log = SilentLog()
    masked_in = True
    #: Longer messages are Autobahn's, which knows the limit on their size.
    longest_fast = 65535

    # what Autobahn's protocol brings
    state: int
    data: bytes
    inside_message: bool
    current_frame: Any
    current_frame_masker: Any
    transport: Any
    last_pong: float
    factory: Any

    #: What goes by is counted here: one for all connections of a server.
    traffic = Traffic()
    #: Whom the wire belongs to, once the connection is open.
    connection: Any = None
    #: We stopped reading from this peer: its pongs stay unseen, too.
    reading_paused = False
    _paused = False
    _sent_while_paused = 0
    _fragments = 0
    failedByMe: bool
    message_data_total_length: int
    #: The beginning of a frame whose rest has not come yet.
    _tail = b""

    def text_received(self, text: bytes) -> None:
        raise NotImplementedError

    def dataReceived(self, data: bytes) -> None:
        self.traffic.received_bytes += len(data)
        if self.state == _OPEN:
            # On a connection that is never silent Autobahn would never come to the end of what it has.
            if self.current_frame is not None:
                missing = self.current_frame.length - self.current_frame_masker.pointer()
                if not self.data and missing < len(data):
                    self._dataReceived(data[:missing])  # type: ignore[attr-defined]
                    data = data[missing:]
            elif self.data and not self.inside_message:
                data, self.data = self.data + data, b""
        joined = bool(self._tail)
        if joined:
            data, self._tail = self._tail + data, b""
        if self.state != _OPEN or self.data or self.current_frame is not None or self.inside_message:
            self._dataReceived(data)  # type: ignore[attr-defined]
            return
        position = 0
        size = len(data)
        masked = self.masked_in
        longest = self.longest_fast
        incomplete = False
        while size - position >= 6 and data[position] == _FINAL_TEXT:
            length = data[position + 1]
            if masked:
                if length < 0x80:
                    break
                length &= 0x7F
                start = position + 6
            else:
                start = position + 2
            if length == 126:
                length = (data[position + 2] << 8) | data[position + 3]
                if length < 126:
                    break  # not the shortest form: Autobahn ends the connection
                start += 2
            elif length > 126:
                break
            if length > longest:
                break
            end = start + length
            if end > size:
                incomplete = True
                break
            if masked:
                self.text_received(apply_mask(data[start:end], data[start - 4 : start]))
            else:
                self.text_received(data[start:end])
            position = end
            if position == size or self.state != _OPEN:
                return
        rest = data[position:] if position else data
        # A frame is joined once; one that comes in more pieces than two is Autobahn's, so that a peer that sends byte
        # by byte does not make us copy what it sent for each of them.
        if incomplete and (position or not joined):
            self._tail = rest
        else:
            self._dataReceived(rest)  # type: ignore[attr-defined]

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)  # type: ignore[misc]
        # Autobahn lets it hold this protocol: only the garbage collector would free the two.
        self.is_closed = None

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if not isBinary:
            self.text_received(payload)

    def onMessageBegin(self, isBinary: bool) -> None:
        self._fragments = 0
        super().onMessageBegin(isBinary)  # type: ignore[misc]

    def onMessageFrameBegin(self, length: int) -> None:
        self._fragments += 1
        few = self._fragments <= MANY_FRAGMENTS
        if not few and self.message_data_total_length < self._fragments * LEAST_FRAGMENT and not self.failedByMe:
            # Each costs as much as a message, however short it is: no more of them are looked at.
            self._fail_connection(1009, "too many fragments")  # type: ignore[attr-defined]
            self.dropConnection(abort=False)  # type: ignore[attr-defined]
        super().onMessageFrameBegin(length)  # type: ignore[misc]

    def onMessageEnd(self) -> None:
        # Autobahn makes a Deferred for each message here; ours needs none.
        if not self.failedByMe:
            payload = b"".join(self.message_data)  # type: ignore[attr-defined, has-type]
            self.onMessage(payload, self.message_is_binary)  # type: ignore[attr-defined]
        self.message_data = None

    # what waits for a slow reader, by the producer contract of the transport

    def forget_timers(self) -> None:
        """Autobahn leaves the timer of a closing handshake behind when TCP ends before it."""
        if self.closeHandshakeTimeoutCall is not None:  # type: ignore[has-type]
            self.closeHandshakeTimeoutCall.cancel()  # type: ignore[has-type]
            self.closeHandshakeTimeoutCall = None

    def watch_buffer(self) -> None:
        self.transport.registerProducer(self, True)

    def pauseProducing(self) -> None:
        # Twisted calls this at every write while its buffer is full.
        if not self._paused:
            self._paused = True
            self._sent_while_paused = 0
            if self.connection is not None:
                self.connection.flows(False)

    def resumeProducing(self) -> None:
        self._paused = False
        if self.connection is not None:
            self.connection.flows(True)

    def stopProducing(self) -> None:
        self._paused = False

    @property
    def waiting(self) -> int:
        """Bytes the peer has not taken yet; nothing counts until the transport's own buffer is full."""
        return _TRANSPORT_BUFFER + self._sent_while_paused if self._paused else 0

    def limit_messages(self, size: int | None) -> None:
        """Longer ones end the connection (Close 1009), the one that is arriving included; None: as configured."""
        most = self.factory.maxMessagePayloadSize
        if size is not None:
            most = min(size, most)
        self.maxMessagePayloadSize = self.maxFramePayloadSize = most
        self.longest_fast = min(65535, most)

    def pause_reading(self) -> None:
        if not self.reading_paused:
            self.reading_paused = True
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        if self.reading_paused:
            self.reading_paused = False
            self.last_pong = self.factory.reactor.seconds()
            self.transport.resumeProducing()

    def write_text(self, text: bytes) -> None:
        """One whole text frame."""
        length = len(text)
        traffic = self.traffic
        traffic.sent_bytes += length
        traffic.sent_sizes[(length - 1).bit_length()] += 1
        mask_bit = 0 if self.masked_in else 0x80
        if length < 126:
            head = bytes((_FINAL_TEXT, mask_bit | length))
        elif length < 65536:
            head = bytes((_FINAL_TEXT, mask_bit | 126, length >> 8, length & 0xFF))
        else:
            head = bytes((_FINAL_TEXT, mask_bit | 127)) + length.to_bytes(8, "big")
        if self._paused:
            self._sent_while_paused += length
        if mask_bit:
            mask = os.urandom(4)
            self.transport.write(head + mask + apply_mask(text, mask))
        else:
            self.transport.write(head + text)
