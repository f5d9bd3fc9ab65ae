"""How a request reaches an edge: one small interface, two doors (edge.md 3.7).

Nobody above knows whether an edge is connected here or behind an edge application.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from openems.common import jsonrpc
from openems.common.jsonrpc import Members
from openems.websocket.peer import Connection


class IEdgeLink(Interface):
    def authenticated_rpc(params: Any, timeout: float) -> Deferred[Raw]:
        """Send ``authenticatedRpc`` with these params; the ``result`` of the edge's answer to it.

        Fails like :meth:`openems.websocket.peer.Connection.request`; 5003 if an envelope is missing.
        """

    def replaced() -> bool:
        """A newer link of the same edge takes over; True if this one ends by that, and carries nothing any more."""


@implementer(IEdgeLink)
class DirectLink:
    """An edge connected here."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def authenticated_rpc(self, params: Any, timeout: float) -> Deferred[Raw]:
        return self._connection.request("authenticatedRpc", params, timeout=timeout)

    def replaced(self) -> bool:
        self._connection.close(1000, "Replaced by a newer connection of this edge")
        return True


@implementer(IEdgeLink)
class ApplicationLink:
    """An edge behind an edge application: the request travels in an ``edgeRpc``."""

    def __init__(self, connection: Connection, edge_id: str) -> None:
        self._connection = connection
        self._edge_id = edge_id

    def authenticated_rpc(self, params: Any, timeout: float) -> Deferred[Raw]:
        payload = jsonrpc.Request("authenticatedRpc", jsonrpc.raw(params), jsonrpc.new_id())
        envelope = Raw(b'{"edgeId":%b,"payload":%b}' % (jsonrpc.dumps(self._edge_id), payload.encode()))
        answered = self._connection.request("edgeRpc", envelope, timeout=timeout)
        return answered.addCallback(lambda result: Members(Members(result).raw_object("payload")).raw_object("result"))

    def replaced(self) -> bool:
        """The application has other edges, too; it stays."""
        return False
