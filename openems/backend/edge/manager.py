"""The fleet: which edges are connected and how, what they say, how requests reach them (edge.md 3, 5).

One owner of all of it. Connections come in through two doors, :mod:`openems.backend.edge.direct` and
:mod:`openems.backend.edge.application`, which tell the manager of links and of messages.

Rules
- An edge is online while it has a link. Its newest link gets the requests; a direct link that is replaced is closed.
- Its cache begins with its first message and outlives a reconnect within a few seconds; of an edge behind an edge
  application, which need not notice, also an ordered restart of the backend (keptvalues.py).
- Sum state and version are taken from timestampedData only: aggregatedData is minutes old (edge.md 8, 6).
- A burst of configurations, as at the first start of an edge, reaches the UIs as its last member (reality.md R5).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.edge.application import ApplicationEndpoint
from openems.backend.edge.cache import EdgeCache, Store
from openems.backend.edge.counters import DataCounter, FleetCounters
from openems.backend.edge.direct import DirectEndpoint
from openems.backend.edge.keptvalues import KeptValues
from openems.backend.edge.link import ApplicationLink, DirectLink
from openems.backend.edge.requests import EdgeRequests
from openems.backend.edge.systemlog import SystemLogSubscriptions, printed_line, subscribe_params
from openems.backend.events import ConfigReceived, EdgesChanged, EventBus
from openems.backend.interfaces import IDebugLoggable, IEdgeManager, IUiWebsocket
from openems.backend.models import Edge, User
from openems.common import errors
from openems.common.data import BACKEND, DataKind, DataNotification, Row, Value, rows_of
from openems.common.errors import OpenemsError, printable, short
from openems.common.jsonrpc import Members, Notification, Request, dumps, new_id, raw
from openems.common.role import Language, Level, Role
from openems.common.semver import SemanticVersion
from openems.websocket.peer import DEFAULT_TIMEOUT, Connection
from openems.websocket.proxies import TrustedProxies
from openems.websocket.server import MAX_MESSAGE_SIZE, WebSocketServer

MINUTE = 60_000
#: Seconds the values of an edge are kept after its last link is gone.
CACHE_GRACE = 5.0
#: Seconds without a further configuration that end a burst, and the longest wait for that.
CONFIG_QUIET = 0.5
CONFIG_PATIENCE = 3.0
#: The longest time-out a request may ask for, in seconds: a wait that never ends holds its place for ever.
MAX_TIMEOUT = 3600
#: Seconds between two lines about the same kind of trouble that peers can cause.
COMPLAINT_INTERVAL = 10.0

_INTERNAL = User(id="internal", user_id="internal", name="UnsubscribeSystemLogNotification", language=Language.EN)
_ADMINISTRATION = User(id="internal", user_id="internal", name="Backend", language=Language.EN)


class FleetEdge:
    """What is known of one connected edge. ``links``: the newest last."""

    __slots__ = ("burst_began", "cache", "config", "edge", "expiry", "links", "minute", "quiet")

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.links: list[Any] = []
        self.cache = EdgeCache()
        #: Epoch milliseconds of the last ``lastmessage``, so that the hot path asks once a minute only.
        self.minute = 0
        self.expiry: Any = None
        self.config: Notification | None = None
        self.quiet: Any = None
        self.burst_began = 0.0


@implementer(IEdgeManager, IDebugLoggable)
class EdgeManager:
    """``now`` gives epoch milliseconds. ``ui`` may be set later; without it nothing is pushed. ``kept`` has live values
    of the last run."""

    _log = Logger()

    def __init__(
        self,
        metadata: Any,
        timedata: Any,
        events: EventBus,
        *,
        reactor: Any,
        now: Callable[[], int],
        app_center: Any = None,
        oauth_registry: Any = None,
        ui: IUiWebsocket | None = None,
        observe: Callable[[str, float], None] | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        proxies: TrustedProxies | None = None,
        kept: KeptValues | None = None,
    ) -> None:
        self.metadata = metadata
        self.ui: Any = ui
        self.requests = EdgeRequests(metadata, app_center, oauth_registry, seconds=reactor.seconds)
        self.metrics_consumers: list[Any] = []
        #: What edge applications must have in their header ``secret``; empty: nothing, as with the Java program.
        self.application_secret = ""
        self.messages = 0
        self.values = 0
        self.dropped: dict[str, int] = {}
        self.counters = FleetCounters()
        self._observe = observe
        self._kept = kept
        self._timedata = timedata
        self._events = events
        self.reactor = reactor
        self._now = now
        self._fleet: dict[str, FleetEdge] = {}
        self._logs = SystemLogSubscriptions()
        self._complained: dict[str, tuple[float, int]] = {}
        self._direct: set[DirectEndpoint] = set()
        self._applications: set[ApplicationEndpoint] = set()
        options: dict[str, Any] = {
            "reactor": reactor,
            "observe": observe,
            "max_message_size": max_message_size,
            "proxies": proxies,
        }
        self.edges_server = WebSocketServer("Backend.Edge.Server", self._direct_endpoint, **options)
        self.applications_server = WebSocketServer("Edge.Manager", self._application_endpoint, **options)
        self._unsubscribe: Callable[[], None] | None = None

    # --- life

    async def start(self) -> None:
        if self._unsubscribe is None:
            self._unsubscribe = self._events.subscribe(EdgesChanged, lambda _: self._edges_changed())
        if self._kept is not None:
            self._kept.load()
        if not self.metadata.apikeys_to_edge_ids():
            self._log.warn("No edge is configured: no edge can connect, edge applications wait for a list with edges")

    async def listen_edges(self, port: int, interface: str = "") -> int:
        """Open the port for edges; raises CannotListenError."""
        return await self._listen(self.edges_server, port, interface)

    async def listen_applications(self, port: int, interface: str = "") -> int:
        """Open the port for edge applications; raises CannotListenError."""
        return await self._listen(self.applications_server, port, interface)

    async def _listen(self, server: WebSocketServer, port: int, interface: str) -> int:
        try:
            return await server.listen(port, interface)
        except CannotListenError as e:
            self._log.error("{name}: unable to open port {port}: {why}", name=server.name, port=port, why=e.socketError)
            raise

    async def stop(self) -> None:
        """Edges and edge applications get Close 1001."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        behind = {
            edge_id: entry.cache
            for edge_id, entry in self._fleet.items()
            if entry.links and isinstance(entry.links[-1], ApplicationLink)
        }
        both = [Deferred.fromCoroutine(server.stop(1001)) for server in (self.edges_server, self.applications_server)]
        for stopped in both:
            await stopped
        if self._kept is not None:
            self._kept.save(behind)
        for entry in self._fleet.values():
            for call in (entry.expiry, entry.quiet):
                if call is not None and call.active():
                    call.cancel()

    def _direct_endpoint(self, connection: Connection) -> DirectEndpoint:
        return DirectEndpoint(connection, self)

    def _application_endpoint(self, connection: Connection) -> ApplicationEndpoint:
        return ApplicationEndpoint(connection, self)

    # --- for the doors: links

    def opened(self, endpoint: DirectEndpoint | ApplicationEndpoint) -> None:
        if isinstance(endpoint, DirectEndpoint):
            self._direct.add(endpoint)
        else:
            self._applications.add(endpoint)

    def closed(self, endpoint: DirectEndpoint | ApplicationEndpoint) -> None:
        if isinstance(endpoint, DirectEndpoint):
            self._direct.discard(endpoint)
        else:
            self._applications.discard(endpoint)

    def link(self, edge_id: str, link: Any) -> FleetEdge | None:
        """A connection speaks for this edge from now on; None if metadata does not know it."""
        edge = self.metadata.get_edge(edge_id)
        if edge is None:
            return None
        entry = self._fleet.get(edge_id)
        if entry is None:
            entry = self._fleet[edge_id] = FleetEdge(edge)
            if self._kept is not None and isinstance(link, ApplicationLink):
                self._kept.restore(edge_id, entry.cache)
        entry.edge = edge
        if entry.expiry is not None:
            entry.expiry.cancel()
            entry.expiry = None
        older, entry.links = entry.links, [*entry.links, link]
        self.counters.connects["direct" if isinstance(link, DirectLink) else "application"] += 1
        edge.set_online(True)
        edge.set_lastmessage(self._now())
        for old in older:
            # Its close takes its time; until then it must not keep the edge online, nor get requests.
            if old.replaced():
                self.counters.disconnects["replaced"] += 1
                if old in entry.links:
                    entry.links.remove(old)
        if self._logs.readers(edge_id):
            self._tell_edge(edge_id, True, _ADMINISTRATION, Role.OWNER)
        return entry

    def unlink(self, edge_id: str, link: Any) -> None:
        """That connection does not speak for this edge any more."""
        entry = self._fleet.get(edge_id)
        if entry is None or link not in entry.links:
            return
        entry.links.remove(link)
        if not entry.links:
            self.counters.disconnects["closed"] += 1
            entry.edge.set_online(False)
            self._logs.disconnected(edge_id)
            entry.expiry = self.reactor.callLater(CACHE_GRACE, self._expired, edge_id)

    def _expired(self, edge_id: str) -> None:
        entry = self._fleet.pop(edge_id)
        if entry.quiet is not None and entry.quiet.active():
            entry.quiet.cancel()
            self._broadcast_config(entry)

    def _edges_changed(self) -> None:
        for endpoint in tuple(self._direct):
            endpoint.check_key()
        for application in tuple(self._applications):
            application.send_metadata()

    # --- for the doors: messages

    def data(self, edge_id: str, entry: FleetEdge, kind: DataKind, params: dict[str, Any]) -> None:
        """A data notification. The hot path: no logging, no call per value."""
        now = self._now()
        self.messages += 1
        if now - entry.minute >= MINUTE:
            entry.minute = now - now % MINUTE
            entry.edge.set_lastmessage(now)
        if not params:
            return
        rows, dropped = rows_of(params, now)
        if dropped:
            self._count(edge_id, dropped)
        if not rows:
            return
        values = 0
        for row in rows.values():
            values += len(row)
        self.values += values
        if kind is DataKind.TIMESTAMPED:
            self._store(edge_id, entry.cache.current, rows)
            self._timedata.write(edge_id, DataNotification(kind, rows))
            for row in rows.values():
                if "_sum/State" in row or "_meta/Version" in row:
                    self._state_and_version(entry.edge, row)
        elif kind is DataKind.AGGREGATED:
            self.counters.aggregated_values += values
            self._store(edge_id, entry.cache.aggregated, rows)
            self._timedata.write(edge_id, DataNotification(kind, rows))
        else:
            self.counters.resent_values += values
            self._timedata.write(edge_id, DataNotification(kind, rows))
            return
        if self.ui is not None:
            self.ui.send_subscribed_channels(edge_id)

    def sample(self, counter: DataCounter, edge_id: str, entry: FleetEdge, params: dict[str, Any]) -> None:
        """A data notification that is looked at more closely."""
        counter.sample(params, self._now(), lambda: self.data(edge_id, entry, counter.kind, params))

    def _store(self, edge_id: str, store: Store, rows: dict[int, Row]) -> None:
        store.update(rows)
        if store.dropped:
            dropped, store.dropped = store.dropped, {}
            self._count(edge_id, dropped)

    def notification(self, edge_id: str, entry: FleetEdge, notification: Notification) -> None:
        """Any notification of an edge."""
        direct = bool(entry.links) and isinstance(entry.links[-1], DirectLink)
        kind = _KINDS.get(notification.method)
        if kind is not None:
            (self.counters.direct if direct else self.counters.application)[notification.method].count += 1
            self.data(edge_id, entry, kind, notification.members().as_dict())
            return
        begun = perf_counter()
        try:
            self._notification(edge_id, entry, notification)
        finally:
            self.observe(notification.method if direct else f"edgeRpc/{notification.method}", perf_counter() - begun)

    def observe(self, method: str, seconds: float) -> None:
        if self._observe is not None:
            self._observe(method, seconds)

    def _notification(self, edge_id: str, entry: FleetEdge, notification: Notification) -> None:
        self.messages += 1
        entry.edge.set_lastmessage(self._now())
        if notification.method == "edgeConfig":
            self._config(edge_id, entry, notification)
        elif notification.method == "systemLog":
            self._system_log(edge_id, notification)
        elif notification.method == "logMessage":
            members = notification.members()
            level, text = members.string("level").upper(), members.string("msg")
            # A kind of its own: other lines about this edge must not hide what it wants to say.
            self.complain(f"Edge {edge_id}", f"{short(level, 20)}-Message: {short(text, 500)}")
        else:
            self.complain(edge_id, f"Unhandled Notification: {short(notification.method, 100)}")

    def metrics(self, application_id: str, metrics: Mapping[str, int | float]) -> None:
        """What an edge application tells of itself (edge.md 3.4)."""
        if not metrics:
            return
        now = self._now()
        named = {f"{application_id}/{name}": value for name, value in metrics.items()}
        if self.metadata.get_edge(BACKEND) is None:
            self._timedata.write(BACKEND, DataNotification(DataKind.TIMESTAMPED, {now: dict(named)}))
        for consumer in self.metrics_consumers:
            try:
                consumer.consume_metrics(now, named)
            except Exception as e:
                self.complain(f"{application_id} metrics", f"{type(consumer).__name__} failed: {e!r}")

    def complain(self, kind: str, text: str) -> None:
        """One line about something a peer did; at most one in ten seconds of a kind, with the number left out."""
        now = self.reactor.seconds()
        last, left_out = self._complained.get(kind, (-COMPLAINT_INTERVAL, 0))
        if now - last < COMPLAINT_INTERVAL:
            self._complained[kind] = (last, left_out + 1)
            return
        if len(self._complained) > 10_000:
            self._complained.clear()
        self._complained[kind] = (now, 0)
        more = f" ({left_out} more of this kind)" if left_out else ""
        self._log.warn("[{kind}] {text}{more}", kind=printable(kind), text=printable(text), more=more)

    def _count(self, edge_id: str, dropped: Mapping[str, int]) -> None:
        for reason, number in dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + number
            self.complain(f"{edge_id} {reason}", f"{number} entries dropped: bad {reason}")

    def _state_and_version(self, edge: Edge, row: Row) -> None:
        state = row.get("_sum/State")
        if state is not None and not isinstance(state, dict | list):
            edge.set_sum_state(level_of(state))
        version = row.get("_meta/Version")
        if version is not None and not isinstance(version, dict | list):
            try:
                edge.set_version(SemanticVersion.parse(str(version)))
            except ValueError as e:
                self.complain(f"{edge.id} version", str(e))

    def _config(self, edge_id: str, entry: FleetEdge, notification: Notification) -> None:
        self._events.publish(ConfigReceived(edge_id, notification.params))
        now = self.reactor.seconds()
        entry.config = notification
        wait = CONFIG_QUIET
        if entry.quiet is not None and entry.quiet.active():
            entry.quiet.cancel()
            wait = max(0.0, min(wait, entry.burst_began + CONFIG_PATIENCE - now))
        else:
            entry.burst_began = now
        entry.quiet = self.reactor.callLater(wait, self._broadcast_config, entry)

    def _broadcast_config(self, entry: FleetEdge) -> None:
        notification, entry.config = entry.config, None
        if notification is not None and self.ui is not None:
            self.ui.send_broadcast(entry.edge.id, notification)

    def _system_log(self, edge_id: str, notification: Notification) -> None:
        readers = self._logs.readers(edge_id)
        if not readers or self.ui is None:
            if self._logs.stray_line(edge_id, self.reactor.seconds()):
                self._tell_edge(edge_id, False, _INTERNAL, Role.GUEST)
            return
        try:
            line = printed_line(notification)
        except OpenemsError as e:
            self.dropped["line"] = self.dropped.get("line", 0) + 1
            self.complain(f"{edge_id} line", e.message)
            return
        for session_id in readers:
            if not self.ui.send(session_id, edge_id, line):
                self._logs.unsubscribe(edge_id, session_id)

    def _tell_edge(self, edge_id: str, subscribe: bool, user: User, role: Role) -> None:
        request = Request("subscribeSystemLog", Raw(subscribe_params(subscribe)), new_id())
        told = Deferred.fromCoroutine(self.send(edge_id, user, role, request))
        told.addErrback(lambda failure: failure.trap(OpenemsError))

    # --- IEdgeManager

    async def send(self, edge_id: str, user: User, role: Role, request: Request) -> Raw:
        entry = self._fleet.get(edge_id)
        if entry is None or not entry.links:
            raise OpenemsError(errors.BACKEND_EDGE_NOT_CONNECTED, edge_id)
        asked = request.timeout
        timeout = min(asked, MAX_TIMEOUT) if asked is not None and asked > 0 else DEFAULT_TIMEOUT
        params = _authenticated(user, role, request)
        *older, newest = entry.links
        try:
            result = await newest.authenticated_rpc(params, timeout)
        except OpenemsError as e:
            if e.code != errors.JSONRPC_SEND_FAILED or not older:
                raise
            # It went back through the edge application that it came from, which told of no change.
            result = await older[-1].authenticated_rpc(params, timeout)
        return Members(Members(result).raw_object("payload")).raw_object("result")

    async def subscribe_system_log(
        self, edge_id: str, user: User, role: Role, session_id: str, request: Request
    ) -> Raw:
        if request.members().boolean("subscribe"):
            self._logs.subscribe(edge_id, session_id)
        elif not self._logs.unsubscribe(edge_id, session_id):
            return raw({})
        return await self.send(edge_id, user, role, request)

    def unsubscribe_system_logs(self, session_id: str) -> None:
        for edge_id in self._logs.forget(session_id):
            if self.is_connected(edge_id):
                self._tell_edge(edge_id, False, _INTERNAL, Role.GUEST)

    def get_channel_values(self, edge_id: str, channels: Sequence[str]) -> dict[str, Value]:
        entry = self._fleet.get(edge_id)
        if entry is None or not entry.links:
            return dict.fromkeys(sorted(channels))
        return entry.cache.get_channel_values(channels)

    def is_connected(self, edge_id: str) -> bool:
        entry = self._fleet.get(edge_id)
        return entry is not None and bool(entry.links)

    # --- IDebugLoggable

    def cache_entries(self) -> int:
        """Values kept of all edges."""
        return sum(len(e.cache.current.values) + len(e.cache.aggregated.values) for e in self._fleet.values())

    def application_ids(self) -> frozenset[str]:
        """Of the edge applications that are connected."""
        return frozenset(application.application_id for application in self._applications)

    def debug_log(self) -> str | None:
        remote = ",".join(f"{a.application_id}:{len(a.edges)}" for a in self._applications)
        text = (
            f"[Edge.Manager] [monitor] Connections: {len(self.applications_server.connections)}, "
            f"{self.applications_server.pool_text()}, "
            f"Edges: {len(self.edges_server.connections)}, Online: {sum(bool(e.links) for e in self._fleet.values())}"
        )
        return f"{text}, RemoteConnections: {remote}" if remote else text

    def debug_metrics(self) -> Mapping[str, int | float]:
        metrics: dict[str, int | float] = {
            **self.applications_server.pool("edgewebsocket0"),
            "edgewebsocket0/Connections": len(self.applications_server.connections),
            **self.edges_server.pool("Backend.Edge.Server"),
            "Backend.Edge.Server/Connections": len(self.edges_server.connections),
            "edgewebsocket0/Messages": self.messages,
            "edgewebsocket0/Values": self.values,
        }
        for reason, number in self.dropped.items():
            metrics[f"edgewebsocket0/Dropped{reason.capitalize()}"] = number
        return metrics


_KINDS = {kind.value: kind for kind in DataKind}


def level_of(value: Any) -> Level:
    """``_sum/State`` as a level; whatever is no known number is FAULT (edge.md 9.3)."""
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            return Level.FAULT
    if isinstance(value, bool) or value != value:
        return Level.FAULT
    return Level(int(value)) if 0 <= value < 4 else Level.FAULT


def _authenticated(user: User, role: Role, request: Request) -> Raw:
    """``params`` of ``authenticatedRpc`` (wire.md 6.1). The edge refuses a user without name."""
    who: dict[str, Any] = {"id": user.id, "name": user.name or user.id}
    if user.language is not None:
        who["language"] = user.language.value
    who["role"] = role.json
    return Raw(b'{"user":%b,"payload":%b}' % (dumps(who), request.encode()))
