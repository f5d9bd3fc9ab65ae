"""Answers from the database: the same as from the embedded history, number for number.

Mean of a period: the plain mean of its samples (timedata.md 13). **Empty periods**: where two neighbouring samples are
at most :data:`CARRY` apart, the periods between them show the earlier one; a longer silence stays empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import psycopg2
from twisted.logger import Logger

from openems.backend.models import History
from openems.backend.timedata.plausibility import is_unicode
from openems.backend.timedata.timescaledb import queries
from openems.backend.timedata.timescaledb.rows import BUCKET
from openems.backend.timedata.timescaledb.series import Edge, Series
from openems.common import energy
from openems.common.data import Value
from openems.common.energy import Stretch
from openems.common.errors import COMMON_SERVICE_NOT_AVAILABLE, OpenemsError, generic
from openems.common.resolution import Grid
from openems.postgres.pool import Pool, TimedOut, Unavailable

#: One snapshot period of an edge, 301 s, and jitter.
CARRY = 310_000
#: Periods times channels of one answer.
MAX_CELLS = 3_000_000
LOG_EVERY = 60.0


class Reader:
    """``time_limit``: seconds for a whole question, waiting for a session included."""

    _log = Logger()

    def __init__(self, id: str, pool: Pool, series: Series, *, reactor: Any, time_limit: float = 30.0) -> None:
        self._id = id
        self._pool = pool
        self._series = series
        self._reactor = reactor
        self._time_limit = time_limit
        self._logged_at = -LOG_EVERY
        self.asked = self.failed = 0

    async def means(self, edge_id: str, grid: Grid, names: Sequence[str]) -> History:
        _check_size(grid, names)
        return History(grid.starts, await self._guarded(self._means, edge_id, grid, names))

    async def rises(self, edge_id: str, grid: Grid, names: Sequence[str]) -> dict[str, list[Value]]:
        _check_size(grid, names)
        return await self._guarded(self._rises, edge_id, grid, names)

    async def newest_before(self, edge_id: str, time: int, names: Sequence[str]) -> dict[str, Value]:
        return await self._guarded(self._newest, edge_id, time, names)

    async def _guarded(self, question: Any, edge_id: str, where: Any, names: Sequence[str]) -> Any:
        """An answer, or an error that a user may see: no word of the database in it."""
        self.asked += 1
        if not is_unicode(edge_id) or (isinstance(where, Grid) and not where.starts):
            return {}
        deadline = self._reactor.seconds() + self._time_limit
        try:
            edge = await self._series.load(edge_id, self._pool, timeout=self._time_limit)
            channels = {} if edge is None else {name: edge.ids[name] for name in names if name in edge.ids}
            return await question(edge, where, channels, deadline) if channels else {}
        except TimedOut:
            self.failed += 1
            raise generic(f"The history query took longer than {self._time_limit:g} s") from None
        except (Unavailable, psycopg2.Error) as error:
            self.failed += 1
            if isinstance(error, psycopg2.errors.QueryCanceled):
                raise generic(f"The history query took longer than {self._time_limit:g} s") from None
            if self._reactor.seconds() - self._logged_at >= LOG_EVERY:
                self._logged_at = self._reactor.seconds()
                reason = self._pool.server.reason(error)
                self._log.warn("{id}: query failed: {reason}", id=self._id, reason=reason)
            raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE) from None

    async def _ask(self, sql: str, deadline: float) -> list[tuple[Any, ...]]:
        left = max(0.001, deadline - self._reactor.seconds())
        return await self._pool.query(sql, timeout=left, repeatable=True)

    async def _marks(self, edge: Edge, deadline: float) -> tuple[int, int | None]:
        [marks] = await self._ask(queries.MARKS.format(edge.id), deadline)
        return marks  # type: ignore[return-value]

    # --- means

    async def _means(self, edge: Edge, grid: Grid, channels: dict[str, int], deadline: float) -> dict[str, list[Value]]:
        marks = await self._marks(edge, deadline)
        border = queries.border(marks, grid.aligned(BUCKET), grid.end)
        rows = await self._ask(queries.means(list(channels.values()), grid, border), deadline)
        empty: list[Value] = [None] * len(grid)
        columns = {number: empty.copy() for number in channels.values()}
        for row in rows:
            _fill(columns[row[0]], *map(_decoded, row[1:]))
        if grid.step is not None and grid.step <= CARRY:
            holes = [number for number, column in columns.items() if None in column]
            if holes:
                for row in await self._ask(queries.gaps(holes, grid, marks, CARRY), deadline):
                    _carry(columns[row[0]], grid, *map(_decoded, row[1:]))
        with_text = [number for number in columns if number in edge.txt]
        if with_text:
            for number, index, text in await self._ask(queries.texts(with_text, grid), deadline):
                if columns[number][index] is None:
                    columns[number][index] = text
        return {name: columns[number] for name, number in channels.items() if columns[number] != empty}

    # --- energy

    async def _rises(
        self, edge: Edge, grid: Grid, channels: dict[str, int], deadline: float
    ) -> dict[str, list[energy.Number | None]]:
        marks = await self._marks(edge, deadline)
        border = queries.border(marks, grid.aligned(BUCKET), grid.end)
        rows = await self._ask(queries.stretches(list(channels.values()), grid, border, marks), deadline)
        bases: dict[int, float] = {}
        parts: dict[int, list[Stretch | None]] = {}
        for number, index, first, last, inside, between in rows:
            if index < 0:
                bases[number] = first
            else:
                column = parts.get(number)
                if column is None:
                    column = parts[number] = [None] * len(grid)
                column[index] = Stretch(first, last, energy.add(inside, between))
        result: dict[str, list[energy.Number | None]] = {}
        for name, number in channels.items():
            if number in parts:
                found = energy.rises(bases.get(number), parts[number])
                if any(value is not None for value in found):
                    result[name] = _whole(found)
        return result

    # --- first value before

    async def _newest(self, edge: Edge, time: int, channels: dict[str, int], deadline: float) -> dict[str, Value]:
        numbers = list(channels.values())
        found: dict[int, tuple[float, Value]] = {}
        marks = await self._marks(edge, deadline)
        for number, at, value in await self._ask(queries.newest(numbers, time, marks), deadline):
            found[number] = (at, _whole([value])[0])
        with_text = [number for number in numbers if number in edge.txt]
        if with_text:
            for number, at, text in await self._ask(queries.newest_texts(with_text, time), deadline):
                if number not in found or at > found[number][0]:
                    found[number] = (at, text)
        return {name: found[number][1] for name, number in channels.items() if number in found}


def _decoded(array: str) -> list[Any]:
    """An array of numbers as text: the JSON decoder reads it many times as fast as the driver."""
    return orjson.loads(f"[{array[1:-1]}]")  # type: ignore[no-any-return]


def _fill(column: list[Value], indexes: list[int], sums: list[float], counts: list[int] | None = None) -> None:
    if counts is None:
        for index, mean in zip(indexes, sums, strict=True):
            column[index] = mean
        return
    parts: dict[int, tuple[float, int]] = {}
    for index, total, count in zip(indexes, sums, counts, strict=True):
        known = parts.get(index)
        parts[index] = (total, count) if known is None else (known[0] + total, known[1] + count)
    for index, (total, count) in parts.items():
        column[index] = total / count


def _carry(column: list[Value], grid: Grid, times: list[float], values: list[float], nexts: list[float]) -> None:
    """Fills empty periods that lie wholly between a sample and the next one."""
    start, step, count = grid.start, grid.step or 1, len(grid)
    for time, value, following in zip(times, values, nexts, strict=True):
        index = max(0, int((time - start) // step) + 1)
        until = min(count, int((following - start) // step))
        while index < until:
            if column[index] is None:
                column[index] = value
            index += 1
        # The last period is cut at the end of the grid: a sample at or after it closes it too.
        if (
            until == index == count - 1
            and following >= grid.end
            and column[index] is None
            and time < grid.starts[index]
        ):
            column[index] = value


def _whole(values: list[Any]) -> list[Any]:
    """Whole numbers as such, if all are: the database keeps all of them in double precision."""
    if all(value is None or value.is_integer() for value in values):
        return [None if value is None else int(value) for value in values]
    return values


def _check_size(grid: Grid, names: Sequence[str]) -> None:
    if len(grid) * len(names) > MAX_CELLS:
        raise generic(f"More than {MAX_CELLS} values asked for: use a coarser resolution or fewer channels")
