"""A WebSocket client that comes back (wire.md 3.10, edge.md 2.2)."""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from openems.websocket.frames import FastFrames
from openems.websocket.peer import SEND_LIMIT, Connection
from openems.websocket.server import CLOSE_TIMEOUT, MAX_MESSAGE_SIZE

PING_INTERVAL = 100.0
PONG_AGE = 150.0
CONNECT_TIMEOUT = 100


class ClientProtocol(FastFrames, WebSocketClientProtocol):  # type: ignore[misc]
    masked_in = False
    client: ReconnectingClient
    connection: Connection | None = None
    last_pong = 0.0

    def onOpen(self) -> None:
        self.watch_buffer()
        self.last_pong = self.client.reactor.seconds()
        self.connection = Connection(
            self,
            name=self.client.name,
            headers={},
            remote=self.client.url,
            reactor=self.client.reactor,
            send_limit=self.client.send_limit,
        )
        self.client.opened(self.connection)

    def text_received(self, text: bytes) -> None:
        if self.connection is not None:
            self.connection.text_received(text)

    def onPong(self, payload: bytes) -> None:
        self.last_pong = self.client.reactor.seconds()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.forget_timers()
        connection, self.connection = self.connection, None
        self.client.lost(self, code, reason)
        if connection is not None:
            connection.lost()

    # Wire

    def close(self, code: int, reason: str) -> None:
        self.unregisterProducer()
        self.sendCloseFrame(code=code, reasonUtf8=reason.encode()[:123], isReply=False)

    def drop(self, *, abort: bool = True) -> None:
        self.dropConnection(abort=abort)

    def invalid_utf8(self) -> None:
        self._fail_connection(1007, "Received text is no valid utf8 string!")


class ReconnectingClient:
    """One connection to ``url``, made again whenever it is lost.

    The first attempt is at once; a later one when ``wait`` seconds have passed since the last *attempt*, where
    ``wait`` is drawn once, uniformly from [``min_wait``, ``max_wait``]. So after a long-lived connection is lost the
    first attempt follows within a second.
    """

    _log = Logger()

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        endpoint_factory: Callable[[Connection], Any],
        *,
        reactor: Any,
        min_wait: float,
        max_wait: float,
        name: str,
        random: random_module.Random | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        send_limit: int = SEND_LIMIT,
    ) -> None:
        self.url = url
        self.name = name
        self.reactor = reactor
        self.send_limit = send_limit
        self.connection: Connection | None = None
        self._endpoint_factory = endpoint_factory
        self._wait = (random or random_module.Random()).uniform(min_wait, max_wait)  # noqa: S311 - spreads load only
        self._attempted: float | None = None
        self._connecting: Deferred[Any] | None = None
        self._protocol: ClientProtocol | None = None
        self._ended: Deferred[None] | None = None
        self._stopped = False
        parts = urlsplit(url)
        if parts.scheme not in ("ws", "wss") or not parts.hostname:
            raise ValueError(f"not a WebSocket address: {url!r}")
        self._host = parts.hostname
        self._tls = parts.scheme == "wss"
        self._tcp_port = parts.port or (443 if self._tls else 80)
        make_factory: Any = WebSocketClientFactory  # untyped in Autobahn
        self._factory = make_factory(url, headers=dict(headers), reactor=reactor)
        self._factory.protocol = type(
            "ClientProtocol", (ClientProtocol,), {"client": self, "longest_fast": min(65535, max_message_size)}
        )
        self._factory.log = FastFrames.log
        self._factory.noisy = False
        self._factory.setProtocolOptions(
            utf8validateIncoming=False,
            acceptMaskedServerFrames=True,
            maxFramePayloadSize=max_message_size,
            maxMessagePayloadSize=max_message_size,
            openHandshakeTimeout=CONNECT_TIMEOUT,
            closeHandshakeTimeout=CLOSE_TIMEOUT,
            serverConnectionDropTimeout=CLOSE_TIMEOUT,
            echoCloseCodeReason=True,
            failByDrop=False,
            tcpNoDelay=True,
        )
        self._worker = LoopingCall(self._tick)
        self._worker.clock = reactor
        self._ping = LoopingCall(self._keep_alive)
        self._ping.clock = reactor

    def start(self) -> None:
        self._log.debug("{name}: opening {url}", name=self.name, url=self.url)
        self._worker.start(1.0, now=True)
        self._ping.start(PING_INTERVAL, now=False)

    async def stop(self) -> None:
        """Close with 1000 and ``Closing connection [<name>]``; no more attempts."""
        self._stopped = True
        for loop in (self._worker, self._ping):
            if loop.running:
                loop.stop()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._protocol is not None:
            self._ended = Deferred()
            if self.connection is not None:
                self.connection.close(1000, f"Closing connection [{self.name}]")
            else:
                self._protocol.drop()
            await self._ended

    def reconnect(self, after: float = 0.0) -> None:
        """Drop the connection; a new one is made by the usual rules, but not before ``after`` seconds."""
        if after:
            self._attempted = self.reactor.seconds() + after - self._wait
        if self._protocol is not None:
            self._protocol.drop()

    def opened(self, connection: Connection) -> None:
        self.connection = connection
        connection.open(self._endpoint_factory(connection))

    def lost(self, protocol: ClientProtocol, code: int | None, reason: str | None) -> None:
        if protocol is not self._protocol:
            return
        self.connection = None
        self._protocol = None
        self._log.debug("{name}: closed, code {code} {reason}", name=self.name, code=code, reason=reason)
        if self._ended is not None and not self._ended.called:
            self.reactor.callLater(0, self._ended.callback, None)

    def _tick(self) -> None:
        if self._protocol is not None or self._connecting is not None or self._stopped:
            return
        now = self.reactor.seconds()
        if self._attempted is not None and now < self._attempted + self._wait:
            return
        self._attempted = now
        endpoint: Any = HostnameEndpoint(self.reactor, self._host, self._tcp_port, timeout=CONNECT_TIMEOUT)
        if self._tls:
            endpoint = wrapClientTLS(optionsForClientTLS(self._host), endpoint)
        self._connecting = endpoint.connect(self._factory)
        self._connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: ClientProtocol) -> None:
        self._connecting = None
        if protocol.state != protocol.STATE_CLOSED:
            self._protocol = protocol

    def _failed(self, failure: Any) -> None:
        self._connecting = None
        if not self._stopped:
            self._log.debug("{name}: {reason}", name=self.name, reason=failure.getErrorMessage())

    def _keep_alive(self) -> None:
        protocol = self._protocol
        if protocol is None or self.connection is None:
            return
        if protocol.last_pong < self.reactor.seconds() - PONG_AGE:
            protocol.drop()
        else:
            protocol.sendPing()
