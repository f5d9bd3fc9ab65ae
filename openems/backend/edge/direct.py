"""An edge connected here, port 8081 (edge.md 2.3 to 2.5).

What a real edge sees is what it sees of the Java pair: the upgrade succeeds; a wrong key then ends TCP without a Close
frame; nothing is sent to say that the key was right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from zope.interface import implementer

from openems.backend.edge.link import DirectLink
from openems.backend.interfaces import IEndpoint
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification, Request
from openems.websocket.peer import Connection, Refused

if TYPE_CHECKING:
    from openems.backend.edge.manager import EdgeManager, FleetEdge


@implementer(IEndpoint)
class DirectEndpoint:
    def __init__(self, connection: Connection, manager: EdgeManager) -> None:
        self._connection = connection
        self._manager = manager
        self._apikey = connection.headers.get("apikey", "")
        self._edge_id = ""
        self._entry: FleetEdge | None = None
        self._link = DirectLink(connection)
        self._counters = manager.counters.direct

    def opened(self) -> None:
        edge_id = self._edge_id_for_key()
        entry = None if edge_id is None else self._manager.link(edge_id, self._link)
        if edge_id is None or entry is None:
            self._manager.counters.refusals["apikey"] += 1
            self._manager.complain("edge refused", f"{self._connection.remote}: no apikey or an unknown one")
            raise Refused
        self._edge_id = edge_id
        self._entry = entry
        self._manager.opened(self)

    def received(self, text: bytes) -> bool:
        try:
            message = orjson.loads(text)
            counter = self._counters.get(message["method"])
            params = message["params"]
        except (ValueError, KeyError, TypeError):
            return False
        if counter is None or type(params) is not dict or "id" in message or self._entry is None:
            return False
        counter.count += 1
        if counter.count >= counter.due:
            self._manager.sample(counter, self._edge_id, self._entry, params)
        else:
            self._manager.data(self._edge_id, self._entry, counter.kind, params)
        return True

    async def request(self, request: Request) -> Any:
        return await self._manager.requests.handle(self._edge_id, request)

    def notification(self, notification: Notification) -> None:
        if self._entry is not None:
            self._manager.notification(self._edge_id, self._entry, notification)

    def closed(self) -> None:
        if self._entry is not None:
            self._entry = None
            self._manager.closed(self)
            self._manager.unlink(self._edge_id, self._link)

    def check_key(self) -> None:
        """Keys changed: the connection ends if its key is no longer that of its edge."""
        if self._edge_id_for_key() != self._edge_id:
            self._connection.close(1000, "Apikey changed")

    def _edge_id_for_key(self) -> str | None:
        """Metadata may refuse an odd key with an error; that is no more than an unknown key."""
        try:
            edge_id: str | None = self._manager.metadata.edge_id_for_apikey(self._apikey) if self._apikey else None
        except OpenemsError:
            return None
        return edge_id
