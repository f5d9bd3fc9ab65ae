"""History in PostgreSQL, ``[[timedata.timescaledb]]``: plain, or with TimescaleDB under either of its licences.

Writes wait in a spool while the server is away. Sessions: a pool for questions, one for writing, one that listens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, ITimedata
from openems.backend.models import History
from openems.backend.timedata.plausibility import ChannelFilter
from openems.backend.timedata.spool import Item, Spool, TryLater
from openems.backend.timedata.spoolfigures import of_spool
from openems.backend.timedata.timescaledb import migrations
from openems.backend.timedata.timescaledb.export import TimescaledbExport
from openems.backend.timedata.timescaledb.figures import of_pools
from openems.backend.timedata.timescaledb.maintenance import Maintenance
from openems.backend.timedata.timescaledb.migrations import SchemaTrouble
from openems.backend.timedata.timescaledb.partitions import Partitions
from openems.backend.timedata.timescaledb.reader import Reader
from openems.backend.timedata.timescaledb.rows import ROWS
from openems.backend.timedata.timescaledb.series import NOTIFY, Series
from openems.backend.timedata.timescaledb.writer import Writer
from openems.common.data import DataNotification, Value
from openems.common.errors import COMMON_SERVICE_NOT_AVAILABLE, OpenemsError
from openems.common.resolution import Resolution, milliseconds, periods, whole
from openems.postgres.listen import Listener
from openems.postgres.pool import Pool, Unavailable

#: What we take for written must outlive a crash of the server, whatever it is set to otherwise.
DURABLE = ("SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",)
START_SECONDS = 5.0
ROUND_EVERY = 10.0
FIRST_RETRY, LAST_RETRY = 1.0, 30.0
LOG_EVERY = 60.0


@implementer(ITimedata, IDebugLoggable)
class TimescaledbTimedata:
    """``spool_dir``: folder of this provider alone. ``raw_retention_days`` and ``rollup_retention_days``: 0 keeps for
    ever. ``flavour``: auto, or plain, apache, tsl. ``edges``: only these are written, all if empty.

    ``start`` does not fail when the server is away or refuses: what comes waits, and :meth:`debug_log` says why.
    """

    _log = Logger()

    def __init__(
        self,
        id: str,
        spool_dir: Path,
        *,
        host: str = "localhost",
        port: int = 5432,
        user: str,
        password: str = "",
        database: str,
        schema: str = "public",
        is_read_only: bool = False,
        pool_size: int = 10,
        write_pool_size: int = 2,
        options: Mapping[str, str] | None = None,
        flavour: str = "auto",
        statement_timeout: float = 30.0,
        batch_rows: int = ROWS,
        batch_delay: float = 0.5,
        max_buffered_rows: int = 1_000_000,
        spool_max_bytes: int = 1 << 30,
        raw_retention_days: int = 0,
        rollup_retention_days: int = 0,
        lookback_days: int = 3_660,
        max_channels: int = 10_000,
        edges: Sequence[str] = (),
        channels: ChannelFilter | None = None,
        reactor: Any,
        now: Callable[[], int],
        stop_patience: float = 3.0,
    ) -> None:
        self.id = id
        self.schema = schema
        self.read_only = is_read_only
        self._reactor = reactor
        self._now = now
        self._flavour = flavour
        self.raw_days = raw_retention_days
        self._rollup_days = rollup_retention_days
        self._lookback = lookback_days
        self._max_channels = max_channels
        self._edges = frozenset(edges)
        self._channels = channels
        self._stop_patience = stop_patience
        search_path = {"search_path": schema if schema == "public" else f'"{schema}", public'}
        where = {
            "host": host,
            "port": port,
            "user": user,
            "password": password,
            "database": database,
            "options": options,
            "reactor": reactor,
        }
        # A question that sorts a year must not write it to disk to do so.
        reading = {**search_path, "work_mem": "32MB", "default_transaction_read_only": "on"}
        self.pool = Pool(f"{id} queries", size=pool_size, settings=reading, **where)
        self.write_pool = Pool(f"{id} writes", size=write_pool_size + 2, settings=search_path, prepare=DURABLE, **where)
        self.export = TimescaledbExport(self.pool)
        self._series = Series(self.write_pool, lambda: self._listener.connected)
        self._reader = Reader(id, self.pool, self._series, reactor=reactor, time_limit=statement_timeout)
        self._listener = Listener(
            id,
            self.pool.server,
            [NOTIFY],
            notified=self._series.changed,
            missed=self._series.missed,
            reactor=reactor,
        )
        self._spool = spool = Spool(
            id,
            spool_dir,
            self._write,
            reactor=reactor,
            now=now,
            memory_values=max_buffered_rows,
            disk_bytes=spool_max_bytes,
            batch_values=batch_rows,
            max_delay=batch_delay,
            parallel=write_pool_size,
        )
        self.writes = spool.writes
        self._writer: Writer | None = None
        self._maintenance: Maintenance | None = None
        self._tables: migrations.Schema | None = None
        self._running = False
        self._trouble: str | None = None
        self._retry_in = FIRST_RETRY
        self._timer: Any = None
        self._task: Deferred[None] | None = None
        self._logged_at = -LOG_EVERY
        self._left_out = 0
        self._maintaining = DeferredLock()

    # --- life

    async def start(self) -> None:
        """Returns after the first try to reach the server, or when that takes too long. Raises OSError or
        spoolfile.InUse for the spool's folder."""
        self._running = True
        if not self.read_only:
            await self._spool.start()
        first: Deferred[None] = Deferred()
        self._task = Deferred.fromCoroutine(self._first())
        self._task.addErrback(self._unexpected)
        self._task.addBoth(self._task_done)
        self._task.addBoth(lambda _: None if first.called else first.callback(None))
        # Nobody's start waits for a database that does not answer.
        timer = self._reactor.callLater(START_SECONDS, lambda: None if first.called else first.callback(None))
        await first
        if timer.active():
            timer.cancel()

    async def _first(self) -> None:
        await self.pool.start()
        await self._open()

    async def stop(self) -> None:
        """Writes what waits for a limited time; the rest is on disk then."""
        if not self._running:
            return
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if not self.read_only:
            await self._spool.stop(self._stop_patience)
        if self._task is not None:
            self._task.cancel()
        await self._listener.stop()
        await self.write_pool.stop(0.2)
        await self.pool.stop(0.2)

    async def _open(self) -> None:
        """Looks at the tables and makes them; tries again later if that cannot be."""
        try:
            if self.read_only:
                if self.pool.down is not None:
                    raise Unavailable(self.pool.down)
                self._tables = await migrations.require(self.pool, self.schema)
            else:
                await self.write_pool.start()
                await self._open_for_writing()
        except (Unavailable, SchemaTrouble, psycopg2.Error) as error:
            if isinstance(error, psycopg2.Error):
                text = migrations.sentence(error, self.write_pool, self.schema)
            else:
                text = str(error)
            if self._running:
                self._failed(text)
                self._timer = self._reactor.callLater(self._retry_in, self._again)
                self._retry_in = min(LAST_RETRY, self._retry_in * 2)
            return
        self._trouble = None
        tables = self._tables
        self._log.info(
            "{id}: history at {server}, PostgreSQL {version}, {flavour}, tables version {number}{mode}",
            id=self.id,
            server=self.pool.server,
            version=tables.server if tables else "",
            flavour=tables.flavour if tables else "",
            number=tables.version if tables else 0,
            mode=", READ ONLY" if self.read_only else "",
        )
        if self._running:
            await self._listener.start()
        if not self.read_only and self._running:
            self._timer = self._reactor.callLater(ROUND_EVERY, self._again)

    async def _open_for_writing(self) -> None:
        tables = await migrations.migrate(self.write_pool, self._flavour, self.schema)
        partitions = None if tables.hypertables else Partitions(self.write_pool)
        maintenance = Maintenance(
            self.id,
            self.write_pool,
            tables,
            partitions,
            now=self._now,
            raw_days=self.raw_days,
            rollup_days=self._rollup_days,
        )
        await maintenance.begin()
        self._tables = tables
        self._maintenance = maintenance
        self._writer = Writer(
            self.write_pool,
            self._series,
            partitions,
            now=self._now,
            raw_from=lambda: maintenance.raw_from,
            lookback_days=self._lookback,
            max_channels=self._max_channels,
            channels=self._channels,
            schema=self.schema,
        )

    def _again(self) -> None:
        self._task = Deferred.fromCoroutine(self._round() if self._tables is not None else self._open())
        self._task.addErrback(self._unexpected)
        self._task.addBoth(self._task_done)

    def _task_done(self, result: Any) -> None:
        self._task = None

    def _unexpected(self, failure: Any) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure("{id}: maintenance failed", failure, id=self.id)
            if self._running:
                self._timer = self._reactor.callLater(LAST_RETRY, self._again)

    async def _round(self) -> None:
        await self.maintain()
        if self._running:
            self._timer = self._reactor.callLater(ROUND_EVERY, self._again)

    async def maintain(self) -> None:
        """What is due: roll-up, partitions, retention. Trouble is logged."""
        maintenance = self._maintenance
        if maintenance is None:
            return
        await self._maintaining.acquire()
        try:
            await maintenance.round(lambda: self._running)
            self._trouble = None
        except Unavailable:
            pass  # whoever writes tells
        except psycopg2.Error as error:
            self._failed(migrations.sentence(error, self.write_pool, self.schema))
        finally:
            self._maintaining.release()

    @property
    def trouble(self) -> str | None:
        """Why it cannot be used, in a sentence for the operator."""
        return self._trouble or self.pool.down or self._spool.failing

    def _failed(self, text: str) -> None:
        self._trouble = text
        if self._reactor.seconds() - self._logged_at >= LOG_EVERY:
            self._logged_at = self._reactor.seconds()
            self._log.error("{id}: {server}: {text}", id=self.id, server=self.pool.server, text=text)

    # --- writing

    def write(self, edge_id: str, data: DataNotification) -> None:
        if self.read_only or (self._edges and edge_id not in self._edges):
            self._left_out += sum(map(len, data.rows.values()))
            return
        self._spool.put((edge_id, data.kind, data.rows))

    async def _write(self, items: list[Item]) -> None:
        if self._writer is None:
            raise TryLater(self._trouble or "not connected yet")
        await self._writer.write(items)

    async def flush(self) -> None:
        """Everything taken so far is committed when this returns; waits while the server is away."""
        await self._spool.flush()

    # --- asking

    def _ready(self) -> Reader:
        if not self._running or self._tables is None:
            raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE)
        return self._reader

    async def query_historic_data(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        return await self._ready().means(edge_id, periods(from_date, to_date, resolution), channels)

    async def query_historic_energy(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        rises = await self._ready().rises(edge_id, whole(from_date, to_date), channels)
        return {name: column[0] for name, column in rises.items()}

    async def query_historic_energy_per_period(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        grid = periods(from_date, to_date, resolution)
        return History(grid.starts, await self._ready().rises(edge_id, grid, channels))

    async def query_first_value_before(self, edge_id: str, date: datetime, channels: Sequence[str]) -> dict[str, Value]:
        return await self._ready().newest_before(edge_id, milliseconds(date), channels)

    # --- how it is

    def debug_log(self) -> str | None:
        spool, writer = self._spool, self._writer
        dropped = sum(spool.dropped.values()) + (sum(writer.dropped.values()) if writer is not None else 0)
        trouble = self.trouble
        state = f" {'CANNOT READ' if self.read_only else 'CANNOT WRITE'}: {trouble}" if trouble else ""
        return (
            f"[{self.id}] Rows:{writer.rows if writer else 0} Batches:{spool.batches} Waiting:{spool.waiting}"
            f" Series:{len(self._series)} Sessions:{self.pool.open}+{self.write_pool.open}"
            f" Queries:{self.pool.busy + self.pool.waiting} Dropped:{dropped}{state}"
        )

    def debug_metrics(self) -> Mapping[str, int | float]:
        found: dict[str, int | float] = {**of_spool(self._spool), **of_pools(self.pool, self.write_pool)}
        found["Series"] = len(self._series)
        found["LeftOut"] = self._left_out
        found["Queries"] = self._reader.asked
        found["QueriesFailed"] = self._reader.failed
        found["Rows"] = self._writer.rows if self._writer else 0
        found["RolledUp"] = self._maintenance.rollup.buckets if self._maintenance else 0
        found["PartitionsDropped"] = self._maintenance.dropped if self._maintenance else 0
        for source in (self._spool.dropped, self._writer.dropped if self._writer else {}):
            for reason, count in source.items():
                name = f"Dropped{reason.capitalize()}"
                found[name] = found.get(name, 0) + count
        return {f"{self.id}/{name}": value for name, value in found.items()}
