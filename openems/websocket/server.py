"""WebSocket servers: listening, keep-alive and orderly ends (wire.md 3.1, 3.5, 3.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Port as TcpPort
from twisted.logger import Logger
from twisted.web.http import datetimeToString

from openems.websocket import admission, handshake, sharedport
from openems.websocket.frames import FastFrames
from openems.websocket.peer import MAX_RUNNING, SEND_LIMIT, Connection
from openems.websocket.proxies import TrustedProxies
from openems.websocket.traffic import Traffic

#: Seconds between pings, counted from the start of the server.
PING_INTERVAL = 60.0
#: Of many connections so many are pinged each tenth of a second, or a hundredth of all: ten thousand at once, and their
#: pongs, would let everybody wait for half a second.
PINGS, PING_PARTS, PING_STEP = 100, 100, 0.1
#: A connection whose last pong is older than this is dropped at the next ping.
PONG_AGE = 90.0
HANDSHAKE_TIMEOUT = 10
CLOSE_TIMEOUT = 3
MAX_MESSAGE_SIZE = 16 * 1024 * 1024


class ServerProtocol(FastFrames, WebSocketServerProtocol):  # type: ignore[misc]
    """Autobahn's protocol with our handshake, our fast road and a :class:`Connection` behind it."""

    server: WebSocketServer
    websocket_version = 13
    connection: Connection | None = None
    last_pong = 0.0
    #: Why it ends, where we end it; one of traffic.END_REASONS.
    ended_by = ""

    def processHandshake(self) -> None:
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            if len(self.data) > handshake.MAX_HEAD:
                self._refuse("request head too long")
            return
        head, self.data = self.data[:end], self.data[end + 4 :]
        try:
            upgrade = handshake.parse_upgrade(head)
        except handshake.BadHandshake as e:
            self._refuse(str(e))
            return
        if not self.server.admits(upgrade.headers):
            self._refuse("not admitted")
            return
        date = datetimeToString().decode()  # type: ignore[no-untyped-call]
        self.transport.write(handshake.accept(upgrade, date))
        self.state = self.STATE_OPEN
        if self.openHandshakeTimeoutCall is not None:
            self.openHandshakeTimeoutCall.cancel()
            self.openHandshakeTimeoutCall = None
        self.inside_message = False
        self.current_frame = None
        self.watch_buffer()
        address = self.transport.getPeer()
        host, port = getattr(address, "host", "local"), getattr(address, "port", 0)
        self.connection = Connection(
            self,
            name=self.server.name,
            headers=upgrade.headers,
            remote=self.server.proxies.remote(upgrade.headers, host, port),
            reactor=self.server.reactor,
            send_limit=self.server.send_limit,
            observe=self.server.observe,
        )
        self.last_pong = self.server.reactor.seconds()
        self.server.opened(self)
        if self.data and self.state == self.STATE_OPEN:
            # The first frames came with the handshake: the fast road wants to see them, too.
            data, self.data = self.data, b""
            self.dataReceived(data)

    def _refuse(self, reason: str) -> None:
        self.wasNotCleanReason = reason
        self.traffic.handshake_failures["refused"] += 1
        self.transport.write(handshake.REFUSAL)
        self.dropConnection(abort=False)

    def text_received(self, text: bytes) -> None:
        self.traffic.received_sizes[(len(text) - 1).bit_length()] += 1
        if self.connection is not None:
            self.connection.text_received(text)

    def onPong(self, payload: bytes) -> None:
        self.last_pong = self.server.reactor.seconds()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.forget_timers()
        if self.connection is not None:
            self.traffic.ended(self.ended_by or ("clean" if wasClean else "error"), code)
            self.server.closed(self)
            connection, self.connection = self.connection, None
            connection.lost()

    # Wire

    def close(self, code: int, reason: str) -> None:
        # Going through Autobahn's private method: the public one allows clients' codes only (1000, 3000 to 4999).
        self.ended_by = self.ended_by or "server"
        self.unregisterProducer()
        self.sendCloseFrame(code=code, reasonUtf8=reason.encode()[:123], isReply=False)

    def drop(self, *, abort: bool = True) -> None:
        if not self.ended_by:
            self.ended_by = ("slow" if self.waiting > self.server.send_limit else "server") if abort else "denied"
        self.dropConnection(abort=abort)

    def onOpenHandshakeTimeout(self) -> None:
        if self.connection is None:
            self.traffic.handshake_failures["timeout"] += 1
        super().onOpenHandshakeTimeout()

    def invalid_utf8(self) -> None:
        self._fail_connection(1007, "Received text is no valid utf8 string!")


