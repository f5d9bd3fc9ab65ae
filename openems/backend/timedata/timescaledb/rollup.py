"""The five-minute table is made from samples, a minute after their five minutes have ended, by whichever process comes
first; what arrives later makes it anew.

How nothing is missed: every write notes, in its own transaction, which five minutes of which edge it touches
(``ts_dirty``). The roll-up takes the notes that are due while it alone has the lock all writers share: whoever wrote
before has committed and is seen, whoever writes later finds no note and leaves a new one. Then it works them off, each
time in one transaction: rows made, notes removed. A process killed in between leaves the notes to the next.
"""

# ruff: noqa: S608 - what is put into these texts are numbers and times of our own
from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from itertools import groupby

from openems.backend.timedata.timescaledb.migrations import LOCKS, ROLL, WRITE
from openems.backend.timedata.timescaledb.old import REPLACE
from openems.backend.timedata.timescaledb.rows import BUCKET, DAY
from openems.postgres.pool import Pool, Transaction

GRACE = 60_000
#: Notes worked off in one transaction, edges in one statement.
NOTES = 2_000
EDGES = 20
#: Buckets without a note are made anew along with their neighbours if there are not more between two with one.
NEAR = 24

_DUE = (
    "SELECT EXISTS (SELECT 1 FROM ts_dirty WHERE bucket < to_timestamp(%s / 1000.0)), EXISTS (SELECT 1 FROM ts_rolling)"
)
_TAKE = (
    "WITH moved AS (DELETE FROM ts_dirty WHERE bucket < to_timestamp(%s / 1000.0) RETURNING edge_id, bucket)"
    " INSERT INTO ts_rolling SELECT edge_id, bucket FROM moved"
)
_NOTES = (
    "SELECT DISTINCT edge_id, (date_part('epoch', bucket) * 1000)::bigint FROM"
    " (SELECT edge_id, bucket FROM ts_rolling ORDER BY bucket, edge_id LIMIT %s) AS first ORDER BY 1, 2"
)
_DONE = (
    "DELETE FROM ts_rolling USING unnest(%s::int[], %s::bigint[]) AS u(e, b)"
    " WHERE edge_id = e AND bucket = to_timestamp(b / 1000.0)"
)
_ROLL = (
    "INSERT INTO ts_num_5m (series_id, time, cnt, avg, min, max, first, last, rise, first_at, last_at)"
    " SELECT s.id, x.* FROM ts_series s CROSS JOIN LATERAL ("
    "SELECT bucket, count(*), avg(value), min(value), max(value), (array_agg(value ORDER BY time))[1],"
    " (array_agg(value ORDER BY time DESC))[1], sum(CASE WHEN value >= before THEN value - before END),"
    " round(min(date_part('epoch', time) - date_part('epoch', bucket))::numeric * 1000)::int,"
    " round(max(date_part('epoch', time) - date_part('epoch', bucket))::numeric * 1000)::int"
    " FROM (SELECT bucket, time, value, lag(value) OVER (PARTITION BY bucket ORDER BY time) AS before"
    " FROM (SELECT date_bin('5 minutes', time, 'epoch') AS bucket, time, value FROM ts_num"
    " WHERE series_id = s.id AND time >= '{a}' AND time < '{b}') AS binned) AS lagged GROUP BY bucket) AS x"
    " WHERE s.edge_id = ANY(%s)" + REPLACE
)


def runs(buckets: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending starts of buckets as few ranges [a, b), none across a day.

    >>> runs([0, 300_000, 86_100_000, 86_400_000])
    [(0, 600000), (86100000, 86400000), (86400000, 86700000)]
    """
    found: list[tuple[int, int]] = []
    for bucket in buckets:
        if found and bucket - found[-1][1] <= NEAR * BUCKET and bucket // DAY == found[-1][0] // DAY:
            found[-1] = (found[-1][0], bucket + BUCKET)
        else:
            found.append((bucket, bucket + BUCKET))
    return found


def work_list(notes: Iterable[tuple[int, int]]) -> list[tuple[int, int, list[int]]]:
    """Ascending (edge, bucket) as (from, to, edges): edges with the same range share a statement.

    >>> work_list([(1, 0), (2, 0), (2, 300_000)])
    [(0, 300000, [1]), (0, 600000, [2])]
    """
    by_range: dict[tuple[int, int], list[int]] = {}
    for edge, group in groupby(notes, lambda note: note[0]):
        for run in runs(bucket for _, bucket in group):
            by_range.setdefault(run, []).append(edge)
    return [
        (*run, edges[start : start + EDGES])
        for run, edges in sorted(by_range.items())
        for start in range(0, len(edges), EDGES)
    ]


class Rollup:
    """``due`` buckets ended :data:`GRACE` ms before ``now()``."""

    def __init__(self, pool: Pool, *, now: Callable[[], int]) -> None:
        self._pool = pool
        self._now = now
        self.buckets = 0

    async def run(self, *, timeout: float = 120.0, going: Callable[[], bool] = lambda: True) -> None:
        """All that is due; returns early when another process is at it. Raises what the pool raises."""
        target = (self._now() - GRACE) // BUCKET * BUCKET
        [(due, left)] = await self._pool.query(_DUE, (target,), timeout=timeout)
        if due and not await self._take(target, timeout):
            return
        while (due or left) and going():
            done = await self._pool.transaction(self._some, timeout=timeout)
            if not done:
                return

    async def _take(self, target: int, timeout: float) -> bool:
        async def work(transaction: Transaction) -> bool:
            [(alone,)] = await transaction.query("SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCKS, ROLL))
            if not alone:
                return False
            await transaction.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, WRITE))
            await transaction.execute(_TAKE, (target,))
            return True

        return await self._pool.transaction(work, timeout=timeout)

    async def _some(self, transaction: Transaction) -> int:
        [(alone,)] = await transaction.query("SELECT pg_try_advisory_xact_lock(%s, %s)", (LOCKS, ROLL))
        if not alone:
            return 0
        notes = await transaction.query(_NOTES, (NOTES,))
        if not notes:
            return 0
        # Where their samples went there is also a place for five-minute values: both are made together.
        for begin, end, edges in work_list(notes):  # type: ignore[arg-type]
            await transaction.execute(_ROLL.format(a=_iso(begin), b=_iso(end)), (edges,))
        await transaction.execute(_DONE, ([note[0] for note in notes], [note[1] for note in notes]))
        self.buckets += len(notes)
        return len(notes)


def _iso(time: int) -> str:
    """A constant in the statement, so that the planner looks at one day only."""
    return datetime.datetime.fromtimestamp(time / 1000, datetime.UTC).isoformat()
