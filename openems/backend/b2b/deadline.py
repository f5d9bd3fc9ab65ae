"""Work that ends in time."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred


async def within(
    reactor: Any, seconds: float | None, work: Coroutine[Any, Any, Any], among: set[Deferred[Any]] | None = None
) -> Any:
    """The result of ``work``. After ``seconds`` it is cancelled: twisted's TimeoutError. As long as it runs it is one
    of ``among``, where others may cancel it."""
    begun = reactor.seconds()
    running: Deferred[Any] = Deferred.fromCoroutine(work)
    try:
        if not running.called:
            if seconds is not None:
                # Counted from its begin: what it waits for with the same deadline must not end before it does.
                running.addTimeout(max(0.0, begun + seconds - reactor.seconds()), reactor)
            if among is not None:
                among.add(running)
        return await running
    except BaseException as e:
        # What failed would hold the frames it came through, and they it (T101).
        e.__traceback__ = None
        raise
    finally:
        if among is not None:
            among.discard(running)
        running.addErrback(lambda failure: None)
        del running
