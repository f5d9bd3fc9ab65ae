"""Looking after many sessions, a part of them at a time. Pure: the time comes in as seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

T = TypeVar("T")

#: Seconds between two ticks, and for one round.
TICK = 1.0
ROUND = 10.0


class Rounds(Generic[T]):
    """Visits everybody, so many in one tick that a round ends in time without a pause of the reactor, ``at_least`` in
    any case. A round begins when the last one is over and :data:`ROUND` has passed, or at once after
    :meth:`restart`.

    >>> rounds = Rounds(lambda: range(30), at_least=2)
    >>> rounds.tick(0.0), rounds.tick(1.0)
    ([0, 1, 2], [3, 4, 5])
    """

    def __init__(self, everybody: Callable[[], Collection[T]], at_least: int) -> None:
        self._everybody = everybody
        self._at_least = at_least
        self._left: deque[T] = deque()
        self._next = 0.0

    def restart(self) -> None:
        """With the next tick, so that a burst of reasons costs one round."""
        self._left.clear()
        self._next = 0.0

    def tick(self, now: float) -> list[T]:
        """Whoever's turn it is."""
        everybody = self._everybody()
        if not self._left and now >= self._next:
            self._next = now + ROUND
            self._left.extend(everybody)
        number = max(self._at_least, len(everybody) // int(ROUND / TICK))
        return [self._left.popleft() for _ in range(min(len(self._left), number))]
