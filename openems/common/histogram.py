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

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

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

    def scaled_to(self, count: int) -> tuple[list[tuple[str, float]], float]:
        """Buckets and sum as if ``count`` values had been seen, distributed like those that were: for samples."""
        seen = self.count
        if not seen:
            return [(bound, 0) for bound, _ in self.cumulative()], 0.0
        factor = count / seen
        return [(bound, round(n * factor)) for bound, n in self.cumulative()], self.sum * factor
