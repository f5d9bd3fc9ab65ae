"""The provider ``[timedata.aggregatedinfluxdb]``: small and fast, asked before the big one (timedata.md 9).

It answers what it knows for sure and leaves out the rest, so that the next provider is asked (timedata.md 14, 15-18):

- historic data: channels of the averages only; energy: channels of the daily readings only, for periods of whole local
  days in a configured zone, or one with the same midnights;
- a channel without a reading before the first period is left out: how far it rose is not known;
- the current day is the live value less the last reading; a channel without live value is left out then.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, ITimedata
from openems.backend.models import History
from openems.backend.timedata.aggregatedinflux import records
from openems.backend.timedata.aggregatedinflux.allowed import AllowedChannels
from openems.backend.timedata.influx import reader
from openems.backend.timedata.influx.client import InfluxError
from openems.backend.timedata.influx.database import explained
from openems.backend.timedata.influx.lineprotocol import Conflict, Encoder
from openems.backend.timedata.influx.statements import Answer, Statement, StatementError, Table
from openems.backend.timedata.influx.store import Options, Store
from openems.backend.timedata.plausibility import Plausibility
from openems.backend.timedata.spool import Item
from openems.common import energy
from openems.common.data import DataKind, DataNotification, Value
from openems.common.energy import Number
from openems.common.resolution import UTC, Grid, Resolution, milliseconds, periods, start_of_day, whole

Live = Callable[[str, Sequence[str]], Mapping[str, Value]]


@implementer(ITimedata, IDebugLoggable)
class AggregatedInfluxTimedata:
    """``live`` gives the latest values of an edge's channels, None for unknown ones. ``measurements_max``: zone ->
    measurement of its daily readings. ``bucket`` is the name without retention policy."""

    _log = Logger()

    def __init__(
        self,
        id: str,
        directory: Path,
        *,
        url: str,
        bucket: str,
        live: Live,
        reactor: Any,
        now: Callable[[], int],
        retention_policy_avg: str = "rp_avg",
        retention_policy_max: str = "rp_max",
        measurement_avg: str = "avg",
        measurements_max: Mapping[datetime.tzinfo, str],
        tag: str = "edge",
        allowed: AllowedChannels | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.id = id
        self._now = now
        self._live = live
        self._allowed = allowed or AllowedChannels()
        self._averages = Table(bucket, retention_policy_avg, measurement_avg, tag)
        self._readings = {
            zone: Table(bucket, retention_policy_max, measurement, tag)
            for zone, measurement in measurements_max.items()
        }
        self._encoders = {
            table: Encoder(table.measurement, tag) for table in (self._averages, *self._readings.values())
        }
        merged: Options = {"disk_bytes": 1 << 28, **options}
        self._store = store = Store(
            id,
            directory,
            url,
            self._send,
            self.check,
            Plausibility(),
            reactor=reactor,
            now=now,
            max_delay=1.0,
            **merged,
        )
        self._client, self._reader, self._spool = store.client, store.reader, store.spool
        self.writes = store.spool.writes
        self._problems: dict[str, str] = {}

    async def start(self) -> None:
        """See :meth:`Store.start`."""
        await self._store.start("aggregated history in {url} bucket {bucket}", bucket=self._averages.database)

    async def stop(self) -> None:
        """Writes what waits for a limited time; the rest goes to disk."""
        await self._store.stop()

    async def flush(self) -> None:
        """Everything taken so far is in the database when this returns."""
        await self._spool.flush()

    async def check(self) -> bool:
        """Whether both buckets can be read."""
        problems: dict[str, str] = {}
        for table in (self._averages, *self._readings.values()):
            try:
                self._encoders[table].learn(await self._reader.check(table))
            except InfluxError as error:
                problems[table.bucket] = explained(error, table.bucket, "read")
            except StatementError as error:
                problems[table.bucket] = f'bucket "{table.bucket}": {error}'
        for bucket, problem in problems.items():
            if self._problems.get(bucket) != problem:
                self._log.warn("{id}: {problem}", id=self.id, problem=problem)
        self._problems = problems
        return not problems

    # -- writing ---------------------------------------------------------------------------------

    def write(self, edge_id: str, data: DataNotification) -> None:
        if self._store.read_only or data.kind is DataKind.TIMESTAMPED:
            return
        rows = records.kept(data.rows, self._allowed, self._readings)
        if rows:
            # Every row is an aggregated one already: which channels came as timestampedData does not matter.
            self._store.put(edge_id, data.kind, rows, DataKind.RESEND)

    async def _send(self, items: list[Item]) -> None:
        await self._deliver(self._averages, records.averages(items, self._allowed))
        for zone, table in self._readings.items():
            await self._deliver(table, records.readings(items, self._allowed, zone))

    async def _deliver(self, table: Table, items: list[Item]) -> None:
        encoder = self._encoders[table]

        def learn(conflict: Conflict) -> None:
            encoder.learn({conflict.field: conflict.required})

        await self._store.deliver(table, "s", encoder, items, learn)

    # -- reading ---------------------------------------------------------------------------------

    async def query_historic_data(
        self, edge_id: str, from_date: datetime.datetime, to_date: datetime.datetime, channels: Sequence[str],
        resolution: Resolution,
    ) -> History:  # fmt: skip
        grid = periods(from_date, to_date, resolution)
        names = [channel for channel in channels if channel in self._allowed.averages]
        ask, types = self._asker(self._averages, edge_id), self._types_of(self._averages)
        return History(grid.starts, await self._store.answered(reader.means(ask, types, grid, names)))

    async def query_historic_energy_per_period(
        self, edge_id: str, from_date: datetime.datetime, to_date: datetime.datetime, channels: Sequence[str],
        resolution: Resolution,
    ) -> History:  # fmt: skip
        grid = periods(from_date, to_date, resolution)
        found = await self._energy(edge_id, grid, from_date.tzinfo or UTC, channels)
        return History(grid.starts, {name: list(column) for name, column in found.items()})

    async def query_historic_energy(
        self, edge_id: str, from_date: datetime.datetime, to_date: datetime.datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        found = await self._energy(edge_id, whole(from_date, to_date), from_date.tzinfo or UTC, channels)
        return {name: column[0] for name, column in found.items()}

    async def query_first_value_before(
        self, edge_id: str, date: datetime.datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        time, zone = milliseconds(date), date.tzinfo or UTC
        averages = [channel for channel in channels if channel in self._allowed.averages]
        found = await self._store.answered(reader.newest_before(self._asker(self._averages, edge_id), time, averages))
        # The record of a day is how far the counter was at its end.
        midnight = start_of_day(datetime.datetime.fromtimestamp(time / 1000, zone).date(), zone)
        table = self._table_of(zone, [midnight])
        counters = [channel for channel in channels if channel in self._allowed.counters]
        if table is not None:
            ask = self._asker(table, edge_id)
            found = {**found, **await self._store.answered(reader.newest_before(ask, midnight, counters))}
        return found

    async def _energy(
        self, edge_id: str, grid: Grid, zone: datetime.tzinfo, channels: Sequence[str]
    ) -> dict[str, list[Number | None]]:
        names = [channel for channel in channels if channel in self._allowed.counters]
        table = self._table_of(zone, grid.edges)
        if not names or not len(grid) or table is None or not records.whole_days(grid, zone):
            return {}
        now = self._now()
        today = start_of_day(datetime.datetime.fromtimestamp(now / 1000, zone).date(), zone)
        live: dict[str, Number] = {}
        if grid.end > today:
            values = self._live(edge_id, names)
            live = {name: value for name in names if _is_number(value := values.get(name))}  # type: ignore[misc]
            names = list(live)
        if not names:
            return {}
        ask, types = self._asker(table, edge_id), self._types_of(table)
        # A record of today would be wrong: the day has not ended.
        past = Grid([start for start in grid.starts if start < today], min(grid.end, today), grid.step)
        found = await self._store.answered(reader.rises(ask, types, past, names)) if len(past) else {}
        bases = await self._store.answered(reader.newest_before(ask, grid.start, names))
        result: dict[str, list[Number | None]] = {}
        for name in names:
            if not _is_number(bases.get(name)):
                continue
            column = [*found.get(name, [None] * len(past)), *[None] * (len(grid) - len(past))]
            result[name] = column
        if live and result and grid.start <= now < grid.end:
            before = await self._store.answered(reader.newest_before(ask, today, list(result)))
            index = grid.index(now)
            for name, column in result.items():
                rise = energy.difference(before.get(name, 0), live[name])  # type: ignore[arg-type]
                column[index] = energy.add(column[index], rise)
        return result

    def _table_of(self, zone: datetime.tzinfo, edges: Sequence[int]) -> Table | None:
        """The readings of a zone, or of one that had the same time whenever a period begins or ends."""
        table = self._readings.get(zone)
        if table is not None:
            return table
        offsets = [_offset(edge, zone) for edge in edges]
        for other, table in self._readings.items():
            if [_offset(edge, other) for edge in edges] == offsets:
                return table
        return None

    def _asker(self, table: Table, edge_id: str) -> reader.Ask:
        edge = self._store.owners.tag(edge_id)

        async def ask(statements: Sequence[Statement]) -> list[Answer]:
            return await self._reader.ask(table, edge, statements)

        return ask

    def _types_of(self, table: Table) -> reader.Types:
        async def types(names: Sequence[str]) -> Any:
            return await self._reader.types(table)

        return types

    # -- state -----------------------------------------------------------------------------------

    @property
    def dropped(self) -> dict[str, int]:
        """Values (points, where the server left them out) not stored, by reason."""
        return self._store.dropped(*(encoder.lost for encoder in self._encoders.values()))

    def debug_log(self) -> str | None:
        return self._store.debug_log(self.dropped, next(iter(self._problems.values()), None))

    def debug_metrics(self) -> Mapping[str, int | float]:
        return self._store.debug_metrics(self.dropped)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _offset(time: int, zone: datetime.tzinfo) -> datetime.timedelta | None:
    return datetime.datetime.fromtimestamp(time / 1000, zone).utcoffset()
