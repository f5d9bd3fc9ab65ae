"""The process: reactor, threads, garbage collector, log (metrics.md 8, 17)."""

from __future__ import annotations

import gc
import os
import platform
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, cast

from prometheus_client import GCCollector, ProcessCollector
from prometheus_client.core import InfoMetricFamily, Metric
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import implementer

import twisted
from openems.backend.metrics.families import PREFIX, counter, gauge, histogram
from openems.common.histogram import Histogram

_DESCRIPTORS = "/proc/self/fd"
_MEMORY = "/proc/self/statm"
#: Seconds between two looks at the reactor's lateness.
PERIOD = 1.0
LAG_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class ReactorLag:
    """How late the reactor comes to a call that it was asked for a second ago: that much later was everything else."""

    def __init__(self, reactor: Any) -> None:
        self.lag = Histogram(LAG_BOUNDS)
        self.last = 0.0
        self._reactor = reactor
        self._due = 0.0
        self._call: Any = None

    def start(self) -> None:
        if self._call is None:
            self._schedule()

    def stop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _schedule(self) -> None:
        self._due = self._reactor.seconds() + PERIOD
        self._call = self._reactor.callLater(PERIOD, self._tick)

    def _tick(self) -> None:
        self.last = max(0.0, self._reactor.seconds() - self._due)
        self.lag.observe(self.last)
        self._schedule()

    def collect(self) -> Iterator[Metric]:
        reactor = self._reactor
        yield histogram(f"{PREFIX}reactor_lag_seconds", "Lateness of a call every second.", [((), self.lag)])
        yield gauge(f"{PREFIX}reactor_last_tick_timestamp_seconds", "When the reactor last came round.", time.time())
        yield gauge(f"{PREFIX}reactor_delayed_calls", "Calls that wait for their time.", len(reactor.getDelayedCalls()))
        yield gauge(f"{PREFIX}threads", "All threads of the process.", threading.active_count())

    def debug_metrics(self) -> dict[str, int | float]:
        """The reactor's pool of threads (metrics.md 16)."""
        pool = getattr(self._reactor, "threadpool", None)
        if pool is None:
            return {}
        statistics = pool._team.statistics()
        return {
            "reactor/PoolSize": pool.workers,
            "reactor/MaxPoolSize": pool.max,
            "reactor/Active": statistics.busyWorkerCount,
            "reactor/Pending": statistics.backloggedWorkCount,
        }


class GcPauses:
    def __init__(self) -> None:
        self.seconds = {str(generation): Histogram(LAG_BOUNDS) for generation in range(3)}
        self._begun = 0.0

    def start(self) -> None:
        if self._seen not in gc.callbacks:
            gc.callbacks.append(self._seen)

    def stop(self) -> None:
        if self._seen in gc.callbacks:
            gc.callbacks.remove(self._seen)

    def _seen(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._begun = time.perf_counter()
        else:
            self.seconds[str(info["generation"])].observe(time.perf_counter() - self._begun)

    def collect(self) -> Iterator[Metric]:
        yield histogram(
            f"{PREFIX}gc_pause_seconds",
            "How long collections of garbage stopped everything.",
            (((generation,), child) for generation, child in self.seconds.items()),
            ("generation",),
        )


@implementer(ILogObserver)
class LogCounter:
    """An observer of the log that counts."""

    def __init__(self) -> None:
        self.levels: Counter[str] = Counter({level.name: 0 for level in LogLevel.iterconstants()})
        self.unhandled = 0

    def start(self) -> None:
        globalLogPublisher.addObserver(self)

    def stop(self) -> None:
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: dict[str, Any]) -> None:
        level = event.get("log_level")
        if level is not None:
            self.levels[level.name] += 1
            if level is LogLevel.critical and "log_failure" in event:
                self.unhandled += 1

    def collect(self) -> Iterator[Metric]:
        levels = {(level,): count for level, count in self.levels.items()}
        yield counter(f"{PREFIX}log_messages", "Lines of the log, also those below its level.", levels, ("level",))
        yield counter(f"{PREFIX}unhandled_errors", "Failures that nobody handled.", self.unhandled)


class Process:
    """CPU, memory, descriptors, garbage, versions."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._process = _LinuxProcess() if _LinuxProcess.works() else ProcessCollector(registry=None)
        self._garbage = GCCollector(registry=cast(Any, _Nowhere()))

    def collect(self) -> Iterator[Metric]:
        yield from self._process.collect()
        yield from self._garbage.collect()
        version = InfoMetricFamily("openems_version", "OpenEMS Version")
        version.add_metric((), {"version": self._version})
        yield version
        build = {
            (
                self._version,
                platform.python_version(),
                twisted.__version__,
                os.environ.get("OPENEMS_COMMIT", "")[:40],
            ): 1
        }
        labels = ("version", "python_version", "twisted_version", "commit")
        yield gauge(f"{PREFIX}build_info", "What this process is made of.", build, labels)


class _LinuxProcess:
    """What prometheus_client's ProcessCollector tells; it lists every descriptor only to count them, which with ten
    thousand connections takes as long as all the rest."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        told = {family.name: family.samples[0].value for family in ProcessCollector(registry=None).collect()}
        self._started = told["process_start_time_seconds"]

    @staticmethod
    def works() -> bool:
        """Linux tells the number as a size since 6.2."""
        try:
            return os.stat(_DESCRIPTORS).st_size > 0 and os.path.exists(_MEMORY)
        except OSError:
            return False

    def collect(self) -> Iterator[Metric]:
        with open(_MEMORY, "rb") as file:
            virtual, resident = (int(pages) * self._page for pages in file.read().split()[:2])
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", virtual)
        yield gauge("process_resident_memory_bytes", "Resident memory size in bytes.", resident)
        yield gauge("process_start_time_seconds", "Start time of the process since the epoch.", self._started)
        yield counter(
            "process_cpu_seconds", "User and system CPU time spent in seconds.", used.ru_utime + used.ru_stime
        )
        yield gauge("process_open_fds", "Number of open file descriptors.", os.stat(_DESCRIPTORS).st_size)
        yield gauge("process_max_fds", "Maximum number of open file descriptors.", soft)


class _Nowhere:
    """GCCollector insists on registering itself."""

    def register(self, collector: Any) -> None:
        pass
