"""A coroutine in a reactor of its process: it begins, is waited for, and ends with it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

T = TypeVar("T")


def in_reactor(work: Callable[[Any], Awaitable[T]], interrupted: Callable[[], None] | None = None) -> T:
    """What ``work(reactor)`` gives; what it raises is raised. Once in a process: the reactor does not run again.

    Warnings of the log go to stderr. The first Ctrl-C calls ``interrupted``, so that the work may end in order, or else
    is a KeyboardInterrupt, as SIGTERM is; the second ends the process at once.
    """
    # Only now: some choose another reactor first.
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    quiet = LogLevelFilterPredicate(LogLevel.warn)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(textFileLogObserver(sys.stderr), [quiet])], redirectStandardIO=False
    )
    found: list[T] = []
    failures: list[Failure] = []

    async def run() -> None:
        found.append(await work(reactor))

    def begin() -> None:
        running = Deferred.fromCoroutine(run())
        running.addErrback(failures.append)
        running.addBoth(lambda _: reactor.stop())

    def on_interrupt(number: int, frame: Any) -> None:
        # No KeyboardInterrupt out of the middle of something: the reactor would log it and go on.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
        reactor.callFromThread(interrupted or reactor.stop)

    reactor.callWhenRunning(begin)
    # After the reactor's own.
    reactor.callWhenRunning(signal.signal, signal.SIGINT, on_interrupt)
    reactor.run()
    if failures:
        failures[0].raiseException()
    if not found:
        raise KeyboardInterrupt
    return found[0]
