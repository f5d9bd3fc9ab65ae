"""A coroutine in a reactor of its process: it begins, is waited for, and ends with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def in_reactor(work: Callable[[], Awaitable[T]]) -> T:
    """What ``work()`` gives; what it raises is raised. Once in a process: the reactor does not run again."""
    # Only now: some choose another reactor first.
    from twisted.internet import reactor as _reactor

    reactor: Any = _reactor
    found: list[T] = []
    failures: list[Failure] = []

    async def run() -> None:
        found.append(await work())

    def begin() -> None:
        running = Deferred.fromCoroutine(run())
        running.addErrback(failures.append)
        running.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run()
    if failures:
        failures[0].raiseException()
    return found[0]
