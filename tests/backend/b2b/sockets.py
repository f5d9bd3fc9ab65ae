"""The WebSocket server without sockets."""

from __future__ import annotations

from typing import Any

from openems.backend.b2b.websocket import Backend2BackendWebsocket
from openems.testing.connections import FakeConnection
from tests.backend.b2b.world import World, basic

ID = "3c6c1b64-0a51-4f7c-9a44-6f4f2d0c1a11"
INNER = "9b1f0a77-3f7e-4a83-8a5d-3b1d2c4e5f05"


class WebsocketWorld(World):
    def __init__(self, reactor: Any = None, **options: Any) -> None:
        super().__init__(reactor)
        self.server = Backend2BackendWebsocket(
            self.metadata,  # type: ignore[arg-type]
            self.edges,
            self.handler,
            self.credentials,
            reactor=self.clock,
            events=self.events,
            **options,
        )

    def connect(self, authorization: str | None = basic(), remote: str = "192.0.2.1:4711") -> FakeConnection:
        headers = {} if authorization is None else {"authorization": authorization}
        connection = FakeConnection(headers, self.clock, remote=remote)
        connection.open(self.server.endpoint(connection))
        return connection

    def seconds(self, seconds: float) -> None:
        """In steps that binary fractions hold exactly."""
        for _ in range(round(seconds * 8)):
            self.clock.advance(0.125)


def ask(connection: FakeConnection, method: str, params: Any, **members: Any) -> Any:
    """What the request got at once: (code, message, data), or the result; the last message is the reply."""
    connection.take()
    connection.receive({"jsonrpc": "2.0", "id": ID, "method": method, "params": params, **members})
    reply = connection.take()[-1]
    assert list(reply)[:2] == ["jsonrpc", "id"] and reply["id"] == ID, reply
    return (
        (reply["error"]["code"], reply["error"]["message"], reply["error"]["data"])
        if "error" in reply
        else reply["result"]
    )


def subscribe(connection: FakeConnection, count: Any, edges: list[str], channels: list[str]) -> Any:
    return ask(connection, "subscribeEdgesChannels", {"count": count, "ids": edges, "channels": channels})


def values(connection: FakeConnection) -> list[Any]:
    """Params of the edgesCurrentData since the last call."""
    messages = connection.take()
    assert all(message["method"] == "edgesCurrentData" for message in messages), messages
    return [message["params"] for message in messages]
