"""Connections that are kept for the next request."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.client import HTTPConnectionPool


class KeptConnections(HTTPConnectionPool):
    """At most ``per_host`` idle ones, each for ``idle`` seconds. A request on one that the server has just closed is
    not repeated by itself: it may have been carried out.

    After :meth:`close` one that comes back from its last request is closed, too, instead of being kept.
    """

    # Without two lines in the log for each connection.
    _factory: Any = type("_QuietFactory", (HTTPConnectionPool._factory,), {"noisy": False})
    retryAutomatically = False

    def __init__(self, reactor: Any, *, per_host: int, idle: float, persistent: bool = True) -> None:
        super().__init__(reactor, persistent)  # type: ignore[no-untyped-call]
        self.maxPersistentPerHost = per_host
        self.cachedConnectionTimeout = int(idle)
        self._closed = False

    def _putConnection(self, key: Any, connection: Any) -> None:
        if self._closed:
            connection.transport.loseConnection()
        else:
            super()._putConnection(key, connection)  # type: ignore[no-untyped-call]

    def close(self) -> Deferred[None]:
        """Fires when the idle ones are closed."""
        self._closed = True
        return self.closeCachedConnections()  # type: ignore[no-untyped-call,no-any-return]
