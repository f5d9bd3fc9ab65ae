"""Bounds on history queries: how many run, how many wait, who is next (core.md 3.9, reality.md R16).

- At most ``size`` run; at most ``queue`` wait, the next one gets 4005 at once.
- Users take turns, so that one page with a hundred charts does not keep the others waiting.
- Equal queries under way are answered once: the later ones get the same result.
- One deadline for waiting and running.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from openems.common import errors
from openems.common.errors import OpenemsError, generic

Work = Callable[[], Awaitable[Any]]


class _Task:
    __slots__ = ("deadline", "key", "running", "waiting", "work")

    def __init__(self, key: Hashable, work: Work) -> None:
        self.key = key
        self.work = work
        self.waiting: list[Deferred[Any]] = []
        self.running: Deferred[Any] | None = None
        self.deadline: Any = None


class QueryPool:
    def __init__(self, size: int, queue: int, *, reactor: Any) -> None:
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

    def run(self, user_id: str, key: Hashable, work: Work, timeout: float) -> Deferred[Any]:
        """Fires with the result of ``work()``; equal ``key`` means equal results.

        Fails with 4005 if too many wait, code 1 after ``timeout`` seconds, or as ``work`` fails.
        """
        task = self._tasks.get(key)
        if task is None:
            if self.running >= self.size and self.queued >= self.queue:
                self.rejected += 1
                raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
            task = self._tasks[key] = _Task(key, work)
            task.deadline = self._reactor.callLater(timeout, self._expire, task, timeout)
            self._turns.setdefault(user_id, deque()).append(task)
            self.queued += 1
            added = True
        else:
            self.shared += 1
            added = False
        result: Deferred[Any] = Deferred(lambda d: task.waiting.remove(d) if d in task.waiting else None)
        task.waiting.append(result)
        if added:
            self._next()
        return result

    def _next(self) -> None:
        while self.running < self.size and self._turns:
            user_id = next(iter(self._turns))
            turn = self._turns.pop(user_id)
            task = turn.popleft()
            if turn:
                self._turns[user_id] = turn  # to the end of the line
            self.queued -= 1
            if not task.waiting:
                self._end(task)
                continue
            self.running += 1
            task.running = Deferred.fromCoroutine(_awaited(task.work))
            task.running.addBoth(self._done, task)

    def _done(self, result: Any, task: _Task) -> None:
        self.running -= 1
        self.completed += 1
        self._end(task)
        waiting, task.waiting = task.waiting, []
        for one in waiting:
            one.callback(result)  # a Failure takes the errback road
        self._next()

    def _end(self, task: _Task) -> None:
        if self._tasks.get(task.key) is task:
            del self._tasks[task.key]
        if task.deadline.active():
            task.deadline.cancel()

    def _expire(self, task: _Task, timeout: float) -> None:
        waiting, task.waiting = task.waiting, []
        if self._tasks.get(task.key) is task:
            del self._tasks[task.key]
        if task.running is not None:
            task.running.addErrback(lambda failure: failure.trap(CancelledError))
            task.running.cancel()
        for one in waiting:
            one.errback(generic(f"No answer within {timeout:g} seconds"))


async def _awaited(work: Work) -> Any:
    return await work()
