"""The provider ``[[timedata.influxdb]]``: what edges send goes through the spool, questions go to the reader."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, ITimedata
from openems.backend.models import History
from openems.backend.timedata.influx import reader
from openems.backend.timedata.influx.client import InfluxError
from openems.backend.timedata.influx.database import FLUX, explained
from openems.backend.timedata.influx.export import InfluxExport
from openems.backend.timedata.influx.lineprotocol import Conflict, Encoder, FieldType
from openems.backend.timedata.influx.period import Period
from openems.backend.timedata.influx.statements import Answer, Statement, StatementError, Table
from openems.backend.timedata.influx.store import Options, Store
from openems.backend.timedata.plausibility import ChannelFilter, Plausibility, is_unicode
from openems.backend.timedata.spool import Item
from openems.common.channel import MAX_LENGTH
from openems.common.data import DataNotification, Value
from openems.common.resolution import Grid, Resolution, milliseconds, periods, whole


@implementer(ITimedata, IDebugLoggable)
class InfluxTimedata:
    """``directory`` is for what waits while the server is away. ``bucket``: of InfluxDB 1 ``database/retentionPolicy``.
    ``now`` gives epoch ms.

    What was just taken can be asked for after half a second, or after :meth:`flush`.
    """

    _log = Logger()

    def __init__(
        self,
        id: str,
        directory: Path,
        *,
        url: str,
        bucket: str,
        reactor: Any,
        now: Callable[[], int],
        measurement: str = "data",
        tag: str = "edge",
        period: Period | None = None,
        channels: ChannelFilter | None = None,
        max_channels: int = 10_000,
        **options: Unpack[Options],
    ) -> None:
        self.id = id
        self._period = period or Period()
        database, _, policy = bucket.partition("/")
        self._table = Table(database, policy, measurement, tag)
        self._encoder = Encoder(measurement, tag)
        self._plausibility = Plausibility(channels=channels or ChannelFilter(), max_channels=max_channels)
        self._store = store = Store(
            id,
            directory,
            url,
            self._send,
            self.check,
            self._plausibility,
            reactor=reactor,
            now=now,
            parallel=4,
            **options,
        )
        self._client, self._reader, self._spool = store.client, store.reader, store.spool
        self.writes = store.spool.writes
        self.export = InfluxExport(store.client, self._table)
        self._told: set[str] = set()
        self._types: Mapping[str, FieldType] = {}
        self.problem: str | None = None

    async def start(self) -> None:
        """See :meth:`Store.start`."""
        table = self._table
        await self._store.start(
            "history in {url} bucket {bucket} measurement {measurement}",
            bucket=table.bucket,
            measurement=table.measurement,
        )

    async def stop(self) -> None:
        """Writes what waits for a limited time; the rest goes to disk."""
        await self._store.stop()

    async def flush(self) -> None:
        """Everything taken so far is in the database when this returns."""
        await self._spool.flush()

    async def check(self) -> bool:
        """Whether the bucket can be read; learns the types of its fields, so that they stay what they are."""
        try:
            self._types = types = await self._reader.check(self._table)
        except InfluxError as error:
            problem = explained(error, self._table.bucket, "read")
        except StatementError as error:
            if self._reader.language == FLUX:
                # The bucket has no name in InfluxQL and needs none.
                self.problem = None
                return True
            problem = str(error)
        else:
            self._encoder.learn(types)
            self.problem = None
            return True
        if problem != self.problem:
            self._log.warn("{id}: {problem}", id=self.id, problem=problem)
        self.problem = problem
        return False

    # -- writing ---------------------------------------------------------------------------------

    def write(self, edge_id: str, data: DataNotification) -> None:
        if self._store.read_only:
            return
        rows = data.rows
        if self._period.begin is not None or self._period.end is not None:
            rows = {time: row for time, row in rows.items() if time in self._period}
        self._store.put(edge_id, data.kind, rows, data.kind)
        if len(self._plausibility.first_dropped) > len(self._told):
            self._tell()

    def _tell(self) -> None:
        for reason, (edge_id, channel) in self._plausibility.first_dropped.items():
            if reason not in self._told:
                self._told.add(reason)
                self._log.warn(
                    "{id}: value not stored ({reason}), first from {edge_id} {channel}; others are only counted",
                    id=self.id,
                    reason=reason,
                    edge_id=edge_id,
                    channel=channel,
                )

    async def _send(self, items: list[Item]) -> None:
        await self._store.deliver(self._table, "ms", self._encoder, items, self._learn)

    def _learn(self, conflict: Conflict) -> None:
        self._log.info(
            "{id}: field {field} is {required} in the database, values given as {given} are converted",
            id=self.id,
            field=conflict.field,
            required=conflict.required.value,
            given=conflict.given,
        )
        self._encoder.learn({conflict.field: conflict.required})

    # -- reading ---------------------------------------------------------------------------------

    async def query_historic_data(
        self, edge_id: str, from_date: datetime.datetime, to_date: datetime.datetime, channels: Sequence[str],
        resolution: Resolution,
    ) -> History:  # fmt: skip
        grid = periods(from_date, to_date, resolution)
        return History(grid.starts, await self._answer(reader.means, edge_id, grid, channels))

    async def query_historic_energy_per_period(
        self, edge_id: str, from_date: datetime.datetime, to_date: datetime.datetime, channels: Sequence[str],
        resolution: Resolution,
    ) -> History:  # fmt: skip
        grid = periods(from_date, to_date, resolution)
        return History(grid.starts, await self._answer(reader.rises, edge_id, grid, channels))

    async def query_historic_energy(
        self, edge_id: str, from_date: datetime.datetime, to_date: datetime.datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        found = await self._answer(reader.rises, edge_id, whole(from_date, to_date), channels)
        return {name: column[0] for name, column in found.items()}

    async def query_first_value_before(
        self, edge_id: str, date: datetime.datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        return await reader.newest_before(self._asker(edge_id), milliseconds(date), self._known(channels))

    async def _answer(
        self, question: Callable[..., Awaitable[Any]], edge_id: str, grid: Grid, channels: Sequence[str]
    ) -> Any:
        asked = question(self._asker(edge_id), self._field_types, grid, self._known(channels))
        return await self._store.answered(asked)

    def _known(self, channels: Sequence[str]) -> list[str]:
        """Others are in no database: nobody may have to quote them."""
        return [c for c in channels if len(c) <= MAX_LENGTH and is_unicode(c) and c.isprintable()]

    async def _field_types(self, channels: Sequence[str]) -> Mapping[str, FieldType]:
        self._types = await self._reader.types(self._table)
        return self._types

    def _asker(self, edge_id: str) -> reader.Ask:
        edge = self._store.owners.tag(edge_id)
        period = self._period

        async def ask(statements: Sequence[Statement]) -> list[Answer]:
            cut = [statement.within(period.begin, period.end) for statement in statements]
            wanted = [statement for statement in cut if statement is not None]
            found = iter(await self._reader.ask(self._table, edge, wanted) if wanted else [])
            return [{} if statement is None else next(found) for statement in cut]

        return ask

    # -- state -----------------------------------------------------------------------------------

    @property
    def dropped(self) -> dict[str, int]:
        """Values (points, where the server left them out) not stored, by reason."""
        return self._store.dropped(self._encoder.lost)

    def debug_log(self) -> str | None:
        return self._store.debug_log(self.dropped, self.problem)

    def debug_metrics(self) -> Mapping[str, int | float]:
        return self._store.debug_metrics(self.dropped)
