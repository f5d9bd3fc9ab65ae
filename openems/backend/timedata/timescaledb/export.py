"""Reading everything out of the tables."""

# ruff: noqa: S608 - what is put into these texts are numbers and times of our own
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from openems.backend.timedata.export import ITimedataExport, samples_of
from openems.backend.timedata.timescaledb.maintenance import READ_RAW_FROM
from openems.backend.timedata.timescaledb.queries import array, stamp
from openems.common.data import Row, Value
from openems.postgres.pool import Pool

TIMEOUT = 600.0
_MS = "round(date_part('epoch', {0}) * 1000)::bigint"


def _wanted(channels: dict[int, str], end: int) -> Callable[[int], str]:
    """A condition: samples of these channels from a start to ``end``."""
    series = array(list(channels))
    return lambda start: f"series_id = ANY({series}) AND time < {stamp(end)} AND time >= {stamp(start)}"


@implementer(ITimedataExport)
class TimescaledbExport:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def _ask(self, sql: str, params: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return await self._pool.query(sql, params, timeout=TIMEOUT, repeatable=True)

    async def export_edges(self) -> list[str]:
        rows = await self._ask("SELECT name FROM ts_edge e WHERE EXISTS (SELECT 1 FROM ts_series WHERE edge_id = e.id)")
        return sorted(name for (name,) in rows)

    async def _channels(self, edge_id: str) -> dict[int, str]:
        rows = await self._ask(
            "SELECT s.id, c.address FROM ts_series s JOIN ts_channel c ON c.id = s.channel_id"
            " JOIN ts_edge e ON e.id = s.edge_id WHERE e.name = %s",
            (edge_id,),
        )
        return dict(rows)  # type: ignore[arg-type]

    async def export_span(self, edge_id: str) -> tuple[int, int] | None:
        channels = await self._channels(edge_id)
        if not channels:
            return None
        ends = []
        for order, bound in (("", "min"), ("DESC", "max")):
            parts = " UNION ALL ".join(
                f"(SELECT {_MS.format('time')} AS t FROM {table} WHERE series_id = s ORDER BY time {order} LIMIT 1)"
                for table in ("ts_num", "ts_txt", "ts_num_5m")
            )
            [(end,)] = await self._ask(
                f"SELECT {bound}(t) FROM unnest({array(list(channels))}) AS s CROSS JOIN LATERAL ({parts}) AS x"
            )
            ends.append(end)
        # A bucket's last sample is up to five minutes after its start.
        return None if ends[0] is None else (ends[0], ends[1] + 299_999)

    async def exact_from(self) -> int:
        [(raw_from,)] = await self._ask(READ_RAW_FROM)
        return int(raw_from)

    async def export_count(self, edge_id: str, start: int, end: int) -> int:
        wanted = _wanted(await self._channels(edge_id), end)
        raw_from = await self.exact_from()
        [(numbers, texts, old)] = await self._ask(
            f"SELECT (SELECT count(*) FROM ts_num WHERE {wanted(max(start, raw_from))}),"
            f" (SELECT count(*) FROM ts_txt WHERE {wanted(start)}),"
            f" (SELECT count(*) FROM ts_num_5m WHERE {wanted(start)} AND time < {stamp(raw_from)})"
        )
        return int(numbers + texts + 3 * old)

    async def export(self, edge_id: str, start: int, end: int) -> dict[int, Row]:
        channels = await self._channels(edge_id)
        if not channels:
            return {}
        wanted = _wanted(channels, end)
        cells: list[tuple[int, str, Value]] = []
        raw_from = await self.exact_from()
        if start < raw_from:
            # A bucket that begins before the span may have samples in it.
            for number, time, count, mean, first, last, rise, *ends in await self._ask(
                f"SELECT series_id, {_MS.format('time')}, cnt, avg, first, last, rise, first_at, last_at FROM ts_num_5m"
                f" WHERE {wanted(start - 300_000)} AND time < {stamp(raw_from)}"
            ):
                made = samples_of(time, count, mean, first, last, rise, (ends[0], ends[1]))
                cells += [(at, channels[number], value) for at, value in made.items() if start <= at < end]
        if end > raw_from:
            for number, time, value in await self._ask(
                f"SELECT series_id, {_MS.format('time')}, value FROM ts_num WHERE {wanted(max(start, raw_from))}"
            ):
                cells.append((time, channels[number], int(value) if value.is_integer() else value))
        for number, time, text in await self._ask(
            f"SELECT series_id, {_MS.format('time')}, value FROM ts_txt WHERE {wanted(start)}"
        ):
            cells.append((time, channels[number], text))
        rows: dict[int, Row] = {}
        for time, channel, cell in cells:
            rows.setdefault(time, {}).setdefault(channel, cell)
        return dict(sorted(rows.items()))
