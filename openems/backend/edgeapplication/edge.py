"""One edge at an edge application: what it sends goes up as it is (edge.md 2.3 to 2.6).

The upgrade succeeds for everybody; a wrong key then ends TCP without a Close frame. Nothing is sent to say that the key
was right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw
from zope.interface import implementer

from openems.backend.edgeapplication import wrapping
from openems.backend.interfaces import IEndpoint
from openems.common.jsonrpc import Notification, Request
from openems.websocket.peer import Connection, Refused

if TYPE_CHECKING:
    from openems.backend.edgeapplication.application import EdgeApplication


@implementer(IEndpoint)
class EdgeEndpoint:
    __slots__ = ("_application", "_head", "asking", "connection", "edge_id")

    def __init__(self, connection: Connection, application: EdgeApplication) -> None:
        self.connection = connection
        self.edge_id = ""
        #: Its requests that the manager has not answered.
        self.asking = 0
        self._application = application
        self._head = b""

    @property
    def apikey(self) -> str:
        return self.connection.headers.get("apikey", "")

    def opened(self) -> None:
        application = self._application
        edge_id = application.fleet.keys.get(self.apikey) if self.apikey else None
        if edge_id is None:
            application.refused(self.connection.remote)
            raise Refused
        self.edge_id = edge_id
        self._head = wrapping.head(edge_id)
        application.edge_opened(self)

    def received(self, text: bytes) -> bool:
        # The hot path: one check, one concatenation.
        if not wrapping.is_plain_notification(text):
            if not wrapping.is_message(text):
                self._application.invalid += 1
            return False
        self._application.up(self, self._head + text + wrapping.TAIL)
        return True

    def notification(self, notification: Notification) -> None:
        """One with other members, or with a NaN: what the dialect knows of it goes up."""
        self._application.up(self, self._head + notification.encode() + wrapping.TAIL)

    async def request(self, request: Request) -> Raw:
        return await self._application.ask(self, request)

    def closed(self) -> None:
        if self.edge_id:
            self._application.fleet.remove(self)
