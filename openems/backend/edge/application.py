"""A Backend.Edge.App with the edges behind it, port 8083 (edge.md 3.2 to 3.6).

Whoever can open that port with a header ``id`` learns all keys and speaks for all edges: keep it private.

An edge counts as connected from its first message on, so that its first snapshot is not lost; ``connectedEdges``, which
comes every five seconds, confirms it or not.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import orjson
from msgspec import Raw
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from openems.backend.edge.link import ApplicationLink
from openems.backend.interfaces import IEndpoint
from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError, generic, short
from openems.common.jsonrpc import Members, Notification, Request
from openems.websocket.peer import Connection, Refused

if TYPE_CHECKING:
    from openems.backend.edge.manager import EdgeManager, FleetEdge

#: Seconds an edge that only sent a message may wait to be listed.
CONFIRMATION = 15.0
#: Numbers that an application tells of itself: each becomes a series of the history, where there is room for so many.
MAX_METRICS = 100
MAX_METRIC = 2.0**63


class _Edge:
    __slots__ = ("confirmation", "entry", "link")

    def __init__(self, link: ApplicationLink, entry: FleetEdge) -> None:
        self.link = link
        self.entry = entry
        self.confirmation: Any = None


@implementer(IEndpoint)
class ApplicationEndpoint:
    def __init__(self, connection: Connection, manager: EdgeManager) -> None:
        self.application_id = short(connection.headers.get("id", ""), 100)
        self.edges: dict[str, _Edge] = {}
        self._connection = connection
        self._manager = manager
        self._counters = manager.counters.application
        self._reactor: IReactorTime = manager.reactor

    def opened(self) -> None:
        if not self.application_id:
            self._manager.counters.refusals["application_id"] += 1
            self._manager.complain("application refused", f"{self._connection.remote}: no header id")
            raise Refused
        secret = self._manager.application_secret
        if secret and not hmac.compare_digest(secret.encode(), self._connection.headers.get("secret", "").encode()):
            self._manager.complain("application refused", f"{self._connection.remote}: not one of the backend's own")
            raise Refused
        self._manager.opened(self)
        self.send_metadata()

    def closed(self) -> None:
        self._manager.closed(self)
        for edge_id in tuple(self.edges):
            self._remove(edge_id)

    def send_metadata(self) -> None:
        """``updateMetadataCache``: now, and whenever edges or keys change."""
        keys: Mapping[str, str] = self._manager.metadata.apikeys_to_edge_ids()
        if not keys:
            self._manager.complain(f"{self.application_id} no edges", "no edge is configured: the application waits")
        self._connection.notify(Notification("updateMetadataCache", jsonrpc.raw({"apikeysToEdgeIds": dict(keys)})))
        for edge_id in tuple(self.edges):
            if self._manager.metadata.get_edge(edge_id) is None:
                self._remove(edge_id)

    def received(self, text: bytes) -> bool:
        try:
            message = orjson.loads(text)
            params = message["params"]
            payload = params["payload"]
            counter = self._counters.get(payload["method"])
            data = payload["params"]
            edge_id = params["edgeId"]
        except (ValueError, KeyError, TypeError):
            return False
        if counter is None or type(data) is not dict or "id" in message or message.get("method") != "edgeRpc":
            return False
        edge = self.edges.get(edge_id) if type(edge_id) is str else None
        if edge is None:
            return False
        counter.count += 1
        if counter.count >= counter.due:
            self._manager.sample(counter, edge_id, edge.entry, data)
        else:
            self._manager.data(edge_id, edge.entry, counter.kind, data)
        return True

    async def request(self, request: Request) -> Any:
        if request.method != "edgeRpc":
            raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, request.method)
        members = request.members()
        edge_id = members.string("edgeId")
        payload = members.request()
        if self._edge(edge_id) is None:
            raise generic(f"Unable to find edge with id [{short(edge_id, 100)}]")
        result = jsonrpc.raw(await self._manager.requests.handle(edge_id, payload))
        return Raw(b'{"payload":%b}' % jsonrpc.Success(payload.id, result).encode())

    def notification(self, notification: Notification) -> None:
        if notification.method == "edgeRpc":
            members = notification.members()
            edge_id = members.string("edgeId")
            edge = self._edge(edge_id)
            if edge is None:
                self._manager.complain("unknown edge", f"{self.application_id}: {short(edge_id, 100)}")
                return
            self._manager.notification(edge_id, edge.entry, jsonrpc.notification_of(members.raw_object("payload")))
        elif notification.method == "connectedEdges":
            begun = perf_counter()
            try:
                self._connected_edges(notification.members())
            finally:
                self._manager.observe(notification.method, perf_counter() - begun)
        else:
            self._manager.complain(self.application_id, f"Unhandled Notification: {short(notification.method, 100)}")

    def _connected_edges(self, members: Members) -> None:
        listed = {
            element if isinstance(element, str) else errors.json_text(element) for element in members.array("edgeIds")
        }
        metrics = members.object("metrics")
        if len(metrics) > MAX_METRICS:
            raise generic(f"More than {MAX_METRICS} metrics in connectedEdges")
        for value in metrics.values():
            if isinstance(value, bool) or not isinstance(value, int | float) or not -MAX_METRIC < value < MAX_METRIC:
                raise generic("A metric of connectedEdges is no number, or too large")
        for edge_id in listed:
            edge = self._edge(edge_id)
            if edge is not None and edge.confirmation is not None:
                edge.confirmation.cancel()
                edge.confirmation = None
        for edge_id in self.edges.keys() - listed:
            edge = self.edges[edge_id]
            # What just sent its first message may be missing in a list that was made before.
            if edge.confirmation is None:
                self._remove(edge_id)
        self._manager.metrics(self.application_id, metrics)

    def _edge(self, edge_id: str) -> _Edge | None:
        """The edge, linked now if it was not; None if metadata does not know it."""
        edge = self.edges.get(edge_id)
        if edge is None:
            link = ApplicationLink(self._connection, edge_id)
            entry = self._manager.link(edge_id, link)
            if entry is None:
                return None
            edge = self.edges[edge_id] = _Edge(link, entry)
            edge.confirmation = self._reactor.callLater(CONFIRMATION, self._unconfirmed, edge_id)
        return edge

    def _unconfirmed(self, edge_id: str) -> None:
        self.edges[edge_id].confirmation = None
        self._remove(edge_id)

    def _remove(self, edge_id: str) -> None:
        edge = self.edges.pop(edge_id)
        if edge.confirmation is not None:
            edge.confirmation.cancel()
        self._manager.unlink(edge_id, edge.link)
