"""Reading everything out of the embedded history, with a connection of its own, in a thread."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.threads import deferToThread
from zope.interface import implementer

from openems.backend.timedata.export import Finding, ITimedataExport, samples_of
from openems.backend.timedata.sqlite import schema
from openems.common.data import Row

T = TypeVar("T")

_SERIES = "(SELECT id FROM series WHERE edge = ?)"


@implementer(ITimedataExport)
class SqliteExport:
    """Raises sqlite3.Error, also where there is no such file."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        def ask() -> T:
            connection = schema.open_for_reading(self._path)
            try:
                connection.execute("BEGIN")
                return question(connection)
            finally:
                connection.close()

        return await deferToThread(ask)

    async def export_edges(self) -> list[str]:
        return await self._read(
            lambda c: [edge for (edge,) in c.execute("SELECT DISTINCT edge FROM series ORDER BY edge")]
        )

    async def export_span(self, edge_id: str) -> tuple[int, int] | None:
        def ask(connection: sqlite3.Connection) -> tuple[int, int] | None:
            ends: list[int] = []
            for (series,) in connection.execute("SELECT id FROM series WHERE edge = ?", (edge_id,)).fetchall():
                for table, late in (("number", 0), ("text", 0), ("rollup", schema.BUCKET - 1)):
                    first, last = connection.execute(
                        f"SELECT (SELECT time FROM {table} WHERE series = :s ORDER BY time LIMIT 1),"  # noqa: S608
                        f" (SELECT time FROM {table} WHERE series = :s ORDER BY time DESC LIMIT 1)",
                        {"s": series},
                    ).fetchone()
                    if first is not None:
                        ends += [first, last + late]
            return (min(ends), max(ends)) if ends else None

        return await self._read(ask)

    async def exact_from(self) -> int:
        return await self._read(_raw_from)

    async def export_count(self, edge_id: str, start: int, end: int) -> int:
        def ask(connection: sqlite3.Connection) -> int:
            raw_from = _raw_from(connection)
            total = 0
            for table, begin, until, weight in (
                ("number", max(start, raw_from), end, 1),
                ("text", start, end, 1),
                ("rollup", start, min(end, raw_from), 3),
            ):
                (count,) = connection.execute(
                    f"SELECT count(*) FROM {table} WHERE series IN {_SERIES} AND time >= ? AND time < ?",  # noqa: S608
                    (edge_id, begin, until),
                ).fetchone()
                total += weight * count
            return total

        return await self._read(ask)

    async def export(self, edge_id: str, start: int, end: int) -> dict[int, Row]:
        return await self._read(lambda connection: _export(connection, edge_id, start, end))

    async def check(self) -> list[Finding]:
        """What to know about the file."""
        if not os.path.exists(self._path):
            return [Finding("error", f"there is no file {self._path}", "it is made when the backend starts")]
        try:
            return await self._read(lambda connection: list(_check(connection, self._path)))
        except sqlite3.Error as error:
            return [Finding("error", f"{self._path}: {error}", "a corrupt file is moved aside at the next start")]


def _raw_from(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM meta WHERE name = 'raw_from'").fetchone()
    return int(row[0]) if row is not None else 0


def _export(connection: sqlite3.Connection, edge_id: str, start: int, end: int) -> dict[int, Row]:
    raw_from = _raw_from(connection)
    rows: dict[int, Row] = {}
    channels = connection.execute("SELECT id, channel FROM series WHERE edge = ?", (edge_id,)).fetchall()
    for series, channel in channels:
        for time, value in connection.execute(
            "SELECT time, value FROM number WHERE series = ? AND time >= ? AND time < ?",
            (series, max(start, raw_from), end),
        ):
            rows.setdefault(time, {})[channel] = value
        if start < raw_from:
            for time, count, mean, first, last, rise, *ends in connection.execute(
                "SELECT time, count, avg, first, last, rise, first_at, last_at FROM rollup"
                " WHERE series = ? AND time >= ? AND time < ?",
                (series, start - schema.BUCKET, min(end, raw_from)),
            ):
                for at, sample in samples_of(time, count, mean, first, last, rise, (ends[0], ends[1])).items():
                    if start <= at < end:
                        rows.setdefault(at, {})[channel] = sample
        for time, text in connection.execute(
            "SELECT time, value FROM text WHERE series = ? AND time >= ? AND time < ?", (series, start, end)
        ):
            rows.setdefault(time, {}).setdefault(channel, text)
    return dict(sorted(rows.items()))


def _check(connection: sqlite3.Connection, path: str) -> list[Finding]:
    found: list[Finding] = []
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > schema.VERSION:
        return [Finding("error", f"{path} has version {version}, this program knows {schema.VERSION}", "update it")]
    (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if state == "ok":
        found.append(Finding("ok", f"{path}: version {version}, {os.path.getsize(path):,} bytes, consistent"))
    else:
        found.append(Finding("error", f"{path} is damaged: {state}", "stop the backend; copy what can be read"))
    if not os.access(path, os.W_OK) or not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
        found.append(Finding("error", f"{path} or its folder cannot be written", "give it to the backend's user"))
    edges, series, mixed = connection.execute(
        "SELECT count(DISTINCT edge), count(*), total(text AND EXISTS (SELECT 1 FROM number WHERE series = series.id))"
        " FROM series"
    ).fetchone()
    found.append(Finding("ok", f"{edges} edges, {series} channels"))
    if mixed:
        found.append(Finding("warning", f"{mixed:.0f} channels have numbers and texts", MIXED))
    return found


MIXED = "both are kept here; InfluxDB would refuse one of them"
__all__: list[Any] = ["MIXED", "SqliteExport"]
