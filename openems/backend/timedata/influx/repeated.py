"""Something that is tried until it succeeds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

PAUSE = 60.0


class Repeated:
    """Begins at once; ``attempt`` says True when it is done, otherwise it is tried again after :data:`PAUSE` s."""

    _log = Logger()

    def __init__(self, reactor: Any, attempt: Callable[[], Awaitable[bool]]) -> None:
        self._reactor = reactor
        self._attempt = attempt
        self._running: Deferred[None] | None = None
        self._call: Any = None
        self._stopped = False
        self._begin()

    def _begin(self) -> None:
        self._call = None
        self._running = running = Deferred.fromCoroutine(self._try())
        running.addErrback(self._failed)

    async def _try(self) -> None:
        if not await self._attempt() and not self._stopped:
            self._call = self._reactor.callLater(PAUSE, self._begin)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("a check failed", failure)

    def stop(self) -> None:
        self._stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()
        if self._running is not None:
            self._running.cancel()
