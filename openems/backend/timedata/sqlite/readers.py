"""A few threads that answer questions, each with a connection of its own.

Twisted's thread pool would do, at the price of a tenth of a millisecond more for each question: as much as an eighth of
a day's history. And of those that are idle the last one to have worked is asked: its thread wakes up fastest, and its
connection has the pages that are asked for most.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openems.backend.timedata.sqlite import schema

T = TypeVar("T")
Work = tuple[Callable[[sqlite3.Connection], Any], "Deferred[Any]"]


class Readers:
    """``generation`` tells by another number that there is another file at ``path``; ``call`` brings a call to the
    reactor's thread."""

    def __init__(
        self, name: str, path: str, count: int, *, generation: Callable[[], int], call: Callable[..., Any]
    ) -> None:
        self._path = path
        self._generation = generation
        self._call = call
        #: Of each thread.
        self._inboxes: list[SimpleQueue[Work | None]] = [SimpleQueue() for _ in range(count)]
        #: Numbers of threads, the last one to have worked at the end; and work that none of them has time for.
        self._idle = list(range(count))
        self._waiting: deque[Work] = deque()
        self._connections: dict[int, sqlite3.Connection] = {}
        self._ended: Deferred[None] = Deferred()
        self._running = count
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"{name} {number}", daemon=True)
            for number in range(count)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def ask(self, question: Callable[[sqlite3.Connection], T]) -> Deferred[T]:
        answered: Deferred[T] = Deferred()
        if self._idle:
            self._inboxes[self._idle.pop()].put((question, answered))
        else:
            self._waiting.append((question, answered))
        return answered

    def _done(self, number: int, fire: Callable[[Any], None], result: Any) -> None:
        if self._waiting:
            self._inboxes[number].put(self._waiting.popleft())
        else:
            self._idle.append(number)
        fire(result)

    def stop(self) -> Deferred[None]:
        """Interrupts what runs; fires when all threads have ended and closed their connections. What waits is asked
        all the same: it is for the question to find out that it is late."""
        while self._waiting:
            self._inboxes[0].put(self._waiting.popleft())
        for inbox in self._inboxes:
            inbox.put(None)
        for connection in tuple(self._connections.values()):
            try:
                connection.interrupt()
            except sqlite3.ProgrammingError:
                pass  # closed just now
        return self._ended

    def _thread_ended(self) -> None:
        self._running -= 1
        if not self._running and not self._ended.called:
            self._ended.callback(None)

    def _work(self, number: int) -> None:
        opened: int | None = None
        inbox = self._inboxes[number]
        try:
            while (work := inbox.get()) is not None:
                question, answered = work
                try:
                    if opened != (generation := self._generation()):
                        self._close(number)
                        self._connections[number] = schema.open_for_reading(self._path)
                        opened = generation
                    result = question(self._connections[number])
                except BaseException:
                    self._call(self._done, number, answered.errback, Failure())
                else:
                    self._call(self._done, number, answered.callback, result)
        finally:
            self._close(number)
            self._call(self._thread_ended)

    def _close(self, number: int) -> None:
        connection = self._connections.pop(number, None)
        if connection is not None:
            connection.close()
