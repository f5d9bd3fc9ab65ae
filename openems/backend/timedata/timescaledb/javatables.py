"""The tables of OpenEMS' own TimescaleDB module, to be copied from (timedata-timescaledb.md 4, 29).

``edge``, ``component``, ``channel``, ``edge_channel`` and six tables of samples. An edge's channel may be there
several times, under different numbers and types; here it is one.
"""

# ruff: noqa: S608 - what is put into these texts are numbers, times and names of our own
from __future__ import annotations

from typing import Any

from zope.interface import implementer

from openems.backend.timedata.export import ITimedataExport
from openems.backend.timedata.timescaledb.queries import array, stamp
from openems.common.data import Row, Value
from openems.postgres.pool import Pool

TIMEOUT = 600.0
TABLES = [f"data_{kind}_{priority}_raw" for kind in ("integer", "float", "string") for priority in ("low", "high")]


@implementer(ITimedataExport)
class JavaTables:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def _ask(self, sql: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return await self._pool.query(sql, params, timeout=TIMEOUT, repeatable=True)

    async def exist(self) -> bool:
        rows = await self._ask(
            "SELECT to_regclass('edge_channel') IS NOT NULL AND to_regclass('component') IS NOT NULL"
        )
        return bool(rows[0][0])

    async def _tables(self) -> list[str]:
        rows = await self._ask("SELECT t FROM unnest(%s::text[]) AS t WHERE to_regclass(t) IS NOT NULL", (TABLES,))
        return [table for (table,) in rows]

    async def _channels(self, edge_id: str) -> dict[int, str]:
        rows = await self._ask(
            "SELECT ec.id, p.name || '/' || c.name FROM edge_channel ec JOIN edge e ON e.id = ec.edge_id"
            " JOIN channel c ON c.id = ec.channel_id JOIN component p ON p.id = c.component_id WHERE e.name = %s",
            (edge_id,),
        )
        return dict(rows)  # type: ignore[arg-type]

    async def export_edges(self) -> list[str]:
        rows = await self._ask("SELECT name FROM edge e WHERE EXISTS (SELECT 1 FROM edge_channel WHERE edge_id = e.id)")
        return sorted(name for (name,) in rows)

    async def exact_from(self) -> int:
        return 0

    async def _over(self, edge_id: str, select: str, where: str) -> tuple[dict[int, str], list[tuple[Any, ...]]]:
        channels = await self._channels(edge_id)
        tables = await self._tables()
        if not channels or not tables:
            return channels, []
        wanted = f"edge_channel_id = ANY({array(list(channels))})"
        rows: list[tuple[Any, ...]] = []
        for table in tables:
            rows += await self._ask(f"SELECT {select} FROM {table} WHERE {wanted}{where}")
        return channels, rows

    async def export_span(self, edge_id: str) -> tuple[int, int] | None:
        ms = "round(date_part('epoch', {}(time)) * 1000)::bigint"
        _, rows = await self._over(edge_id, f"{ms.format('min')}, {ms.format('max')}", "")
        known = [row for row in rows if row[0] is not None]
        return (min(row[0] for row in known), max(row[1] for row in known)) if known else None

    async def export_count(self, edge_id: str, start: int, end: int) -> int:
        where = f" AND time >= {stamp(start)} AND time < {stamp(end)}"
        _, rows = await self._over(edge_id, "count(*)", where)
        return sum(count for (count,) in rows)

    async def export(self, edge_id: str, start: int, end: int) -> dict[int, Row]:
        channels, samples = await self._over(
            edge_id,
            "edge_channel_id, round(date_part('epoch', time) * 1000)::bigint, value",
            f" AND time >= {stamp(start)} AND time < {stamp(end)}",
        )
        rows: dict[int, Row] = {}
        for number, time, value in samples:
            cell: Value = int(value) if isinstance(value, float) and value.is_integer() else value
            rows.setdefault(time, {})[channels[number]] = cell
        return dict(sorted(rows.items()))
