"""Work that comes again and again: how long it takes, when it last went well, how often it did not (metrics.md 17)."""

from __future__ import annotations

from openems.common.histogram import Histogram

#: Seconds: from a look at a file to a scan of a whole fleet.
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)


class Job:
    """``last_success``: epoch milliseconds, None before the first one.

    >>> job = Job("metadata_flush")
    >>> job.succeeded(0.2, now=1_700_000_000_000)
    >>> job.failed()
    >>> job.durations.count, job.last_success, job.failures
    (1, 1700000000000, 1)
    """

    __slots__ = ("durations", "failures", "last_success", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.durations = Histogram(BOUNDS)
        self.failures = 0
        self.last_success: int | None = None

    def succeeded(self, seconds: float, now: int) -> None:
        self.durations.observe(max(0.0, seconds))
        self.last_success = now

    def failed(self) -> None:
        self.failures += 1
