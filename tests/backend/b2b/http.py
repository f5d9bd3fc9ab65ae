"""A REST server without sockets: bytes in, bytes out, the clock in the test's hand."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from openems.backend.b2b.rest import Backend2BackendRest
from tests.backend.b2b.world import World, basic


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        """(code, message, data)"""
        error = self.json["error"]
        return error["code"], error["message"], error["data"]


class _Transport(StringTransport):
    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True


class Connection:
    """One client's connection."""

    def __init__(self, rest: Backend2BackendRest, host: str = "192.0.2.1") -> None:
        address = IPv4Address("TCP", host, 4711)
        self.channel: Any = rest.site.buildProtocol(address)
        if self.channel is not None:
            self.transport = _Transport(peerAddress=address)
            self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def lose(self) -> None:
        self.channel.connectionLost(Failure(ConnectionLost()))

    def replies(self) -> list[Reply]:
        """All that came since the last call."""
        data = self.transport.value()
        self.transport.clear()
        replies = []
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:])}
            length = int(headers.get("content-length", 0))
            replies.append(Reply(int(lines[0].split(" ")[1]), headers, data[:length]))
            data = data[length:]
        return replies

    def reply(self) -> Reply:
        replies = self.replies()
        assert len(replies) == 1, replies
        return replies[0]


def request(
    body: bytes | str | dict[str, Any] = b"",
    *,
    method: str = "POST",
    path: str = "/jsonrpc",
    headers: dict[str, str] | None = None,
    auth: str | None = basic(),
) -> bytes:
    if isinstance(body, dict):
        body = json.dumps(body)
    data = body.encode() if isinstance(body, str) else body
    lines = [f"{method} {path} HTTP/1.1", "Host: ems.example.org"]
    if auth is not None:
        lines.append(f"Authorization: {auth}")
    for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
        lines.append(f"{name}: {value}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class RestWorld(World):
    def __init__(self, **options: Any) -> None:
        super().__init__(MemoryReactorClock())
        self.observed: list[tuple[str, float]] = []
        self.rest = Backend2BackendRest(
            self.metadata,  # type: ignore[arg-type]
            self.handler,
            self.credentials,
            reactor=self.clock,
            version="1.0",
            observe=lambda method, seconds: self.observed.append((method, seconds)),
            **options,
        )
        self.connection = Connection(self.rest)

    def send(self, body: bytes | str | dict[str, Any] = b"", **options: Any) -> None:
        self.connection.send(request(body, **options))

    def ask(self, body: bytes | str | dict[str, Any] = b"", **options: Any) -> Reply:
        self.send(body, **options)
        return self.connection.reply()

    def call(self, method: str, params: Any, **members: Any) -> Reply:
        return self.ask({"method": method, "params": params, **members})