class WebSocketServer:
    """Listens, keeps the connections alive, makes an endpoint for each by ``endpoint_factory(connection)``."""

    _log = Logger()

    def __init__(
        self,
        name: str,
        endpoint_factory: Callable[[Connection], Any],
        *,
        reactor: Any,
        max_message_size: int = MAX_MESSAGE_SIZE,
        send_limit: int = SEND_LIMIT,
        observe: Callable[[str, float], None] | None = None,
        proxies: TrustedProxies | None = None,
        admits: Callable[[Mapping[str, str]], bool] = lambda headers: True,
    ) -> None:
        self.name = name
        self.proxies = proxies or TrustedProxies()
        #: Told the handshake's headers; False: it is refused.
        self.admits = admits
        self.reactor = reactor
        self.send_limit = send_limit
        self.observe = observe
        self.connections: set[Connection] = set()
        self.traffic = Traffic()
        self._protocols: set[ServerProtocol] = set()
        self._endpoint_factory = endpoint_factory
        self._port: Any = None
        self._all_closed: Deferred[None] | None = None
        make_factory: Any = WebSocketServerFactory  # untyped in Autobahn
        self._factory = make_factory(reactor=reactor)
        self._factory.protocol = type(
            "ServerProtocol",
            (ServerProtocol,),
            {"server": self, "traffic": self.traffic, "longest_fast": min(65535, max_message_size)},
        )
        self._factory.log = FastFrames.log
        self._factory.noisy = False
        self._factory.setProtocolOptions(
            versions=[13],
            webStatus=False,
            utf8validateIncoming=False,
            requireMaskedClientFrames=False,
            maxFramePayloadSize=max_message_size,
            maxMessagePayloadSize=max_message_size,
            openHandshakeTimeout=HANDSHAKE_TIMEOUT,
            closeHandshakeTimeout=CLOSE_TIMEOUT,
            echoCloseCodeReason=True,
            failByDrop=False,
            tcpNoDelay=True,
        )
        self._ping = LoopingCall(self._tick)
        self._ping.clock = IReactorTime(reactor)
        self._to_ping: list[ServerProtocol] = []
        self._pinging: Any = None

    async def listen(self, port: int, interface: str = "", *, shared: bool = False) -> int:
        """Open the port (0: any); returns the one that was bound. Raises CannotListenError. ``shared``: other processes
        of this user may listen on it, too."""
        if shared:
            with sharedport.share(port, interface) as bound_socket:
                bound_socket.listen(sharedport.BACKLOG)
                # The reactor works on a copy of the descriptor.
                self._port = self.reactor.adoptStreamPort(bound_socket.fileno(), bound_socket.family, self._factory)
        else:
            self._port = IReactorTCP(self.reactor).listenTCP(
                port, self._factory, backlog=sharedport.BACKLOG, interface=interface
            )
        if isinstance(self._port, TcpPort):
            admission.pace(self._port)
        self._ping.start(PING_INTERVAL, now=False)
        bound = int(self._port.getHost().port)
        self._log.info("{name}: listening on port {port}", name=self.name, port=bound)
        return bound

    async def stop_listening(self) -> None:
        """No new connections; the open ones stay."""
        if self._port is not None:
            port, self._port = self._port, None
            await port.stopListening()

    async def stop(self, close_code: int | None = 1001) -> None:
        """Stop listening and end all connections: with that code, or by dropping TCP (None). Ends within seconds."""
        await self.stop_listening()
        if self._ping.running:
            self._ping.stop()
        if self._pinging is not None and self._pinging.active():
            self._pinging.cancel()
        if not self._protocols:
            return
        self._all_closed = Deferred()
        for protocol in tuple(self._protocols):
            if close_code is None or protocol.connection is None:
                protocol.drop()
            else:
                protocol.connection.close(close_code)
        if self._protocols:
            last = self.reactor.callLater(CLOSE_TIMEOUT, self._drop_all)
            await self._all_closed
            if last.active():
                last.cancel()

    # what it does at this moment; each looks at all connections

    @property
    def running(self) -> int:
        """Requests of peers under way."""
        return sum([connection.running for connection in self.connections])

    def load(self) -> tuple[int, int, list[int]]:
        """Requests of peers under way; requests sent to peers that are not answered yet; bytes that wait for each of
        the readers that are too slow just now."""
        running = pending = 0
        waiting = []
        for connection in self.connections:
            running += connection.running
            pending += connection.pending
            if bytes_ := connection.waiting:
                waiting.append(bytes_)
        return running, pending, waiting

    def pool(self, component_id: str) -> dict[str, int | float]:
        """The five numbers of a pool of workers (core.md 5.2), which here are requests: as many may be under way as
        the bound on each connection allows, none waits."""
        most = MAX_RUNNING * max(1, len(self.connections))
        running = self.running
        return {
            f"{component_id}/PoolSize": most,
            f"{component_id}/MaxPoolSize": most,
            f"{component_id}/Active": running,
            f"{component_id}/Pending": 0,
            f"{component_id}/Completed": max(0, self.traffic.received_messages - running),
        }

    def pool_text(self) -> str:
        """The same for the line of the debug cycle (core.md 5.2)."""
        pool = {name.removeprefix("/"): number for name, number in self.pool("").items()}
        full = " !!!BACKPRESSURE!!!" if pool["Active"] == pool["MaxPoolSize"] else ""
        return (
            f"Pool: {pool['PoolSize']}/{pool['MaxPoolSize']}, Pending: {pool['Pending']}, "
            f"Completed: {pool['Completed']}, Active: {pool['Active']}{full}"
        )

    def opened(self, protocol: ServerProtocol) -> None:
        connection = protocol.connection
        if connection is None:
            return
        self._protocols.add(protocol)
        self.traffic.opened += 1
        self.connections.add(connection)
        connection.open(self._endpoint_factory(connection))

    def closed(self, protocol: ServerProtocol) -> None:
        self._protocols.discard(protocol)
        if protocol.connection is not None:
            self.connections.discard(protocol.connection)
        if not self._protocols and self._all_closed is not None and not self._all_closed.called:
            # Not in this call: the protocol that ends is still being taken apart.
            self.reactor.callLater(0, self._all_closed.callback, None)

    def _drop_all(self) -> None:
        for protocol in tuple(self._protocols):
            protocol.drop()

    def _tick(self) -> None:
        self._to_ping = list(self._protocols)
        self._ping_some(max(PINGS, len(self._to_ping) // PING_PARTS + 1))

    def _ping_some(self, count: int) -> None:
        oldest = self.reactor.seconds() - PONG_AGE
        some, self._to_ping = self._to_ping[:count], self._to_ping[count:]
        if self._to_ping:
            self._pinging = self.reactor.callLater(PING_STEP, self._ping_some, count)
        for protocol in some:
            if protocol.reading_paused or protocol not in self._protocols:
                continue  # its pongs wait unread; it is gone
            if protocol.last_pong < oldest:
                self._log.info(
                    "{name} {remote}: silent, dropped",
                    name=self.name,
                    remote=protocol.connection.remote if protocol.connection else "?",
                )
                protocol.ended_by = "timeout"
                protocol.drop()
            else:
                protocol.sendPing()
