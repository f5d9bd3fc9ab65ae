"""So many exchanges at once, so many waiting, the rest refused at once (auth.md S20). Pure: knows no reactor; whoever
waits is taken out of the queue by cancelling, for instance by a time-out."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from twisted.internet.defer import Deferred

T = TypeVar("T")


class Busy(Exception):
    """The queue is full."""


class Concurrency:
    """``limit`` pieces of work run, ``queue`` wait in the order they came."""

    def __init__(self, limit: int, queue: int) -> None:
        self.limit = limit
        self.queue = queue
        self.active = 0
        self.completed = 0
        self.rejected = 0
        self._waiting: deque[Deferred[None]] = deque()
        self._handing_over = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """The result of ``work()``. Raises :class:`Busy` at once if the queue is full."""
        if self.active < self.limit and not self._waiting:
            self.active += 1
        elif len(self._waiting) >= self.queue:
            self.rejected += 1
            raise Busy()
        else:
            turn: Deferred[None] = Deferred(self._waiting.remove)
            self._waiting.append(turn)
            await turn
        try:
            return await work()
        finally:
            self.active -= 1
            self.completed += 1
            self._hand_over()

    def _hand_over(self) -> None:
        # A loop and not a chain of calls: work that ends at once would nest as deep as the queue is long.
        if self._handing_over:
            return
        self._handing_over = True
        try:
            while self._waiting and self.active < self.limit:
                self.active += 1
                self._waiting.popleft().callback(None)
        finally:
            self._handing_over = False
