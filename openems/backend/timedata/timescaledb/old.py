"""Samples older than those that are kept: they go into the five-minute table only.

Parts of one bucket that follow each other are joined; of two that overlap the fuller one stands, so that a repeated
part changes nothing. Rare, and therefore simple: read, join, write back, in one transaction.
"""

# ruff: noqa: S608 - what is put into these texts are numbers and times of our own
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openems.backend.timedata.sqlite.rollup import joined, rollup_row
from openems.backend.timedata.timescaledb.migrations import LOCKS, ROLL
from openems.backend.timedata.timescaledb.partitions import Partitions
from openems.backend.timedata.timescaledb.rows import BUCKET, DAY
from openems.backend.timedata.timescaledb.series import Edge
from openems.postgres.pool import Pool, Transaction

CHUNK = 2_000
_COUNT, _FIRST_AT, _LAST_AT = 2, 9, 10
_COLUMNS = "series_id, time, cnt, avg, min, max, first, last, rise, first_at, last_at"
_KNOWN = (
    "SELECT t.series_id, (date_part('epoch', t.time) * 1000)::bigint, cnt, avg, min, max, first, last, rise, first_at,"
    " last_at FROM unnest(%s::int[], %s::bigint[]) AS u(s, m)"
    " JOIN ts_num_5m t ON t.series_id = s AND t.time = to_timestamp(m / 1000.0)"
)
REPLACE = (
    " ON CONFLICT (series_id, time) DO UPDATE SET cnt = excluded.cnt, avg = excluded.avg, min = excluded.min,"
    " max = excluded.max, first = excluded.first, last = excluded.last, rise = excluded.rise,"
    " first_at = excluded.first_at, last_at = excluded.last_at"
)
_WRITE = (
    f"INSERT INTO ts_num_5m ({_COLUMNS}) SELECT s, to_timestamp(m / 1000.0), c, a, lo, hi, f, l, r, fa, la"
    " FROM unnest(%s::int[], %s::bigint[], %s::int[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],"
    " %s::float8[], %s::float8[], %s::int[], %s::int[]) AS u(s, m, c, a, lo, hi, f, l, r, fa, la)" + REPLACE
)


class OldRows:
    def __init__(self, pool: Pool, partitions: Partitions | None) -> None:
        self._pool = pool
        self._partitions = partitions

    async def write(self, parts: Iterable[tuple[Edge, int, dict[str, Any], Any]], *, timeout: float) -> int:
        """The number of samples; texts are not looked at. Raises what the pool raises."""
        samples: dict[tuple[int, int], dict[int, float]] = {}
        for edge, time, numbers, _ in parts:
            for channel, value in numbers.items():
                samples.setdefault((edge.ids[channel], time - time % BUCKET), {})[time] = value
        if not samples:
            return 0
        if self._partitions is not None:
            # Those of the samples are made too, empty, and go with the next tidying up.
            await self._partitions.make({bucket // DAY for _, bucket in samples})
        new = [rollup_row(series, bucket, sorted(part.items())) for (series, bucket), part in sorted(samples.items())]
        for start in range(0, len(new), CHUNK):
            await self._chunk(new[start : start + CHUNK], timeout)
        return sum(map(len, samples.values()))

    async def _chunk(self, new: list[tuple[Any, ...]], timeout: float) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, ROLL))
            rows = await transaction.query(_KNOWN, ([row[0] for row in new], [row[1] for row in new]))
            known = {(row[0], row[1]): row for row in rows}
            changed = [row for row in (_merged(known.get((row[0], row[1])), row) for row in new) if row is not None]
            if changed:
                await transaction.execute(_WRITE, [list(column) for column in zip(*changed, strict=True)])

        await self._pool.transaction(work, timeout=timeout)


def _merged(known: tuple[Any, ...] | None, row: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """What the row becomes; None: it stays as it is."""
    if known is None:
        return row
    if row[_FIRST_AT] > known[_LAST_AT]:
        return joined(known, row)
    if row[_LAST_AT] < known[_FIRST_AT]:
        return joined(row, known)
    return row if row[_COUNT] >= known[_COUNT] else None
