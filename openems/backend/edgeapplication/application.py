"""The edge application: thousands of edges behind one connection to the manager (edge.md 2).

    edges --> EdgeEndpoint --> Outbox --> ManagerEndpoint --> manager
    edges <------------------------------ ManagerEndpoint <-- manager

Rules
- The port for edges is open while the manager's last list of keys has any and, unless ``keep_edges``, the manager is
  connected. Before the first list nobody could be told from a stranger: the port is closed (edge.md 2.2).
- With ``keep_edges`` a lost manager leaves the edges where they are. What they send waits in the outbox; what they ask
  is answered with 4004 at once.
- A slow manager slows the edges down: who brings more while too much waits is not read from, and at last nobody is.
- The manager hears of the edges (``connectedEdges``) as soon as it is there, before anything that waited, then of every
  change: at once, before the edge's first message, unless it was told within the last second; then a second later.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Mapping
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from openems.backend.edgeapplication.complaints import Complaints
from openems.backend.edgeapplication.counters import Status
from openems.backend.edgeapplication.edge import EdgeEndpoint
from openems.backend.edgeapplication.fleet import Fleet
from openems.backend.edgeapplication.manager import ManagerEndpoint
from openems.backend.edgeapplication.outbox import ConnectedEdges, Outbox
from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification, Request
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection
from openems.websocket.proxies import TrustedProxies
from openems.websocket.server import MAX_MESSAGE_SIZE, WebSocketServer

#: Seconds between two lists of edges, at least, and between two looks whether one is due.
LIST_INTERVAL = 1.0
#: Seconds until a port that could not be opened is tried again.
LISTEN_AGAIN = 5.0
#: Seconds that a stop gives to what waits for the manager.
FLUSH_PATIENCE = 2.0
#: Bytes that may wait for an edge that does not read before its connection is dropped.
EDGE_SEND_LIMIT = 16 * 1024 * 1024
#: Requests of one edge that may wait for the manager.
MAX_ASKING = 100
BUFFER_BYTES = 64 * 1024 * 1024
#: Room in the manager's longest message for what is wrapped round an edge's.
WRAPPING = 4096


class EdgeApplication:
    """``application_id``: header ``id`` of the connection to ``uri``. ``shared``: several applications have the port in
    common. ``headers``: more of them for the manager. ``max_message_size``: the longest message the manager takes."""

    _log = Logger()

    def __init__(
        self,
        application_id: str,
        uri: str,
        *,
        reactor: Any,
        port: int,
        interface: str = "",
        shared: bool = False,
        keep_edges: bool = True,
        buffer_bytes: int = BUFFER_BYTES,
        max_message_size: int = MAX_MESSAGE_SIZE,
        headers: Mapping[str, str] | None = None,
        proxies: TrustedProxies | None = None,
        reconnect_wait: tuple[float, float] = (2.0, 30.0),
        random: random_module.Random | None = None,
    ) -> None:
        self.id = application_id
        self.reactor = reactor
        self.fleet = Fleet()
        self.outbox = Outbox(buffer_bytes)
        self.manager: ManagerEndpoint | None = None
        self.informed = False
        self.port: int | None = None
        self.trouble = ""
        self.messages_up = self.messages_down = 0
        self.bytes_up = self.bytes_down = 0
        self.invalid = self.refusals = self.pauses = self.reconnects = 0
        self.complain = Complaints(reactor.seconds).complain
        self._wanted_port, self._interface, self._shared = port, interface, shared
        self._keep_edges = keep_edges
        self._longest = max_message_size
        self._met_manager = False
        self._told_at = float("-inf")
        self._stopping = False
        self._changing: Deferred[None] | None = None
        self._again: Any = None
        self._emptied: Deferred[None] | None = None
        self._server = WebSocketServer(
            "Backend.Edge.Server",
            lambda connection: EdgeEndpoint(connection, self),
            reactor=reactor,
            max_message_size=max_message_size - WRAPPING,
            send_limit=EDGE_SEND_LIMIT,
            proxies=proxies,
        )
        self._client = ReconnectingClient(
            uri,
            {"id": application_id, **(headers or {})},
            self._manager_endpoint,
            reactor=reactor,
            min_wait=reconnect_wait[0],
            max_wait=reconnect_wait[1],
            name="Backend.Edge.Client",
            random=random,
            # The list of keys of a large fleet comes in one message.
            max_message_size=min(max_message_size * 8, 1 << 30),
        )
        self._lists = LoopingCall(self._tell_edges)
        self._lists.clock = reactor

    # --- life

    def start(self) -> None:
        self._lists.start(LIST_INTERVAL, now=False)
        self._client.start()

    async def stop(self) -> None:
        """Edges get Close 1001; what waits is still sent if the manager takes it within seconds; then it gets 1000."""
        self._stopping = True
        if self._lists.running:
            self._lists.stop()
        if self._again is not None and self._again.active():
            self._again.cancel()
        if self._changing is not None:
            await self._changing
        await self._server.stop(1001)
        self.port = None
        await self._flush()
        self.outbox.clear()
        await self._client.stop()

    async def _flush(self) -> None:
        if len(self.outbox) and self.manager is not None:
            self._emptied = Deferred()
            late = self.reactor.callLater(FLUSH_PATIENCE, self._emptied.callback, None)
            await self._emptied
            self._emptied = None
            if late.active():
                late.cancel()

    def _evaluate(self) -> None:
        """Open or close the port if that is due."""
        if self._changing is not None or self._stopping or (self._again is not None and self._again.active()):
            return
        wanted = bool(self.fleet.keys) and (self._keep_edges or self.manager is not None)
        if wanted == (self.port is not None):
            return
        changing = Deferred.fromCoroutine(self._open() if wanted else self._close())
        self._changing = changing if not changing.called else None

        def failed(failure: Any) -> None:
            self._log.failure("{id}: the port for edges", failure=failure, id=self.id)
            self._again = self.reactor.callLater(LISTEN_AGAIN, self._evaluate)

        def changed(_: Any) -> None:
            self._changing = None
            self._evaluate()

        changing.addErrback(failed).addBoth(changed)

    async def _open(self) -> None:
        try:
            self.port = await self._server.listen(self._wanted_port, self._interface, shared=self._shared)
            self.trouble = ""
        except CannotListenError as e:
            self.trouble = f"port {self._wanted_port} cannot be opened: {e.socketError}"
            self._log.error("{id}: {trouble}", id=self.id, trouble=self.trouble)
            self._again = self.reactor.callLater(LISTEN_AGAIN, self._evaluate)

    async def _close(self) -> None:
        self.port = None
        await self._server.stop(1001)

    # --- edges

    def refused(self, remote: str) -> None:
        self.refusals += 1
        self.complain("edge refused", f"{remote}: no apikey or an unknown one")

    def up(self, endpoint: EdgeEndpoint, frame: bytes) -> None:
        """A notification of an edge, wrapped."""
        if len(frame) > self._longest:
            self.invalid += 1
            self.complain("message too long", f"{endpoint.edge_id}: {len(frame)} bytes, dropped")
            return
        self.messages_up += 1
        self.bytes_up += len(frame)
        outbox = self.outbox
        outbox.put(frame)
        if outbox.congested:
            self._slow_down(endpoint)

    def _slow_down(self, endpoint: EdgeEndpoint) -> None:
        if self.outbox.choked:
            self.pauses += self.fleet.pause_all()
        elif self.fleet.pause(endpoint):
            self.pauses += 1

    async def ask(self, endpoint: EdgeEndpoint, request: Request) -> Raw:
        """The ``result`` for a request of an edge. 4004 while the manager is away."""
        manager = self.manager
        if manager is None or not manager.connection.is_open:
            raise OpenemsError(errors.JSONRPC_SEND_FAILED)
        if endpoint.asking >= MAX_ASKING:
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        asked = manager.ask(endpoint.edge_id, request)
        if self.outbox.congested:
            self._slow_down(endpoint)
        endpoint.asking += 1
        try:
            return await asked
        finally:
            endpoint.asking -= 1

    # --- manager

    def send(self, frame: bytes) -> None:
        """An answer or a request, in order with everything else."""
        self.messages_up += 1
        self.bytes_up += len(frame)
        self.outbox.put(frame)

    def count_down(self, text: bytes) -> None:
        self.messages_down += 1
        self.bytes_down += len(text)

    def keys_received(self, keys: Mapping[str, str]) -> None:
        self.informed = True
        if not keys:
            self.complain("no edges", "the manager knows no edge: the port stays closed")
        elif len(keys) != len(self.fleet.keys):
            self._log.info("{id}: the manager knows {number} edges", id=self.id, number=len(keys))
        self.fleet.update(keys)
        self._evaluate()

    def _manager_endpoint(self, connection: Connection) -> ManagerEndpoint:
        return ManagerEndpoint(connection, self)

    def manager_opened(self, endpoint: ManagerEndpoint) -> None:
        self._log.info("{id}: connected with the manager", id=self.id)
        if self._met_manager:
            self.reconnects += 1
        self._met_manager = True
        self.manager = endpoint
        if self.fleet.edges:
            # Before anything that waited: a manager may take nothing of an edge that it was not told of.
            endpoint.connection.send(self._list())
        self.outbox.opened(endpoint.connection.send)
        self._evaluate()

    def manager_closed(self, endpoint: ManagerEndpoint) -> None:
        if endpoint is not self.manager:
            return
        self._log.warn("{id}: the manager is gone", id=self.id)
        self.manager = None
        self.outbox.closed()
        self.fleet.resume()
        if self._emptied is not None and not self._emptied.called:
            self._emptied.callback(None)
        self._evaluate()

    def manager_flows(self, endpoint: ManagerEndpoint, flowing: bool) -> None:
        if endpoint is not self.manager:
            return
        if not flowing:
            self.outbox.stopped()
            return
        self.outbox.resumed()
        if self.fleet.paused and self.outbox.relieved:
            self.fleet.resume()
        if not len(self.outbox) and self._emptied is not None and not self._emptied.called:
            self._emptied.callback(None)

    def edge_opened(self, endpoint: EdgeEndpoint) -> None:
        self.fleet.add(endpoint)
        if self.reactor.seconds() - self._told_at >= LIST_INTERVAL:
            self._tell_edges()

    def _tell_edges(self) -> None:
        if self.fleet.changed and self.manager is not None and not self.outbox.list_waits:
            self.outbox.put(ConnectedEdges(self._list()))

    def _list(self) -> bytes:
        self.fleet.changed = False
        self._told_at = self.reactor.seconds()
        # There are no threads; the names are those that a manager knows.
        metrics = {
            "PoolSize": 1,
            "MaxPoolSize": 1,
            "Active": 0,
            "Pending": len(self.outbox),
            "Completed": self.messages_up,
            "Connections": len(self._server.connections),
        }
        params = {"edgeIds": list(self.fleet.edges), "metrics": metrics}
        return Notification("connectedEdges", jsonrpc.raw(params)).encode()

    # --- what it tells of itself

    def status(self) -> Status:
        outbox, fleet = self.outbox, self.fleet
        return Status(
            id=self.id,
            connected=self.manager is not None,
            informed=self.informed,
            listening=self.port is not None,
            port=self.port or 0,
            trouble=self.trouble,
            known_edges=len(fleet.keys),
            edges=len(fleet.edges),
            connections=len(self._server.connections),
            messages_up=self.messages_up,
            messages_down=self.messages_down,
            bytes_up=self.bytes_up,
            bytes_down=self.bytes_down,
            waiting_messages=len(outbox),
            waiting_bytes=outbox.bytes,
            dropped_messages=outbox.dropped,
            dropped_bytes=outbox.dropped_bytes,
            invalid_messages=self.invalid,
            refused_edges=self.refusals,
            replaced_edges=fleet.replaced,
            paused_edges=len(fleet.paused),
            pauses=self.pauses,
            reconnects=self.reconnects,
        )
