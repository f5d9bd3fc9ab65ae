"""How long the reactor is busy between two looks at its sockets (metrics.md 17).

The lateness of a call each second shows the usual; this shows each single pause, the worst one too. It is laid round
the poller of Twisted's epoll reactor, which is no public name: where there is none, nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

from prometheus_client.core import Metric

from openems.backend.metrics.families import PREFIX, histogram
from openems.backend.metrics.process import LAG_BOUNDS
from openems.common.histogram import Histogram


class _Timed:
    """A poller with the same methods."""

    def __init__(self, poller: Any, busy: Histogram) -> None:
        self.poller = poller
        self.register = poller.register
        self.unregister = poller.unregister
        self.modify = poller.modify
        self._poll = poller.poll
        self._observe = busy.observe
        self._returned = perf_counter()

    def poll(self, *arguments: Any) -> Any:
        self._observe(perf_counter() - self._returned)
        try:
            return self._poll(*arguments)
        finally:
            self._returned = perf_counter()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.poller, name)


class ReactorTicks:
    def __init__(self, reactor: Any) -> None:
        self.busy = Histogram(LAG_BOUNDS)
        self._reactor = reactor
        self._timed: _Timed | None = None

    def start(self) -> None:
        poller = getattr(self._reactor, "_poller", None)
        if self._timed is None and all(hasattr(poller, name) for name in ("poll", "register", "unregister", "modify")):
            self._timed = self._reactor._poller = _Timed(poller, self.busy)

    def stop(self) -> None:
        """Another one that was laid round this one meanwhile stays, and this one with it."""
        if self._timed is not None and self._reactor._poller is self._timed:
            self._reactor._poller = self._timed.poller
        self._timed = None

    def collect(self) -> Iterator[Metric]:
        yield histogram(
            f"{PREFIX}reactor_tick_duration_seconds",
            "Time between two polls of the sockets.",
            [((), self.busy)] if self._timed is not None else [],
        )
