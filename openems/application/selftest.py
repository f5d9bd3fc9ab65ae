"""One WebSocket to ourselves before the real ones open: whether the installed libraries work together."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from openems.backend.interfaces import IEndpoint
from openems.common.jsonrpc import Notification, Request
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection
from openems.websocket.server import WebSocketServer

TIMEOUT = 10.0
PACKAGES = ("Twisted", "autobahn", "msgspec", "websockets", "zope.interface")
_TEXT = "\u00e4" * 100


class SelfTestFailed(Exception):
    """The text names the packages with their versions, and the first cause."""


@implementer(IEndpoint)
class _Echo:
    def opened(self) -> None:
        pass

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Request) -> Any:
        return {"echo": _TEXT}

    def notification(self, notification: Notification) -> None:
        pass

    def closed(self) -> None:
        pass


class _Asking(_Echo):
    def __init__(self, connection: Connection, answered: Deferred[None]) -> None:
        self._connection = connection
        self._answered = answered

    def opened(self) -> None:
        asked = self._connection.request("echo", {"text": _TEXT}, timeout=TIMEOUT)
        asked.addCallbacks(lambda _: self._answered.callback(None), self._answered.errback)


async def self_test(reactor: Any) -> None:
    """Raises :class:`SelfTestFailed`."""
    answered: Deferred[None] = Deferred()
    server = WebSocketServer("Self-test", lambda connection: _Echo(), reactor=reactor)
    client: ReconnectingClient | None = None
    try:
        port = await server.listen(0, "127.0.0.1")
        client = ReconnectingClient(
            f"ws://127.0.0.1:{port}",
            {},
            lambda connection: _Asking(connection, answered),
            reactor=reactor,
            min_wait=TIMEOUT,
            max_wait=TIMEOUT,
            name="Self-test",
        )
        client.start()
        await answered.addTimeout(TIMEOUT, reactor)
    except Exception as e:
        installed = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
        raise SelfTestFailed(
            f"a WebSocket to this program itself does not work with {installed}: {type(e).__name__}: {e}"
        ) from e
    finally:
        if client is not None:
            await client.stop()
        await server.stop(None)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
