"""A histogram without locks: an addition where it is moved, everything else where it is read.

Good for one thread. :meth:`Histogram.cumulative` gives what Prometheus wants to see.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

#: Seconds; those of the Java program's metrics (metrics.md 5).
JAVA_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """``bounds``: ascending upper bounds; a value equal to a bound belongs to it. What is above all of them is in the
    last of ``counts``.

    >>> h = Histogram((1.0, 2.0))
    >>> for value in (0.5, 2.0, 7.0): h.observe(value)
    >>> h.cumulative()
    [('1.0', 1), ('2.0', 2), ('+Inf', 3)]
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = JAVA_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        return sum(self.counts)

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bound as text -> how many values are not above it."""
        total = 0
        result: list[tuple[str, float]] = []
        for bound, count in zip((*map(repr, map(float, self.bounds)), "+Inf"), self.counts, strict=True):
            total += count
            result.append((bound, total))
        return result

    def copy(self) -> Histogram:
        made = Histogram(self.bounds)
        made.counts = list(self.counts)
        made.sum = self.sum
        return made

    def add(self, other: Histogram) -> None:
        """``other`` has the same bounds."""
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum


class Sampled:
    """A histogram of many values of which only some are looked at: each stands for itself and for all that come until
    the next one. So the number of values is exact, the shape is a sample's, and nothing ever falls, which Prometheus
    would take for a restart."""

    __slots__ = ("_histogram", "_last", "_settled")

    def __init__(self, bounds: Sequence[float] = JAVA_BOUNDS) -> None:
        self._histogram = Histogram(bounds)
        self._last: float | None = None
        self._settled = 0

    def observe(self, value: float, count: int) -> None:
        """``count``: the number of this value, from 1."""
        if self._last is not None:
            self._histogram.observe(self._last, count - 1 - self._settled)
            self._settled = count - 1
        self._last = value

    def histogram(self, count: int) -> Histogram:
        """As it is after ``count`` values."""
        made = self._histogram.copy()
        if self._last is not None:
            made.observe(self._last, count - self._settled)
        return made
