"""Work that takes processor time, a little of it in each turn of the reactor: a thousand logins at once must not stop
everything else while their signatures are verified."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred

#: Seconds of work after which the rest waits for a later turn.
LIMIT = 0.008


class Pace:
    def __init__(self, reactor: Any, limit: float = LIMIT) -> None:
        self._reactor = reactor
        self._limit = limit
        self._spent = 0.0
        self._waiting: deque[Deferred[None]] = deque()
        self._next: Any = None

    async def turn(self) -> None:
        """Returns at once as long as there was little to do."""
        if self._spent < self._limit and not self._waiting:
            return
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._next is None:
            self._next = self._reactor.callLater(0, self._begin)
        await waiting

    def spent(self, seconds: float) -> None:
        self._spent += seconds

    def stop(self) -> None:
        """Who waits gets CancelledError."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        while self._waiting:
            self._waiting[0].cancel()

    def _begin(self) -> None:
        self._next = None
        self._spent = 0.0
        while self._waiting and self._spent < self._limit:
            self._waiting.popleft().callback(None)
        if self._waiting and self._next is None:
            self._next = self._reactor.callLater(0, self._begin)
