"""When alerting works: a tick a minute, and work for many edges in pieces that leave the reactor to others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from openems.common.jobs import Job

T = TypeVar("T")
TICK = 60.0
#: Seconds of work until the reactor gets its turn.
SLICE = 0.01


def within(seconds: float, work: Awaitable[T], reactor: Any) -> Deferred[T]:
    """Fails with TimeoutError after that time."""
    waiting: Deferred[T] = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)  # type: ignore[arg-type]
    return waiting.addTimeout(seconds, reactor)


class Slices:
    """``await pause()`` between two edges: it waits only when this piece of work has taken its time."""

    def __init__(self, reactor: Any, monotonic: Callable[[], float]) -> None:
        self._reactor = reactor
        self._monotonic = monotonic
        self._began = monotonic()

    async def pause(self) -> None:
        if self._monotonic() - self._began >= SLICE:
            await deferLater(self._reactor, 0, lambda: None)
            self._began = self._monotonic()


class WorkQueue:
    """Edges that something must be done for, each once, one after the other; bounded by the number of edges."""

    _log = Logger()

    def __init__(self, work: Callable[[str], Awaitable[None]], *, reactor: Any, monotonic: Callable[[], float]) -> None:
        self._work = work
        self._reactor = reactor
        self._monotonic = monotonic
        self._waiting: dict[str, None] = {}
        self._running: Deferred[None] | None = None
        self._stopped = False
        self.done = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def active(self) -> bool:
        return self._running is not None

    def add(self, edge_id: str) -> None:
        if self._stopped:
            return
        self._waiting[edge_id] = None
        if self._running is None:
            self._running = running = Deferred.fromCoroutine(self._run())
            if running.called:
                self._running = None
            else:
                running.addBoth(self._ended)

    def _ended(self, result: Any) -> None:
        self._running = None

    async def _run(self) -> None:
        slices = Slices(self._reactor, self._monotonic)
        while self._waiting and not self._stopped:
            edge_id = next(iter(self._waiting))
            del self._waiting[edge_id]
            try:
                await self._work(edge_id)
            except Exception:
                self._log.failure("work for {edge_id!r} failed", edge_id=edge_id)
            self.done += 1
            await slices.pause()

    def stop(self) -> None:
        self._stopped = True
        self._waiting.clear()
        if self._running is not None:
            self._running.addErrback(lambda failure: None).cancel()


class Scheduler:
    """Calls each job once a tick, the first time at once, with one time for all. A job that is not through by the next
    tick is left out then; one that fails does not disturb the others."""

    _log = Logger()

    def __init__(self, *, reactor: Any, now: Callable[[], int], tick: float = TICK) -> None:
        self._now = now
        #: Seconds between two ticks; to be changed before the start.
        self.tick_seconds = tick
        self._reactor = reactor
        self._jobs: dict[str, tuple[Job, Callable[[int], Awaitable[None]]]] = {}
        self._running: dict[str, Deferred[None]] = {}
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor
        self.failures = 0

    @property
    def busy(self) -> int:
        return len(self._running)

    @property
    def jobs(self) -> list[Job]:
        return [job for job, _ in self._jobs.values()]

    def add(self, name: str, work: Callable[[int], Awaitable[None]]) -> None:
        self._jobs[name] = Job(name), work

    def start(self) -> None:
        self._log.info("[Alerting-Scheduler] start")
        self._loop.start(self.tick_seconds, now=True)

    def stop(self) -> None:
        self._log.info("[Alerting-Scheduler] stop")
        if self._loop.running:
            self._loop.stop()
        for running in tuple(self._running.values()):
            running.cancel()

    def _tick(self) -> None:
        now = self._now()
        for name, (job, work) in self._jobs.items():
            if name in self._running:
                continue
            running: Deferred[Any] = Deferred.fromCoroutine(work(now))  # type: ignore[arg-type]
            self._running[name] = running
            running.addCallbacks(self._succeeded, self._failed, (job, self._reactor.seconds()), errbackArgs=(job,))
            running.addBoth(self._through, name)

    def _through(self, result: Any, name: str) -> Any:
        self._running.pop(name, None)
        return result

    def _succeeded(self, result: Any, job: Job, began: float) -> None:
        job.succeeded(self._reactor.seconds() - began, self._now())

    def _failed(self, failure: Any, job: Job) -> None:
        if not self._loop.running:
            return
        job.failed()
        self.failures += 1
        self._log.failure("[Alerting] {name} failed", failure, name=job.name)
