"""Writes batches of notifications: what the spool calls.

Who is told what: :class:`TryLater` where the server could not be asked, is short of something or may take it later;
:class:`Refused` where it says that a value itself is impossible. Values that are no values of channels at all are
counted here and cost only themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psycopg2

from openems.backend.timedata.plausibility import FUTURE, MAX_EDGES, ChannelFilter, is_unicode
from openems.backend.timedata.spool import Item, Refused, TryLater
from openems.backend.timedata.timescaledb import rows as shapes
from openems.backend.timedata.timescaledb.migrations import sentence
from openems.backend.timedata.timescaledb.old import OldRows
from openems.backend.timedata.timescaledb.partitions import Partitions
from openems.backend.timedata.timescaledb.rows import DAY, Statement
from openems.backend.timedata.timescaledb.series import Edge, Series
from openems.common.channel import MAX_LENGTH
from openems.common.data import MIN_TIME, DataKind, Row
from openems.postgres.pool import Pool, Unavailable

TIMEOUT = 60.0
#: SQLSTATE classes of values that can never be stored.
_VALUE = ("22", "23", "21")
_NO_PARTITION = "23514"
_NO_TABLE = ("42P01", "42501")

Part = tuple[Edge, int, dict[str, Any], dict[str, str] | None]


class Writer:
    """``raw_from()``: samples before it are kept in five minutes only; ``earliest_days``: older ones not at all."""

    def __init__(
        self,
        pool: Pool,
        series: Series,
        partitions: Partitions | None,
        *,
        now: Callable[[], int],
        raw_from: Callable[[], int],
        lookback_days: int,
        max_channels: int,
        channels: ChannelFilter | None = None,
        schema: str = "public",
    ) -> None:
        self._pool = pool
        self._series = series
        self._partitions = partitions
        self._old = OldRows(pool, partitions)
        self._now = now
        self._raw_from = raw_from
        self._lookback = lookback_days * DAY
        self._max_channels = max_channels
        self._filter = channels or ChannelFilter(strict=False)
        self._schema = schema
        #: Samples written, statements.
        self.rows = 0
        self.statements = 0
        #: Reason -> values left out.
        self.dropped: dict[str, int] = {}

    async def write(self, items: list[Item]) -> None:
        """All of it, or an exception; the same again does no harm."""
        dropped: dict[str, int] = {}
        try:
            unknown = self._unknown(items)
            if unknown:
                await self._series.resolve(unknown, timeout=TIMEOUT)
            raw_from = self._raw_from()
            old: list[Part] = []
            statement = Statement()
            for edge, time, numbers, texts in self._parts(items, dropped):
                if time < raw_from:
                    old.append((edge, time, numbers, None))
                    if not texts:
                        continue
                    numbers = {}
                if statement.full or not statement.takes(edge, time):
                    await self._send(statement)
                    statement = Statement()
                statement.add(edge, time, numbers, texts)
            if statement.rows:
                await self._send(statement)
            if old:
                self.rows += await self._old.write(old, timeout=TIMEOUT)
        except Unavailable as error:
            raise TryLater(error.reason) from None
        except psycopg2.Error as error:
            raise self._translated(error) from None
        for reason, count in dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _translated(self, error: psycopg2.Error) -> Exception:
        code = error.pgcode or ""
        text = sentence(error, self._pool, self._schema)
        if code == _NO_PARTITION and self._partitions is not None:
            self._partitions.forget()
            return TryLater(text)
        if code.startswith(_VALUE):
            return Refused("value", text)
        if isinstance(error, psycopg2.DataError):
            return Refused("value", text)
        return TryLater(text)

    async def _send(self, statement: Statement) -> None:
        if self._partitions is not None and self._partitions.missing(statement.days):
            await self._partitions.make(statement.days)
        sql, params = statement.sql()
        await self._pool.execute(sql, params, timeout=TIMEOUT)  # type: ignore[arg-type]
        statement.learn()
        self.statements += 1
        self.rows += statement.rows

    def _unknown(self, items: list[Item]) -> dict[str, set[str]]:
        """Edge -> channels without a number, as far as they may have one."""
        wanted: dict[str, set[str]] = {}
        for name, _, rows in items:
            edge = self._series.edges.get(name)
            if edge is None:
                if not self._is_edge(name):
                    continue
                edge = self._series.edge(name)
            for row in rows.values():
                if not row.keys() <= edge.ids.keys():
                    self._add_unknown(name, edge, row, wanted)
        return wanted

    def _is_edge(self, name: str) -> bool:
        return 0 < len(name) <= MAX_LENGTH and is_unicode(name) and len(self._series.edges) < MAX_EDGES

    def _add_unknown(self, name: str, edge: Edge, row: Row, wanted: dict[str, set[str]]) -> None:
        new = {c: value for c, value in row.items() if c not in edge.ids and c not in edge.refused}
        numbers, texts = shapes.plain(new, {})
        found = wanted.get(name, set())
        for channel in (*numbers, *texts):
            reason = self._refusal(channel, len(edge.ids) + len(found))
            if reason is None:
                found.add(channel)
            elif len(edge.refused) < self._max_channels:
                edge.refused[channel] = reason
        if found:
            wanted[name] = found

    def _refusal(self, channel: str, channels: int) -> str | None:
        if not self._filter.valid(channel) or not is_unicode(channel) or not channel.isprintable():
            return "address"
        return "channels" if channels >= self._max_channels else None

    def _parts(self, items: Iterable[Item], dropped: dict[str, int]) -> Iterator[Part]:
        """Rows of known channels with fine values, in order."""
        now = self._now()
        latest, earliest = now + FUTURE, max(MIN_TIME, now - self._lookback)
        for name, kind, rows in items:
            edge = self._series.edges.get(name)
            if edge is None:
                dropped["edge"] = dropped.get("edge", 0) + sum(map(len, rows.values()))
                continue
            if kind is DataKind.TIMESTAMPED:
                edge.timestamped = self._series.sets.plus(edge.timestamped, rows.values(), self._max_channels)
            for time, row in rows.items():
                if not earliest <= time <= latest:
                    dropped["time"] = dropped.get("time", 0) + len(row)
                    continue
                if kind is DataKind.AGGREGATED:
                    row = {channel: value for channel, value in row.items() if channel not in edge.timestamped}
                if not row:
                    continue
                if row.keys() <= edge.ids.keys() and shapes.all_numbers(row):
                    yield edge, time, row, None
                    continue
                numbers, texts = shapes.plain(row, dropped)
                self._leave_out_unknown(edge, numbers, dropped)
                self._leave_out_unknown(edge, texts, dropped)
                if numbers or texts:
                    yield edge, time, numbers, texts

    def _leave_out_unknown(self, edge: Edge, values: dict[str, Any], dropped: dict[str, int]) -> None:
        for channel in [channel for channel in values if channel not in edge.ids]:
            del values[channel]
            reason = edge.refused.get(channel) or self._refusal(channel, len(edge.ids)) or "channels"
            dropped[reason] = dropped.get(reason, 0) + 1
