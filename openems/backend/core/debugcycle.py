"""Every five seconds: one line and the metrics of each component (core.md 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from openems.common.jobs import Job

PERIOD = 5.0


class DebugCycle:
    """``components``: IDebugLoggable; ``consumers``: IMetricsConsumer. One that fails does not stop the others."""

    _log = Logger()

    def __init__(
        self, components: Sequence[Any], consumers: Sequence[Any], *, reactor: Any, now: Callable[[], int]
    ) -> None:
        self._components = components
        self._consumers = consumers
        self._now = now
        #: What failed; how often it ran to its end, and how long it took the last time.
        self.failures = 0
        self.runs = 0
        self.seconds = 0.0
        self._job = Job("debug_cycle")
        self.jobs = (self._job,)
        self._loop = LoopingCall(self.run)
        self._loop.clock = reactor

    def start(self) -> None:
        self._log.info("Update metrics all {n} Seconds", n=int(PERIOD))
        self._loop.start(PERIOD, now=False)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def debug_metrics(self) -> dict[str, int | float]:
        """Of the cycle itself; not among what it writes."""
        return {
            "Core.DebugCycle/Failures": self.failures,
            "Core.DebugCycle/Runs": self.runs,
            "Core.DebugCycle/LastRunSeconds": self.seconds,
        }

    def run(self) -> None:
        begun, failures = perf_counter(), self.failures
        now = self._now()
        for component in self._components:
            try:
                text = component.debug_log()
                metrics = component.debug_metrics()
            except Exception:
                self.failures += 1
                self._log.failure("debug cycle: {name} failed", name=type(component).__name__)
                continue
            if text is not None:
                self._log.info("{text}", text=text)
            if not metrics:
                continue
            for consumer in self._consumers:
                try:
                    consumer.consume_metrics(now, metrics)
                except Exception:
                    self.failures += 1
                    self._log.failure("debug cycle: {name} failed", name=type(consumer).__name__)
        self.runs += 1
        self.seconds = perf_counter() - begun
        if self.failures == failures:
            self._job.succeeded(self.seconds, now)
        else:
            self._job.failed()
