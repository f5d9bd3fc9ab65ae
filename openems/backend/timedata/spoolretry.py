"""How a batch gets into a database that is away, or does not take all of it: one policy for all providers.

- :class:`TryLater`: all is kept and tried again, with longer and longer pauses up to :data:`MAX_RETRY`. Of several
  writers one tries, the others wait for it.
- :class:`Refused`: the batch is halved until the value that cannot be written is alone; that one is dropped, counted
  and told once a reason, the rest is written. Any other exception is a mistake of ours and treated so too.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from openems.backend.timedata.spoolfile import Item, size_of
from openems.backend.timedata.writes import Writes

Write = Callable[[list[Item]], Awaitable[None]]

FIRST_RETRY = 0.5
#: One batch of one writer is nothing to a server, and what waits should not wait long after it came back.
MAX_RETRY = 5.0
#: How often the others look whether the one that tries got through.
LOOK = 0.5
LOG_EVERY = 60.0
#: Reasons for drops that have a counter of their own; others share one.
MAX_REASONS = 50


class TryLater(Exception):
    """The database is away or cannot take anything now. The text says why, without secrets."""


class Refused(Exception):
    """Something in this batch can never be written. ``reason`` is one of a small set of words."""

    def __init__(self, reason: str, text: str = "") -> None:
        super().__init__(text or reason)
        self.reason = reason


def pause(failures: int, chance: float = 0.5) -> float:
    """Seconds before the next try after so many failures in a row; ``chance`` (0 to 1) spreads several writers.

    >>> [pause(n) for n in (1, 2, 3, 20)]
    [0.5, 1.0, 2.0, 5.0]
    """
    whole = min(FIRST_RETRY * math.ldexp(1.0, min(failures - 1, 20)), MAX_RETRY)
    return whole * (0.8 + 0.4 * chance)


def halves(items: list[Item]) -> tuple[list[Item], list[Item]] | None:
    """The batch in two parts, by items, then by rows, then by channels; None for a single value.

    >>> from openems.common.data import DataKind
    >>> halves([("edge0", DataKind.RESEND, {1: {"a/B": 1}, 2: {"a/B": 2}})])[0]
    [('edge0', <DataKind.RESEND: 'resendData'>, {1: {'a/B': 1}})]
    """
    if len(items) > 1:
        middle = len(items) // 2
        return items[:middle], items[middle:]
    edge, kind, rows = items[0]
    if len(rows) > 1:
        pairs = list(rows.items())
        middle = len(pairs) // 2
        return [(edge, kind, dict(pairs[:middle]))], [(edge, kind, dict(pairs[middle:]))]
    for time, row in rows.items():
        if len(row) > 1:
            values = list(row.items())
            middle = len(values) // 2
            return [(edge, kind, {time: dict(values[:middle])})], [(edge, kind, {time: dict(values[middle:])})]
    return None


class Complaints:
    """Error lines, the same kind at most each :data:`LOG_EVERY` seconds."""

    _log = Logger()

    def __init__(self, id: str, seconds: Callable[[], float]) -> None:
        self._id = id
        self._seconds = seconds
        self._said: dict[str, float] = {}

    def __call__(self, what: str, text: str, **values: Any) -> None:
        now = self._seconds()
        if now - self._said.get(what, -LOG_EVERY) >= LOG_EVERY:
            self._said[what] = now
            self._log.error(text, id=self._id, **values)

    def forget(self, what: str) -> None:
        """The next one of this kind is said at once."""
        self._said.pop(what, None)


class Delivery:
    """``wait`` waits for so many seconds; ``waiting`` tells how many values wait, for the log."""

    _log = Logger()

    def __init__(
        self,
        id: str,
        write: Write,
        *,
        wait: Callable[[float], Awaitable[None]],
        chance: Callable[[], float],
        complain: Complaints,
        waiting: Callable[[], int],
        writes: Writes,
    ) -> None:
        self.write = write
        self._writes = writes
        self._id = id
        self._wait = wait
        self._chance = chance
        self._complain = complain
        self._waiting = waiting
        self._failures = 0
        self._told: set[str] = set()
        self.batches = 0
        self.retries = 0
        self.dropped: dict[str, int] = {}
        #: Why the database takes nothing at the moment.
        self.failing: str | None = None

    async def deliver(self, items: list[Item], leads: Callable[[], bool]) -> int:
        """Until all is written or refused; the number of values refused. ``leads``: whether this is the one to try."""
        dropped = 0
        parts = [items]
        while parts:
            part = parts.pop()
            while self._failures and not leads():
                await self._wait(LOOK)
            begun = self._writes.clock()
            try:
                await self.write(part)
            except TryLater as error:
                parts.append(part)
                await self._try_later(str(error))
            except CancelledError:
                raise
            except Exception as error:
                if not isinstance(error, Refused):
                    self._complain("error", "{id}: a batch could not be written: {error!r}", error=error)
                split = halves(part)
                if split is not None:
                    parts += (split[1], split[0])
                    continue
                count = size_of(part[0])
                dropped += count
                reason = error.reason if isinstance(error, Refused) else "error"
                self.drop(reason, count)
                self._tell(reason, part[0], str(error))
            else:
                self.batches += 1
                self._writes.done(begun)
                if self.failing is not None:
                    self._log.info("{id}: history is written again, {n} values wait", id=self._id, n=self._waiting())
                self._failures, self.failing = 0, None
                self._complain.forget("away")
        return dropped

    async def _try_later(self, why: str) -> None:
        self.retries += 1
        self._failures += 1
        self.failing = why
        self._complain(
            "away",
            "{id}: cannot write history: {why}. Live data goes on, {waiting} values wait",
            why=why,
            waiting=self._waiting(),
        )
        await self._wait(pause(self._failures, self._chance()))

    def drop(self, reason: str, count: int) -> None:
        if reason not in self.dropped and len(self.dropped) >= MAX_REASONS:
            reason = "other"
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _tell(self, reason: str, item: Item, text: str) -> None:
        if reason in self._told or len(self._told) >= MAX_REASONS:
            return
        self._told.add(reason)
        self._log.warn(
            "{id}: value of {edge_id} {channel} cannot be written ({reason}): {text}; others are only counted",
            id=self._id,
            edge_id=item[0],
            channel=next((channel for row in item[2].values() for channel in row), ""),
            reason=reason,
            text=text,
        )
