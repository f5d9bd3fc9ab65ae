"""A scripted UI over a real socket: logs in, asks, waits for pushes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from openems.common import jsonrpc
from openems.common.jsonrpc import Notification, Request
from openems.websocket.client import ReconnectingClient
from openems.websocket.peer import Connection

#: Pushes that are kept until somebody asks for them; the oldest go first.
KEPT = 1000


class UiClient:
    """One browser tab.

    >>> ui = UiClient("ws://127.0.0.1:8082", reactor)     # doctest: +SKIP
    >>> await ui.connect()                                  # doctest: +SKIP
    >>> await ui.login("admin", "secret")                   # doctest: +SKIP
    """

    def __init__(self, url: str, reactor: Any) -> None:
        self._reactor = reactor
        self._client = ReconnectingClient(
            url, {}, self._endpoint, reactor=reactor, min_wait=0.2, max_wait=0.2, name="UiClient"
        )
        self._pushes: list[dict[str, Any]] = []
        self._waiting: list[tuple[Callable[[dict[str, Any]], bool], Deferred[dict[str, Any]]]] = []

    async def connect(self, timeout: float = 10.0) -> None:
        """Wait for the connection. Raises TimeoutError."""
        self._client.start()
        for _ in range(int(timeout / 0.05)):
            if self._client.connection is not None:
                return
            await deferLater(self._reactor, 0.05)
        raise TimeoutError(f"no connection to {self._client.url}")

    async def close(self) -> None:
        await self._client.stop()

    @property
    def connected(self) -> bool:
        return self._client.connection is not None

    @property
    def connection(self) -> Connection | None:
        return self._client.connection

    async def request(self, method: str, params: dict[str, Any] | None = None, timeout: float = 20.0) -> Any:
        """The decoded ``result``. Raises :class:`OpenemsError`."""
        connection = self._client.connection
        if connection is None:
            raise ConnectionError("not connected")
        return jsonrpc.loads(await connection.request(method, params or {}, timeout=timeout))

    async def edge_rpc(
        self, edge_id: str, method: str, params: dict[str, Any] | None = None, timeout: float = 20.0
    ) -> Any:
        """The innermost ``result`` of a request in ``edgeRpc``."""
        payload = {"jsonrpc": "2.0", "method": method, "params": params or {}, "id": jsonrpc.new_id()}
        result = await self.request("edgeRpc", {"edgeId": edge_id, "payload": payload}, timeout)
        return result["payload"]["result"]

    async def login(self, username: str, password: str) -> dict[str, Any]:
        result: dict[str, Any] = await self.request(
            "authenticateWithPassword", {"username": username, "password": password}
        )
        return result

    async def push(self, method: str, timeout: float = 10.0, where: Callable[[Any], bool] | None = None) -> Any:
        """The ``params`` of the next ``edgeRpc`` push whose payload has that method, already arrived or to come."""

        def fits(params: dict[str, Any]) -> bool:
            payload = params.get("payload", {})
            return payload.get("method") == method and (where is None or where(payload.get("params")))

        for index, params in enumerate(self._pushes):
            if fits(params):
                del self._pushes[: index + 1]
                return params["payload"]["params"]
        arrival: Deferred[dict[str, Any]] = Deferred()
        self._waiting.append((fits, arrival))
        params = await arrival.addTimeout(timeout, self._reactor)
        return params["payload"]["params"]

    def forget_pushes(self) -> None:
        self._pushes.clear()

    def _endpoint(self, connection: Connection) -> _Tab:
        return _Tab(self._arrived)

    def _arrived(self, params: dict[str, Any]) -> None:
        for entry in self._waiting:
            if entry[0](params):
                self._waiting.remove(entry)
                self._pushes.clear()
                entry[1].callback(params)
                return
        self._pushes.append(params)
        del self._pushes[:-KEPT]


class _Tab:
    def __init__(self, arrived: Callable[[dict[str, Any]], None]) -> None:
        self._arrived = arrived

    def opened(self) -> None:
        pass

    def received(self, text: bytes) -> bool:
        return False

    async def request(self, request: Request) -> None:
        return None

    def notification(self, notification: Notification) -> None:
        if notification.method == "edgeRpc":
            self._arrived(jsonrpc.loads(notification.params))

    def closed(self) -> None:
        pass
