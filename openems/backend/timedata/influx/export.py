"""Reading everything out of a measurement, in InfluxQL (timedata.md 6).

A database of this kind knows edges by their number only; a reader gets them under the names ``edge<number>``, and may
ask under any other name with that number. Texts are mostly not there (timedata.md 5.4).
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from openems.backend.timedata.export import ITimedataExport
from openems.backend.timedata.influx.client import Client
from openems.backend.timedata.influx.influxql import identifier, literal, results, source
from openems.backend.timedata.influx.lineprotocol import tag_value
from openems.backend.timedata.influx.statements import Table
from openems.common.data import BACKEND, Row

TIMEOUT = 300.0


@implementer(ITimedataExport)
class InfluxExport:
    """Raises :class:`~.client.InfluxError`, :class:`~.statements.StatementError`."""

    def __init__(self, client: Client, table: Table) -> None:
        self._client = client
        self._table = table

    async def _ask(self, query: str) -> tuple[list[str], list[list[Any]]]:
        body = await self._client.influxql(self._table.database, self._table.policy, query, TIMEOUT)
        [series] = results(body, 1)
        return ([], []) if series is None else (list(series.columns), list(series.values))

    def _of(self, edge_id: str) -> str:
        return f"FROM {source(self._table)} WHERE {identifier(self._table.tag)} = {literal(tag_value(edge_id))}"

    async def export_edges(self) -> list[str]:
        tag = identifier(self._table.tag)
        _, rows = await self._ask(f"SHOW TAG VALUES FROM {source(self._table)} WITH KEY = {tag}")
        return sorted(value if value == BACKEND else f"edge{value}" for _, value in rows)

    async def export_span(self, edge_id: str) -> tuple[int, int] | None:
        ends: list[int] = []
        for order in ("", " DESC"):
            _, rows = await self._ask(f"SELECT * {self._of(edge_id)} ORDER BY time{order} LIMIT 1")
            ends += [row[0] for row in rows]
        return (ends[0], ends[1]) if len(ends) == 2 else None

    async def exact_from(self) -> int:
        return 0

    async def export_count(self, edge_id: str, start: int, end: int) -> int:
        _, rows = await self._ask(f"SELECT COUNT(*) {self._of(edge_id)} AND time >= {start}ms AND time < {end}ms")
        return sum(count or 0 for row in rows for count in row[1:])

    async def export(self, edge_id: str, start: int, end: int) -> dict[int, Row]:
        columns, rows = await self._ask(f"SELECT * {self._of(edge_id)} AND time >= {start}ms AND time < {end}ms")
        found: dict[int, Row] = {}
        for time, *values in rows:
            row = found.setdefault(time, {})
            for channel, value in zip(columns[1:], values, strict=True):
                if value is not None and channel != self._table.tag:
                    row[channel] = value
        return dict(sorted(found.items()))
