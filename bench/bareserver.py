"""The bare limit: what any server on this WebSocket stack has to do. Frames are decoded, a dict of values is updated,
messages are counted; requests get an error."""

from __future__ import annotations

from typing import Any

import orjson

from openems.common.jsonrpc import Notification, Request
from openems.websocket.peer import Connection
from openems.websocket.server import WebSocketServer


class BareEndpoint:
    messages = 0

    def __init__(self, connection: Connection) -> None:
        self.values: dict[str, Any] = {}

    def opened(self) -> None:
        pass

    def received(self, text: bytes) -> bool:
        message = orjson.loads(text)
        if "id" in message:
            return False
        for row in message["params"].values():
            self.values.update(row)
        BareEndpoint.messages += 1
        return True

    async def request(self, request: Request) -> None:
        return None

    def notification(self, notification: Notification) -> None:
        pass

    def closed(self) -> None:
        pass


async def start(reactor: Any) -> int:
    """The port, on loopback."""
    return await WebSocketServer("Bare", BareEndpoint, reactor=reactor).listen(0, "127.0.0.1")
