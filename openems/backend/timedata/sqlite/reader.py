"""Questions to the embedded history. Plain functions of a connection, for a thread of their own.

Who answers: the roll-up where all periods begin and end on its buckets (five minutes and multiples, days, months: the
usual), as far as it reaches; otherwise and after that the samples.

Mean of a period: the plain mean of its samples (timedata.md 13). **Empty periods**: edges repeat an unchanged value
every 300 s at the latest, a little early or late, and in between send changes only. So where two neighbouring samples
are at most :data:`CARRY` apart, the periods between them show the earlier one. A longer silence is an outage: its
periods stay empty, from the first to the last, and nothing is ever shown as 0 that was not sent as 0.
"""

from __future__ import annotations

import sqlite3
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from openems.backend.models import History
from openems.backend.timedata.sqlite.schema import BUCKET
from openems.backend.timedata.sqlite.store import storable
from openems.common import energy
from openems.common.data import Value
from openems.common.energy import Stretch
from openems.common.errors import COMMON_SERVICE_NOT_AVAILABLE, OpenemsError, generic
from openems.common.resolution import Grid

#: One snapshot period of an edge, 301 s, and jitter.
CARRY = 310_000
#: periods times channels of one answer
MAX_CELLS = 3_000_000
TIME_LIMIT = 30.0
#: Channels looked up in one statement.
LOOKUP = 500

_STRETCH = (
    "SELECT (SELECT first FROM rollup WHERE series = :s AND time >= :a AND time < :b ORDER BY time LIMIT 1),"
    " (SELECT last FROM rollup WHERE series = :s AND time >= :a AND time < :b ORDER BY time DESC LIMIT 1),"
    " sum(rise), sum(CASE WHEN first >= before THEN first - before END)"
    " FROM (SELECT first, rise, lag(last) OVER (ORDER BY time) AS before"
    " FROM rollup WHERE series = :s AND time >= :a AND time < :b)"
)
#: The same in floating point.
_LONG_STRETCH = _STRETCH.replace("sum(rise)", "sum(1.0 * rise)").replace(
    "THEN first - before", "THEN 1.0 * first - before"
)


class Channel(msgspec.Struct, frozen=True):
    name: str
    series: int
    has_text: bool


class Interrupted(Exception):
    """Nobody waits for the answer any more."""


