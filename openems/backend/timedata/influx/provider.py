"""The provider ``[[timedata.influxdb]]``: what edges send goes through the spool, questions go to the reader."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, ITimedata
from openems.backend.models import History
from openems.backend.timedata.influx import reader
from openems.backend.timedata.influx.client import Client, InfluxError
from openems.backend.timedata.influx.database import FLUX, INFLUX_QL, Reader, deliver, explained
from openems.backend.timedata.influx.export import InfluxExport
from openems.backend.timedata.influx.lineprotocol import Conflict, Encoder, FieldType, tag_value
from openems.backend.timedata.influx.monitor import line, metrics, total
from openems.backend.timedata.influx.period import Period
from openems.backend.timedata.influx.repeated import Repeated
from openems.backend.timedata.influx.statements import Answer, Statement, StatementError, Table
from openems.backend.timedata.plausibility import ChannelFilter, Plausibility, is_unicode
from openems.backend.timedata.spool import Item, Spool
from openems.common.channel import MAX_LENGTH
from openems.common.data import DataNotification, Value
from openems.common.errors import COMMON_SERVICE_NOT_AVAILABLE, OpenemsError, generic
from openems.common.resolution import Grid, Resolution, milliseconds, periods


class Owners:
    """Which edge has which number. Two with one number would be one series in the database (timedata.md 14, 23)."""

    MAX = 500_000

    def __init__(self) -> None:
        #: Tag's value -> edge, and back.
        self._edges: dict[str, str] = {}
        self._tags: dict[str, str] = {}

    def tag(self, edge_id: str, claim: bool = False) -> str:
        """The tag's value for an edge. Code 1 for an id without number and for the second edge with a number: the
        first is the one that sent data first (``claim``)."""
        known = self._tags.get(edge_id)
        if known is not None:
            return known
        tag = tag_value(edge_id)
        owner = self._edges.get(tag)
        if owner is None:
            if claim and len(self._edges) < self.MAX:
                self._edges[tag] = edge_id
                self._tags[edge_id] = tag
        elif owner != edge_id:
            raise generic(f"Edge [{edge_id}] has the same number as edge [{owner}]: their history cannot be told apart")
        return tag


@implementer(ITimedata, IDebugLoggable)
class InfluxTimedata:
    """``directory`` is for what waits while the server is away. ``api_key``: a token, or ``user:password`` of
    InfluxDB 1. ``bucket``: of InfluxDB 1 ``database/retentionPolicy``. ``now`` gives epoch ms.

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
        org: str = "-",
        api_key: str = "",
        measurement: str = "data",
        tag: str = "edge",
        query_language: str = INFLUX_QL,
        read_only: bool = False,
        pool_size: int = 10,
        period: Period | None = None,
        channels: ChannelFilter | None = None,
        max_channels: int = 10_000,
        memory_values: int = 1_000_000,
        disk_bytes: int = 1 << 30,
        batch_values: int = 5_000,
        stop_patience: float = 5.0,
        agent: Any = None,
    ) -> None:
        self.id = id
        self._reactor = reactor
        self._now = now
        self._read_only = read_only
        self._period = period or Period()
        self._stop_patience = stop_patience
        database, _, policy = bucket.partition("/")
        self._table = Table(database, policy, measurement, tag)
        self._client = Client(url, org, api_key, reactor=reactor, slots=pool_size, agent=agent)
        self._reader = Reader(id, self._client, query_language, seconds=reactor.seconds)
        self.export = InfluxExport(self._client, self._table)
        self._encoder = Encoder(measurement, tag)
        self._plausibility = Plausibility(channels=channels or ChannelFilter(), max_channels=max_channels)
        self._owners = Owners()
        self._spool = spool = Spool(
            id,
            directory,
            self._send,
            reactor=reactor,
            now=now,
            memory_values=memory_values,
            disk_bytes=disk_bytes,
            batch_values=batch_values,
            parallel=max(1, min(pool_size, 4)),
        )
        self.writes = spool.writes
        self._check: Any = None
        self._told: set[str] = set()
        self._left_out: dict[str, int] = {}
        self._types: Mapping[str, FieldType] = {}
        self.problem: str | None = None

    async def start(self) -> None:
        """Does not wait for the server: trouble with it is logged, and found out about again and again."""
        if not self._read_only:
            await self._spool.start()
        self._log.info(
            "{id}: history in {url} bucket {bucket} measurement {measurement}{mode}",
            id=self.id,
            url=self._client.url,
            bucket=self._table.bucket,
            measurement=self._table.measurement,
            mode=" (read only)" if self._read_only else "",
        )
        self._check = Repeated(self._reactor, self.check)

    async def stop(self) -> None:
        """Writes what waits for a limited time; the rest goes to disk."""
        if self._check is not None:
            self._check.stop()
        await self._spool.stop(self._stop_patience)
        await self._client.close()

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
        if self._read_only:
            return
        rows = data.rows
        if self._period.begin is not None or self._period.end is not None:
            rows = {time: row for time, row in rows.items() if time in self._period}
        try:
            self._owners.tag(edge_id, claim=True)
        except OpenemsError as error:
            self._leave_out("edge", sum(map(len, rows.values())), error.message)
            return
        rows = self._plausibility.rows(edge_id, data.kind, rows, self._now())
        if len(self._plausibility.first_dropped) > len(self._told):
            self._tell()
        if rows:
            self._spool.put((edge_id, data.kind, rows))

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

    def _leave_out(self, reason: str, count: int, text: str) -> None:
        if reason not in self._left_out:
            self._log.warn("{id}: not stored ({reason}): {text}", id=self.id, reason=reason, text=text)
        self._left_out[reason] = self._left_out.get(reason, 0) + count

    async def _send(self, items: list[Item]) -> None:
        await deliver(
            self._client, self._table, "ms", lambda: self._encoder.encode(items), self._learn, self._leave_out
        )

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
        start, end = milliseconds(from_date), milliseconds(to_date)
        grid = Grid([start] if start < end else [], end)
        found = await self._answer(reader.rises, edge_id, grid, channels)
        return {name: column[0] for name, column in found.items()}

    async def query_first_value_before(
        self, edge_id: str, date: datetime.datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        return await reader.newest_before(self._asker(edge_id), milliseconds(date), self._known(channels))

    async def _answer(
        self, question: Callable[..., Awaitable[Any]], edge_id: str, grid: Grid, channels: Sequence[str]
    ) -> Any:
        try:
            return await question(self._asker(edge_id), self._field_types, grid, self._known(channels))
        except StatementError as error:
            self._log.warn("{id}: query failed: {error}", id=self.id, error=str(error))
            raise OpenemsError(COMMON_SERVICE_NOT_AVAILABLE) from None

    def _known(self, channels: Sequence[str]) -> list[str]:
        """Others are in no database: nobody may have to quote them."""
        return [c for c in channels if len(c) <= MAX_LENGTH and is_unicode(c) and c.isprintable()]

    async def _field_types(self, channels: Sequence[str]) -> Mapping[str, FieldType]:
        self._types = await self._reader.types(self._table)
        return self._types

    def _asker(self, edge_id: str) -> reader.Ask:
        edge = self._owners.tag(edge_id)
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
        return total(self._plausibility.dropped, self._left_out, self._encoder.lost, self._spool.dropped)

    def debug_log(self) -> str | None:
        return line(self.id, self._spool, self._client, self.dropped, self.problem)

    def debug_metrics(self) -> Mapping[str, int | float]:
        return metrics(self.id, self._spool, self._client, self._reader, self.dropped)
