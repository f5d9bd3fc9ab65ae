"""The embedded history, ``[[timedata.sqlite]]``: one file, one writer thread, a few reader threads."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, ITimedata
from openems.backend.models import History
from openems.backend.timedata.sqlite import reader
from openems.backend.timedata.sqlite.reader import Question
from openems.backend.timedata.sqlite.readers import Readers
from openems.backend.timedata.sqlite.store import Store
from openems.backend.timedata.sqlite.writer import Writer
from openems.common.data import DataNotification, Value
from openems.common.errors import COMMON_SERVICE_NOT_AVAILABLE, OpenemsError, generic
from openems.common.resolution import Resolution, milliseconds, periods, whole

P = ParamSpec("P")
T = TypeVar("T")


@implementer(ITimedata, IDebugLoggable)
class SqliteTimedata:
    """``path`` of the file, made with its folder where missing; ``now`` gives epoch ms; ``queue_rows`` bounds the
    values that wait for the disk. Raw samples are kept ``retention_days_raw`` days, five-minute values
    ``retention_days_rollup``.

    Data that was just taken can be asked for after the next commit, half a second later, or after :meth:`flush`.
    """

    READERS = 4
    MAX_QUERIES = 1_000
    LOG_EVERY = 60.0
    READERS_PATIENCE = 0.3
    _log = Logger()

    def __init__(
        self,
        id: str,
        path: str,
        *,
        reactor: Any,
        now: Callable[[], int],
        retention_days_raw: int = 31,
        retention_days_rollup: int = 3_660,
        queue_rows: int = 1_000_000,
        max_channels: int = 10_000,
        stop_patience: float = 8.0,
    ) -> None:
        if not 1 <= retention_days_raw <= retention_days_rollup:
            raise ValueError("retention_days_raw must be at least 1 and not more than retention_days_rollup")
        self.id = id
        self._path = path
        self._reactor = reactor
        self._stop_patience = stop_patience
        self._writer = writer = Writer(
            id,
            path,
            lambda: Store(
                path,
                now(),
                retention_days_raw=retention_days_raw,
                retention_days_rollup=retention_days_rollup,
                max_channels=max_channels,
            ),
            now=now,
            queue_rows=queue_rows,
            call=reactor.callFromThread,
        )
        self.writes = writer.writes
        self._readers = Readers(
            f"history queries {id}",
            path,
            self.READERS,
            generation=lambda: self._writer.generation,
            call=reactor.callFromThread,
        )
        self._running = False
        self._queries = 0
        self._answered = 0
        self._refused = 0
        self._logged_at = -self.LOG_EVERY

    async def start(self) -> None:
        """Opens the file in the writer thread; trouble with it is logged and does not stop the backend."""
        opened: Deferred[None] = Deferred()
        opened.addTimeout(self._stop_patience, self._reactor)
        self._readers.start()
        self._writer.start(lambda: opened.callback(None))
        self._running = True
        try:
            await opened
        except TimeoutError:
            self._log.warn("{id}: still opening {path}", id=self.id, path=self._path)
        self._log.info("{id}: history in {path}", id=self.id, path=self._path)

    async def stop(self) -> None:
        """Writes what waits for ``stop_patience`` seconds, puts the rest in a file for the next start, and ends all
        threads; at most a second later it returns whatever they do."""
        if not self._running:
            return
        self._running = False
        # Before the writer: the last connection to close tidies up the file, and these may not write.
        readers = self._readers.stop()
        readers.addTimeout(self.READERS_PATIENCE, self._reactor)
        try:
            await readers
        except TimeoutError:
            self._log.info("{id}: a query of {path} does not end", id=self.id, path=self._path)
        patience = max(self._stop_patience - self.READERS_PATIENCE, self._stop_patience / 2)
        ended: Deferred[None] = Deferred()
        ended.addTimeout(patience + 1, self._reactor)
        hurry = self._reactor.callLater(patience + 0.3, self._writer.hurry)
        self._writer.stop(patience, lambda: ended.callback(None))
        try:
            await ended
        except TimeoutError:
            if self._writer.waiting:
                self._log.error("{id}: the writer of {path} does not end", id=self.id, path=self._path)
            else:
                # All is written; only the tidying up that comes with closing takes long. The next start does it.
                self._log.info("{id}: {path} is still being closed", id=self.id, path=self._path)
        finally:
            if hurry.active():
                hurry.cancel()

    async def flush(self) -> None:
        """Everything taken so far is committed when this returns, and what the last run had no time for."""
        done: Deferred[None] = Deferred()
        self._writer.flush(lambda: done.callback(None))
        await done

    def write(self, edge_id: str, data: DataNotification) -> None:
        self._writer.put((edge_id, data.kind, data.rows))

    async def query_historic_data(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        grid = periods(from_date, to_date, resolution)
        return await self._ask(Question.history, edge_id, grid, channels)

    async def query_historic_energy(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        return await self._ask(Question.energy, edge_id, whole(from_date, to_date), channels)

    async def query_historic_energy_per_period(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        grid = periods(from_date, to_date, resolution)
        return await self._ask(Question.energy_per_period, edge_id, grid, channels)

    async def query_first_value_before(self, edge_id: str, date: datetime, channels: Sequence[str]) -> dict[str, Value]:
        return await self._ask(Question.newest_before, edge_id, milliseconds(date), channels)

    async def _ask(self, question: Callable[Concatenate[Question, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        def answer(connection: sqlite3.Connection) -> T:
            if not self._running:
                raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE)
            with reader.ask(connection, stopping=lambda: not self._running) as view:
                return question(view, *args, **kwargs)

        if not self._running:
            raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE)
        if self._queries >= self.MAX_QUERIES:
            self._refused += 1
            raise generic("Too many history queries are waiting")
        self._queries += 1
        try:
            return await self._readers.ask(answer)
        except sqlite3.Error as error:
            # The text may name files and queries: it is for the log.
            if self._reactor.seconds() - self._logged_at >= self.LOG_EVERY:
                self._logged_at = self._reactor.seconds()
                self._log.warn("{id}: query failed: {error}", id=self.id, error=error)
            raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE) from None
        finally:
            self._queries -= 1
            self._answered += 1

    def debug_log(self) -> str | None:
        writer = self._writer
        dropped = sum(writer.dropped.values())
        state = " CANNOT WRITE" if writer.failing else ""
        return (
            f"[{self.id}] Rows:{writer.rows} Batches:{writer.batches} Waiting:{writer.waiting} Series:{writer.series}"
            f" Queries:{self._queries} Dropped:{dropped}{state}"
        )

    def debug_metrics(self) -> Mapping[str, int | float]:
        writer = self._writer
        metrics: dict[str, int | float] = {
            f"{self.id}/Rows": writer.rows,
            f"{self.id}/Batches": writer.batches,
            f"{self.id}/Waiting": writer.waiting,
            f"{self.id}/Series": writer.series,
            f"{self.id}/Failures": writer.failures,
            f"{self.id}/CorruptFiles": writer.corrupt_files,
            f"{self.id}/QueriesPending": self._queries,
            f"{self.id}/QueriesCompleted": self._answered,
            f"{self.id}/QueriesRefused": self._refused,
        }
        for reason, count in writer.dropped.items():
            metrics[f"{self.id}/Dropped{reason.capitalize()}"] = count
        return metrics
