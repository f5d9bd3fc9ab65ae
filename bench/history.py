"""A day of five-minute values, ten channels: through the provider and as the bare SQL, on the same file.

The file has the roll-up of ``edges`` edges over ``days`` days; it is written straight into the tables, because a year
of samples would take hours.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import LoopingCall

from openems.application.running import in_reactor
from openems.backend.timedata.sqlite import schema
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.common.resolution import Resolution

reactor: Any = _reactor
CHANNELS = [f"_sum/Bench{n}" for n in range(10)]
BARE = "SELECT avg FROM rollup WHERE series = ? AND time >= ? AND time < ? ORDER BY time"
BARE_SERIES = "SELECT id FROM series WHERE edge = ? AND channel = ?"


def _fill(path: str, edges: int, days: int, end: int) -> None:
    connection = schema.open_for_writing(path)
    begin = end - days * 86_400_000

    def rows(series: int) -> Iterator[tuple[int, ...]]:
        for at in range(begin, end, schema.BUCKET):
            value = 1000 + int(900 * math.sin(at / 13_750_987 + series))
            yield series, at, 300, value, value - 5, value + 5, value, value, 0, 0, 299_000

    connection.execute("BEGIN")
    series = 0
    for edge in range(edges):
        for channel in CHANNELS:
            series += 1
            connection.execute(
                "INSERT INTO series (id, edge, channel) VALUES (?, ?, ?)", (series, f"edge{edge}", channel)
            )
            connection.executemany("INSERT INTO rollup VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows(series))
    for name, value in (("rolled_until", end), ("raw_from", end)):
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
    connection.execute("COMMIT")
    connection.close()


def measure(*, edges: int, days: int, rounds: int) -> dict[str, Any]:
    """Both sides ask the same days of the same edges in turns. ``ratio`` is of the medians of all questions."""

    async def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="openems-bench-") as folder:
            return await _measure(str(Path(folder) / "history.sqlite"), edges, days, rounds)

    return in_reactor(lambda _: run())


async def _measure(path: str, edges: int, days: int, rounds: int) -> dict[str, Any]:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    _fill(path, edges, days, int(today.timestamp() * 1000))
    provider = SqliteTimedata(
        "timedata0", path, reactor=reactor, now=lambda: time.time_ns() // 1_000_000, retention_days_rollup=36_500
    )
    await provider.start()
    try:
        return {**await _compare(provider, path, today, edges, days, rounds), "file_bytes": Path(path).stat().st_size}
    finally:
        await provider.stop()


async def _compare(
    provider: SqliteTimedata, path: str, today: datetime, edges: int, days: int, rounds: int
) -> dict[str, Any]:
    connection = schema.open_for_reading(path)
    resolution = Resolution.parse(300)

    def bare(edge_id: str, start: int, end: int) -> list[list[float]]:
        columns = []
        for channel in CHANNELS:
            (series,) = connection.execute(BARE_SERIES, (edge_id, channel)).fetchone()
            columns.append([mean for (mean,) in connection.execute(BARE, (series, start, end)).fetchall()])
        return columns

    longest = [0.0, time.perf_counter()]

    def beat() -> None:
        now = time.perf_counter()
        longest[0] = max(longest[0], now - longest[1] - 0.005)
        longest[1] = now

    ours: list[float] = []
    plain: list[float] = []
    heart = LoopingCall(beat)
    longest[1] = time.perf_counter()
    heart.start(0.005)
    for turn in range(rounds * edges):
        edge_id = f"edge{turn % edges}"
        first = today - timedelta(days=1 + turn * 7 % days)
        start = int(first.timestamp() * 1000)

        def ask_bare(edge_id: str = edge_id, start: int = start) -> list[list[float]]:
            return bare(edge_id, start, start + 86_400_000)

        # who asks first finds the pages cold: in turns
        if turn % 2:
            plain.append(_timed(ask_bare))
        began = time.perf_counter()
        history = await provider.query_historic_data(edge_id, first, first + timedelta(days=1), CHANNELS, resolution)
        ours.append(time.perf_counter() - began)
        if not turn % 2:
            plain.append(_timed(ask_bare))
        if turn == 0 and [list(history.data[channel]) for channel in CHANNELS] != ask_bare():
            raise RuntimeError("the provider and the bare SQL do not agree")
    heart.stop()
    connection.close()
    return {
        "ratio": round(statistics.median(ours) / statistics.median(plain), 3),
        "provider_p50_ms": round(statistics.median(ours) * 1000, 3),
        "bare_sql_p50_ms": round(statistics.median(plain) * 1000, 3),
        "longest_reactor_pause_ms": round(longest[0] * 1000, 1),
        "edges": edges,
        "days": days,
        "queries": len(ours),
    }


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
