"""A connection without a socket: what an endpoint sends is a list, what it is asked is a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from openems.common import jsonrpc
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Notification, Request
from openems.websocket.peer import Connection


class FakeConnection(Connection):
    """A real :class:`Connection` over a wire in memory.

    >>> connection = FakeConnection({"apikey": "key0"})
    >>> connection.open(endpoint)              # doctest: +SKIP
    >>> connection.receive({"method": "logMessage", "params": {}})   # doctest: +SKIP
    """

    __slots__ = ("clock", "close_code", "close_reason", "dropped", "reading", "sent", "slow")

    def __init__(
        self,
        headers: Mapping[str, str] | None = None,
        clock: Clock | None = None,
        *,
        remote: str = "192.0.2.1:4711",
        name: str = "Test",
    ) -> None:
        self.clock = clock or Clock()
        self.sent: list[bytes] = []
        self.slow = 0
        self.close_code: int | None = None
        self.close_reason = ""
        self.dropped = False
        self.reading = True
        super().__init__(_MemoryWire(self), name=name, headers=headers or {}, remote=remote, reactor=self.clock)
        self.is_open = True

    def messages(self) -> list[Any]:
        """What was sent, decoded."""
        return [jsonrpc.loads(text) for text in self.sent]

    def take(self) -> list[Any]:
        """:meth:`messages`, and forget them."""
        messages = self.messages()
        self.sent.clear()
        return messages

    def receive(self, message: Any) -> None:
        """The peer sends a message: a dict, a text, bytes, or a message object."""
        if isinstance(message, Request | Notification):
            text = message.encode()
        elif isinstance(message, str):
            text = message.encode()
        else:
            text = message if isinstance(message, bytes) else jsonrpc.dumps(message)
        self.text_received(text)

    def answer(self, result: Any) -> None:
        """The peer answers our oldest pending request."""
        self._oldest().callback(jsonrpc.raw(result))

    def fail(self, error: OpenemsError) -> None:
        self._oldest().errback(error)

    def lose(self) -> None:
        """The connection is gone."""
        self.lost()

    def _oldest(self) -> Deferred[Raw]:
        request_id = next(iter(self._pending))
        waiting, deadline = self._pending.pop(request_id)
        deadline.cancel()
        return waiting


class _MemoryWire:
    def __init__(self, connection: FakeConnection) -> None:
        self._connection = connection

    @property
    def waiting(self) -> int:
        return self._connection.slow

    def write_text(self, text: bytes) -> None:
        self._connection.sent.append(text)

    def close(self, code: int, reason: str) -> None:
        self._connection.close_code = code
        self._connection.close_reason = reason
        self._connection.lost()

    def drop(self, *, abort: bool = True) -> None:
        self._connection.dropped = True
        self._connection.lost()

    def pause_reading(self) -> None:
        self._connection.reading = False

    def resume_reading(self) -> None:
        self._connection.reading = True

    def limit_messages(self, size: int | None) -> None: ...

    def invalid_utf8(self) -> None:
        self.close(1007, "Received text is no valid utf8 string!")
