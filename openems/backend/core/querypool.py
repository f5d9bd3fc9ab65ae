"""Bounds on history queries: how many run, how many wait, who is next (core.md 3.9, reality.md R16).

- At most ``size`` run; at most ``queue`` wait, the next one gets 4005 at once.
- Users take turns, so that one page with a hundred charts does not keep the others waiting.
- Equal queries under way are answered once: the later ones get the same result.
- Who asks has one deadline, for waiting and running together; work that nobody waits for any more is cancelled.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from twisted.internet.defer import Deferred

from openems.common import errors
from openems.common.errors import OpenemsError, generic

Work = Callable[[], Awaitable[Any]]


class _Task:
    """``waiting``: who wants the result -> its deadline."""

    __slots__ = ("asked", "began", "key", "name", "running", "user_id", "waiting", "work")

    def __init__(self, user_id: str, key: Hashable, work: Work, name: str, asked: float) -> None:
        self.name = name
        self.asked = asked
        self.began = asked
        self.user_id = user_id
        self.key = key
        self.work = work
        self.waiting: dict[Deferred[Any], Any] = {}
        self.running: Deferred[Any] | None = None


class QueryPool:
    """``observe(name, waited, ran)`` is told the seconds of each that has ended. ``active`` and ``total`` count by the
    names that callers give, which must be few."""

    def __init__(
        self,
        size: int,
        queue: int,
        *,
        reactor: Any,
        observe: Callable[[str, float, float], None] | None = None,
    ) -> None:
        self.active: Counter[str] = Counter()
        self.total: Counter[str] = Counter()
        self._observe = observe
        self.size = size
        self.queue = queue
        self.running = 0
        self.queued = 0
        self.completed = 0
        self.rejected = 0
        self.shared = 0
        self._reactor = reactor
        self._turns: dict[str, deque[_Task]] = {}
        self._tasks: dict[Hashable, _Task] = {}
        self._starting = False

    def run(self, user_id: str, key: Hashable, work: Work, timeout: float, name: str = "UNDEFINED") -> Deferred[Any]:
        """Fires with the result of ``work()``; equal ``key`` means equal results.

        Raises 4005 if too many wait. Fails with code 1 after ``timeout`` seconds, or as ``work`` fails.
        """
        task = self._tasks.get(key)
        if task is None:
            if self.running >= self.size and self.queued >= self.queue:
                self.rejected += 1
                raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
            task = self._tasks[key] = _Task(user_id, key, work, name, self._reactor.seconds())
            self._turns.setdefault(user_id, deque()).append(task)
            self.queued += 1
        else:
            self.shared += 1
        result: Deferred[Any] = Deferred(lambda _: self._leave(task, result))
        task.waiting[result] = self._reactor.callLater(timeout, self._expire, task, result, timeout)
        self._next()
        return result

    def _next(self) -> None:
        # A loop, not a recursion: work that is through at once comes back here while it is being started.
        if self._starting:
            return
        self._starting = True
        try:
            while self.running < self.size and self._turns:
                user_id = next(iter(self._turns))
                turn = self._turns.pop(user_id)
                task = turn.popleft()
                if turn:
                    self._turns[user_id] = turn  # to the end of the line
                self.queued -= 1
                self.running += 1
                self.active[task.name] += 1
                self.total[task.name] += 1
                task.began = self._reactor.seconds()
                task.running = Deferred.fromCoroutine(_awaited(task.work))
                task.running.addBoth(self._done, task)
        finally:
            self._starting = False

    def _done(self, result: Any, task: _Task) -> None:
        self.running -= 1
        self.completed += 1
        self.active[task.name] -= 1
        if self._observe is not None:
            self._observe(task.name, task.began - task.asked, self._reactor.seconds() - task.began)
        self._forget(task)
        while task.waiting:
            one, deadline = task.waiting.popitem()
            deadline.cancel()
            one.callback(result)  # a Failure takes the errback road
        self._next()

    def _expire(self, task: _Task, one: Deferred[Any], timeout: float) -> None:
        self._leave(task, one)
        one.errback(generic(f"No answer within {timeout:g} seconds"))

    def _leave(self, task: _Task, one: Deferred[Any]) -> None:
        """One does not wait any longer; without anybody waiting the work ends."""
        deadline = task.waiting.pop(one, None)
        if deadline is None:
            return
        if deadline.active():
            deadline.cancel()
        if task.waiting:
            return
        self._forget(task)
        if task.running is not None:
            task.running.cancel()
            return
        turn = self._turns.get(task.user_id)
        if turn is not None and task in turn:
            turn.remove(task)
            self.queued -= 1
            if not turn:
                del self._turns[task.user_id]

    def _forget(self, task: _Task) -> None:
        if self._tasks.get(task.key) is task:
            del self._tasks[task.key]


async def _awaited(work: Work) -> Any:
    return await work()