class Question:
    """One consistent view of the file, for one request. Use :func:`ask`."""

    def __init__(self, connection: sqlite3.Connection, over: Callable[[], bool] = lambda: False) -> None:
        self._connection = connection
        self._over = over
        self._gaps = False
        meta = dict(self._execute("SELECT name, value FROM meta"))
        self._rolled_until: int = meta.get("rolled_until", 0)
        self._raw_from: int = meta.get("raw_from", 0)

    def _execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> sqlite3.Cursor:
        # A question is many short statements: what ends a long one does not end these.
        if self._over():
            raise Interrupted
        return self._connection.execute(sql, parameters)

    def _channels(self, edge_id: str, names: Sequence[str]) -> list[Channel]:
        if not storable(edge_id):
            return []
        known: dict[str, Channel] = {}
        wanted = list(filter(storable, names))
        for first in range(0, len(wanted), LOOKUP):
            some = wanted[first : first + LOOKUP]
            for name, series, text in self._execute(
                f"SELECT channel, id, text FROM series WHERE edge = ? AND channel IN ({','.join('?' * len(some))})",  # noqa: S608 - question marks
                (edge_id, *some),
            ):
                known[name] = Channel(name, series, bool(text))
        return [known[name] for name in dict.fromkeys(wanted) if name in known]

    def _border(self, grid: Grid) -> int:
        """Before this instant the roll-up answers, from it on the samples."""
        border = self._rolled_until if grid.aligned(BUCKET) else self._raw_from
        return min(max(border, grid.start), grid.end)

    def means(self, edge_id: str, grid: Grid, names: Sequence[str]) -> dict[str, list[Value]]:
        _check_size(grid, names)
        result: dict[str, list[Value]] = {}
        if not grid.starts:
            return result
        border = self._border(grid)
        for channel in self._channels(edge_id, names):
            column = self._numbers(channel.series, grid, border)
            if channel.has_text:
                self._add_texts(channel.series, grid, column)
            if any(value is not None for value in column):
                result[channel.name] = column
        return result

    def _numbers(self, series: int, grid: Grid, border: int) -> list[Value]:
        step = grid.step
        count = len(grid)
        column: list[Value]
        if step == BUCKET and grid.start % BUCKET == 0:
            means = self._without_gaps(series, grid) if border == grid.end and not self._gaps else None
            if means is not None:
                return means
            column = self._buckets(series, grid, border)
        else:
            sums, counts = [0.0] * count, [0] * count
            for index, part_sum, part_count in self._parts(series, grid, border):
                if part_count:
                    sums[index] += part_sum
                    counts[index] += part_count
            column = [s / n if n else None for s, n in zip(sums, counts, strict=True)]
        if step is not None and step <= CARRY and None in column:
            self._carry(series, grid, column)
        return column

    def _without_gaps(self, series: int, grid: Grid) -> list[Value] | None:
        """Mostly there is a row for each period, and then nothing needs to be looked at but the means."""
        means: list[Value] = [
            mean
            for (mean,) in self._execute(
                "SELECT avg FROM rollup WHERE series = ? AND time >= ? AND time < ? ORDER BY time",
                (series, grid.start, grid.end),
            )
        ]
        if len(means) == len(grid):
            return means
        self._gaps = True  # the channels of an edge have theirs together: do not try this again and again
        return None

    def _buckets(self, series: int, grid: Grid, border: int) -> list[Value]:
        """Five-minute values: row for row what is stored."""
        start = grid.start
        rows = self._execute(
            "SELECT time, avg FROM rollup WHERE series = ? AND time >= ? AND time < ?", (series, start, border)
        ).fetchall()
        column: list[Value] = [None] * len(grid)
        for time, mean in rows:
            column[(time - start) // BUCKET] = mean
        if border < grid.end:
            for index, mean in self._execute(
                "SELECT (time - ?) / ?, avg(value) FROM number WHERE series = ? AND time >= ? AND time < ? GROUP BY 1",
                (start, BUCKET, series, border, grid.end),
            ):
                column[index] = mean
        return column

    def _parts(self, series: int, grid: Grid, border: int) -> Iterator[tuple[int, float, int]]:
        """(period, sum, number) of samples, perhaps in two parts for the period in which the border falls."""
        start, end, step = grid.start, grid.end, grid.step
        if step is not None:
            if start < border:
                yield from self._execute(
                    "SELECT (time - ?) / ?, total(avg * count), sum(count) FROM rollup"
                    " WHERE series = ? AND time >= ? AND time < ? GROUP BY 1",
                    (start, step, series, start, border),
                )
            if border < end:
                yield from self._execute(
                    "SELECT (time - ?) / ?, total(value), count(*) FROM number"
                    " WHERE series = ? AND time >= ? AND time < ? GROUP BY 1",
                    (start, step, series, border, end),
                )
            return
        edges = grid.edges
        for index in range(len(grid)):
            begin, until = edges[index], edges[index + 1]
            if begin < border:
                row = self._execute(
                    "SELECT total(avg * count), sum(count) FROM rollup WHERE series = ? AND time >= ? AND time < ?",
                    (series, begin, min(until, border)),
                ).fetchone()
                yield index, row[0], row[1] or 0
            if until > border:
                row = self._execute(
                    "SELECT total(value), count(*) FROM number WHERE series = ? AND time >= ? AND time < ?",
                    (series, max(begin, border), until),
                ).fetchone()
                yield index, row[0], row[1]

    def _carry(self, series: int, grid: Grid, column: list[Value]) -> None:
        edges = grid.edges
        index, count = 0, len(column)
        while index < count:
            if column[index] is not None:
                index += 1
                continue
            hole = index
            while index < count and column[index] is None:
                index += 1
            if edges[index] - edges[hole] > CARRY:
                continue
            before = self._newest_before(series, edges[hole])
            after = self._oldest_from(series, edges[index])
            if before is not None and after is not None and after - before[0] <= CARRY:
                column[hole:index] = [before[1]] * (index - hole)

    def _newest_before(self, series: int, time: int) -> tuple[int, Value] | None:
        """(time, number) of the newest sample strictly before ``time``."""
        raw = self._execute(
            "SELECT time, value FROM number WHERE series = ? AND time < ? ORDER BY time DESC LIMIT 1", (series, time)
        ).fetchone()
        bucket = self._execute(
            "SELECT time + last_at, last FROM rollup WHERE series = ? AND time <= ? ORDER BY time DESC LIMIT 1",
            (series, time - BUCKET),
        ).fetchone()
        if raw is None or (bucket is not None and bucket[0] > raw[0]):
            return bucket  # type: ignore[no-any-return]
        return raw  # type: ignore[no-any-return]

    def _oldest_from(self, series: int, time: int) -> int | None:
        times = [
            row[0]
            for row in (
                self._execute(
                    "SELECT time FROM number WHERE series = ? AND time >= ? ORDER BY time LIMIT 1", (series, time)
                ).fetchone(),
                self._execute(
                    "SELECT time + first_at FROM rollup WHERE series = ? AND time >= ? ORDER BY time LIMIT 1",
                    (series, time),
                ).fetchone(),
            )
            if row is not None
        ]
        return min(times, default=None)

    def _add_texts(self, series: int, grid: Grid, column: list[Value]) -> None:
        """The last text of each period that has no number."""
        texts: dict[int, str] = {}
        for time, text in self._execute(
            "SELECT time, value FROM text WHERE series = ? AND time >= ? AND time < ? ORDER BY time",
            (series, grid.start, grid.end),
        ):
            texts[grid.index(time)] = text
        for index, text in texts.items():
            if column[index] is None:
                column[index] = text

    def rises(self, edge_id: str, grid: Grid, names: Sequence[str]) -> dict[str, list[energy.Number | None]]:
        """Energy of each period; channels without any are left out."""
        _check_size(grid, names)
        result: dict[str, list[energy.Number | None]] = {}
        if not grid.starts:
            return result
        border = self._border(grid)
        for channel in self._channels(edge_id, names):
            parts = self._stretches(channel.series, grid, border)
            before = self._newest_before(channel.series, grid.start)
            column = energy.rises(None if before is None else before[1], parts)  # type: ignore[arg-type]
            if any(value is not None for value in column):
                result[channel.name] = column
        return result

    def _stretches(self, series: int, grid: Grid, border: int) -> list[Stretch | None]:
        parts: list[Stretch | None] = [None] * len(grid)
        if border < grid.end:
            samples = self._execute(
                "SELECT time, value FROM number WHERE series = ? AND time >= ? AND time < ? ORDER BY time",
                (series, border, grid.end),
            ).fetchall()
            if samples:
                parts = energy.by_period(samples, grid)
        edges = grid.edges
        for index in range(len(grid)):
            begin = edges[index]
            if begin >= border:
                break
            span = {"s": series, "a": begin, "b": min(edges[index + 1], border)}
            try:
                first, last, inside, between = self._execute(_STRETCH, span).fetchone()
            except sqlite3.OperationalError as error:
                if "integer overflow" not in str(error):
                    raise
                first, last, inside, between = self._execute(_LONG_STRETCH, span).fetchone()
            if last is not None:
                part = Stretch(first, last, energy.add(inside, between))
                later = parts[index]
                parts[index] = part if later is None else part.then(later)
        return parts

    def newest_before(self, edge_id: str, time: int, names: Sequence[str]) -> dict[str, Value]:
        """The newest number or text strictly before ``time``; channels without one are left out."""
        result: dict[str, Value] = {}
        for channel in self._channels(edge_id, names):
            newest = self._newest_before(channel.series, time)
            if channel.has_text:
                text = self._execute(
                    "SELECT time, value FROM text WHERE series = ? AND time < ? ORDER BY time DESC LIMIT 1",
                    (channel.series, time),
                ).fetchone()
                if text is not None and (newest is None or text[0] > newest[0]):
                    newest = text
            if newest is not None:
                result[channel.name] = newest[1]
        return result

    def history(self, edge_id: str, grid: Grid, names: Sequence[str]) -> History:
        return History(grid.starts, self.means(edge_id, grid, names))

    def energy(self, edge_id: str, grid: Grid, names: Sequence[str]) -> dict[str, Value]:
        """``grid`` is one period, the span."""
        return {name: column[0] for name, column in self.rises(edge_id, grid, names).items()}

    def energy_per_period(self, edge_id: str, grid: Grid, names: Sequence[str]) -> History:
        return History(grid.starts, {name: list(column) for name, column in self.rises(edge_id, grid, names).items()})


def _check_size(grid: Grid, names: Sequence[str]) -> None:
    if len(grid) * len(names) > MAX_CELLS:
        raise generic(f"More than {MAX_CELLS} values asked for: use a coarser resolution or fewer channels")


@contextmanager
def ask(
    connection: sqlite3.Connection, time_limit: float | None = None, stopping: Callable[[], bool] = lambda: False
) -> Iterator[Question]:
    """A :class:`Question` on what is committed now. Raises code 1 when it takes longer than ``time_limit`` seconds, and
    1006 as soon as ``stopping`` says so."""
    time_limit = TIME_LIMIT if time_limit is None else time_limit
    deadline = clock.monotonic() + time_limit

    def over() -> bool:
        return clock.monotonic() > deadline or stopping()

    connection.set_progress_handler(over, 50_000)
    connection.execute("BEGIN")
    try:
        yield Question(connection, over)
    except (sqlite3.OperationalError, Interrupted) as error:
        if isinstance(error, Interrupted) or getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            if stopping():
                raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE) from None
            raise generic(f"The history query took longer than {time_limit:g} s") from None
        raise
    finally:
        connection.set_progress_handler(None, 0)
        if connection.in_transaction:
            connection.execute("ROLLBACK")
