"""The same question of several at once is asked once. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class TooMany(Exception):
    """So many wait already."""


class Once(Generic[K, T]):
    """Whoever gives up does not take the answer away from the others. ``limit``: callers that may wait in all."""

    def __init__(self, limit: int = 1_000) -> None:
        self._limit = limit
        self._running: dict[K, list[Deferred[T]]] = {}
        self._waiting = 0

    def __contains__(self, key: K) -> bool:
        return key in self._running

    def __len__(self) -> int:
        return len(self._running)

    async def run(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work()``, or of the one that runs for ``key`` already. Raises :class:`TooMany`."""
        if self._waiting >= self._limit:
            raise TooMany()
        waiter: Deferred[T] = Deferred()
        waiters = self._running.get(key)
        if waiters is not None:
            waiters.append(waiter)
        else:
            self._running[key] = [waiter]

            async def begin() -> T:
                return await work()

            Deferred.fromCoroutine(begin()).addBoth(self._done, key)
        self._waiting += 1
        try:
            return await waiter
        finally:
            self._waiting -= 1

    def _done(self, result: T | Failure, key: K) -> None:
        for waiter in self._running.pop(key):
            if waiter.called:
                continue  # who waited has given up
            if isinstance(result, Failure):
                waiter.errback(result)
            else:
                waiter.callback(result)
