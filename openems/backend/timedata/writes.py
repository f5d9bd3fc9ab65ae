"""How batches get into a database: what a provider's ``writes`` tells the metrics (metrics.md 17)."""

from __future__ import annotations

from collections.abc import Callable

from openems.common.histogram import Histogram

#: Seconds; a batch has a minute at most.
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Writes:
    """``seconds``: a clock for durations, ``now``: epoch milliseconds. One thread moves it, others may read."""

    def __init__(self, seconds: Callable[[], float], now: Callable[[], int]) -> None:
        self.clock = seconds
        #: Of batches the database took.
        self.durations = Histogram(BOUNDS)
        #: Epoch milliseconds of the last one; None before it.
        self.last: int | None = None
        self._now = now

    def done(self, begun: float) -> None:
        """A batch begun then, by ``clock``, was taken."""
        self.durations.observe(max(0.0, self.clock() - begun))
        self.last = self._now()
