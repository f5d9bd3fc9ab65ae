"""What the fleet has sent, counted where it goes by, for :mod:`openems.backend.metrics`.

A data notification costs one addition. One in :data:`SAMPLE` is also looked at closely: how long it took and how old
its newest values are. That gives the shape of both distributions; how many there were is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any

from openems.common.data import DataKind
from openems.common.histogram import JAVA_BOUNDS, Histogram, Sampled

#: A prime, so that edges that send in step do not always show the same one.
SAMPLE = 17
#: Seconds between the newest time in a notification and now.
LAG_BOUNDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)


class DataCounter:
    """One kind of data notification at one door. When ``count`` has reached ``due`` the next one is a sample."""

    __slots__ = ("_lag", "_seconds", "count", "due", "kind")

    def __init__(self, kind: DataKind) -> None:
        self.kind = kind
        self.count = 0
        self.due = 1
        self._seconds = Sampled(JAVA_BOUNDS)
        self._lag = Sampled(LAG_BOUNDS)

    @property
    def seconds(self) -> Histogram:
        """How long they took."""
        return self._seconds.histogram(self.count)

    @property
    def lag(self) -> Histogram:
        """How old their newest values were, in seconds."""
        return self._lag.histogram(self.count)

    def sample(self, params: dict[str, Any], now: int, take: Callable[[], None]) -> None:
        """``take()`` handles the notification; ``now`` in epoch milliseconds."""
        self.due = self.count + SAMPLE
        begun = perf_counter()
        take()
        self._seconds.observe(perf_counter() - begun, self.count)
        newest = 0
        for name in params:
            if name.isdecimal() and len(name) < 16:
                newest = max(newest, int(name))
        if newest:
            self._lag.observe(max(0, now - newest) / 1000, self.count)


def data_counters() -> dict[str, DataCounter]:
    """By method name: a door looks a message up here instead of among the kinds."""
    return {kind.value: DataCounter(kind) for kind in DataKind}


class FleetCounters:
    def __init__(self) -> None:
        #: The two doors.
        self.direct = data_counters()
        self.application = data_counters()
        self.connects = {"direct": 0, "application": 0}
        #: ``closed``: the last link is gone; ``replaced``: a newer link of the same edge took over.
        self.disconnects = {"closed": 0, "replaced": 0}
        self.refusals = {"apikey": 0, "application_id": 0}
        self.aggregated_values = 0
        self.resent_values = 0
