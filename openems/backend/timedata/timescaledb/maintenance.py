"""What must be done now and then: partitions ahead, the five-minute table, retention, TimescaleDB's compression."""

from __future__ import annotations

from collections.abc import Callable

import psycopg2
from twisted.logger import Logger

from openems.backend.timedata.timescaledb.migrations import TSL, Schema
from openems.backend.timedata.timescaledb.partitions import Partitions, drop_chunks, drop_plain
from openems.backend.timedata.timescaledb.rollup import Rollup
from openems.backend.timedata.timescaledb.rows import DAY
from openems.postgres.pool import Pool

EXPIRE_EVERY = 3_600_000
#: Compressed chunks take late rows, but slowly: most stragglers have arrived by then.
COMPRESS_AFTER_DAYS = 7

READ_RAW_FROM = (
    "SELECT CASE WHEN isfinite(time) THEN (date_part('epoch', time) * 1000)::bigint ELSE 0 END"
    " FROM ts_state WHERE name = 'raw_from'"
)
_SET_RAW_FROM = (
    "UPDATE ts_state SET time = to_timestamp(%s / 1000.0) WHERE name = 'raw_from' AND time < to_timestamp(%s / 1000.0)"
)
_COMPRESSION = (
    "ALTER TABLE {table} SET (timescaledb.compress, timescaledb.compress_segmentby = 'series_id',"
    " timescaledb.compress_orderby = 'time')",
    "SELECT add_compression_policy('{table}', INTERVAL '{days} days', if_not_exists => true)",
)


class Maintenance:
    """``raw_days`` and ``rollup_days``: 0 keeps for ever. ``raw_from`` in epoch ms: older samples may be gone."""

    _log = Logger()

    def __init__(
        self,
        id: str,
        pool: Pool,
        schema: Schema,
        partitions: Partitions | None,
        *,
        now: Callable[[], int],
        raw_days: int,
        rollup_days: int,
    ) -> None:
        self._id = id
        self._pool = pool
        self._schema = schema
        self._partitions = partitions
        self._now = now
        self._raw_days = raw_days
        self._rollup_days = rollup_days
        self.rollup = Rollup(pool, now=now)
        self.raw_from = 0
        self.dropped = 0
        self._expired_at: int | None = None

    async def begin(self) -> None:
        """Once, before anything is written. Raises what the pool raises."""
        await self._read_raw_from()
        if self._partitions is not None:
            await self._partitions.ahead(self._now())
        if self._schema.hypertables and self._schema.flavour == TSL:
            await self._compress()

    async def round(self, going: Callable[[], bool] = lambda: True) -> None:
        """Every few seconds. Raises what the pool raises."""
        await self.rollup.run(going=going)
        now = self._now()
        if self._expired_at is None or now - self._expired_at >= EXPIRE_EVERY:
            self._expired_at = now
            if self._partitions is not None:
                await self._partitions.ahead(now)
            await self._expire(now)

    async def _read_raw_from(self) -> None:
        [(stored,)] = await self._pool.query(READ_RAW_FROM)
        own = (self._now() - self._raw_days * DAY) // DAY * DAY if self._raw_days else 0
        self.raw_from = max(stored, own)

    async def _expire(self, now: int) -> None:
        """Whole days, after everybody knows that they may be gone."""
        await self._read_raw_from()
        drop = drop_chunks if self._schema.hypertables else drop_plain
        if self._raw_days:
            await self._pool.execute(_SET_RAW_FROM, (self.raw_from, self.raw_from))
            self.dropped += await drop(self._pool, ("ts_num",), self.raw_from)
        if self._rollup_days:
            self.dropped += await drop(self._pool, ("ts_num_5m", "ts_txt"), now - self._rollup_days * DAY)

    async def _compress(self) -> None:
        """A server without the feature is told of once and serves as well."""
        for table in ("ts_num", "ts_num_5m"):
            for statement in _COMPRESSION:
                try:
                    await self._pool.execute(statement.format(table=table, days=COMPRESS_AFTER_DAYS))
                except psycopg2.Error as error:
                    reason = self._pool.server.reason(error)
                    self._log.warn("{id}: {table} is not compressed: {reason}", id=self._id, table=table, reason=reason)
                    break
