"""Equal work done once (auth.md S19): callers who ask the same while it is under way, or a little later, get the one
result. A caller who gives up does not end it for the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

T = TypeVar("T")
MAX_KEPT = 1000


class Shared(Generic[T]):
    """``keep(result)`` says for how many seconds a result is given to those who come late; failures of the kinds
    ``failures`` are kept for ``keep_failures`` seconds, others not at all."""

    def __init__(
        self,
        reactor: Any,
        keep: Callable[[T], float],
        *,
        failures: tuple[type[Exception], ...] = (),
        keep_failures: float = 0.0,
    ) -> None:
        self.shared = 0
        self._reactor = reactor
        self._keep = keep
        self._failures = failures
        self._keep_failures = keep_failures
        self._running: dict[bytes, list[Deferred[T]]] = {}
        self._work: dict[bytes, Deferred[Any]] = {}
        self._kept: OrderedDict[bytes, tuple[float, Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def result(self, key: bytes, work: Callable[[], Awaitable[T]]) -> T:
        kept = self._kept.get(key)
        if kept is not None:
            until, outcome = kept
            if self._reactor.seconds() < until:
                self.shared += 1
                if isinstance(outcome, Exception):
                    # A copy: each raise adds to an exception's traceback.
                    raise type(outcome)(*outcome.args)
                result: T = outcome
                return result
            del self._kept[key]
        done: Deferred[T] = Deferred(lambda given_up: self._gave_up(key, given_up))
        waiting = self._running.get(key)
        if waiting is not None:
            self.shared += 1
            waiting.append(done)
            return await done
        self._running[key] = [done]

        async def run() -> T:
            return await work()

        running = Deferred.fromCoroutine(run())
        self._work[key] = running
        running.addBoth(lambda outcome: self._ended(key, outcome))
        return await done

    def forget_where(self, predicate: Callable[[T], bool]) -> None:
        for key, (_, outcome) in list(self._kept.items()):
            if not isinstance(outcome, Exception) and predicate(outcome):
                del self._kept[key]

    def stop(self) -> None:
        """Ends what is under way; its callers get CancelledError."""
        for running in list(self._work.values()):
            running.cancel()
        self._kept.clear()

    def _gave_up(self, key: bytes, given_up: Deferred[T]) -> None:
        # The work goes on: it has its own deadline, and its result may be the only one there will be.
        waiting = self._running.get(key, [])
        if given_up in waiting:
            waiting.remove(given_up)

    def _ended(self, key: bytes, outcome: Any) -> None:
        self._work.pop(key, None)
        waiting = self._running.pop(key)
        if isinstance(outcome, Failure):
            if self._keep_failures and outcome.check(*self._failures):
                self._remember(key, outcome.value, self._keep_failures)
        else:
            self._remember(key, outcome, self._keep(outcome))
        for done in waiting:
            if not done.called:
                done.callback(outcome)

    def _remember(self, key: bytes, outcome: Any, seconds: float) -> None:
        if seconds <= 0:
            return
        now = self._reactor.seconds()
        while self._kept and (len(self._kept) >= MAX_KEPT or next(iter(self._kept.values()))[0] <= now):
            self._kept.popitem(last=False)
        self._kept[key] = now + seconds, outcome
