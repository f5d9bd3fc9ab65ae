"""PostgreSQL: what writing and asking cost beside the same statements sent by hand, on a real server.

Writing: notifications through spool, writer and pool until all are committed; beside them, in turns, a loop that sends
the same statements, made before, over as many sessions of the bare driver. Each run has a database of its own.

Asking: a day of five-minute values and a year in days with energy, ten channels; beside the bare query over one session
of the bare driver.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from txpostgres.txpostgres import Connection

from openems.application.running import in_reactor
from openems.backend.timedata.spool import Item
from openems.backend.timedata.timescaledb.partitions import Partitions
from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
from openems.common.data import DataKind, DataNotification
from openems.common.resolution import Resolution, Unit
from services import known
from services.framework import Running

reactor: Any = _reactor
CHANNELS = [f"_sum/Bench{n}" for n in range(10)]
SESSIONS = 2
DAY = 86_400_000
BARE_DAY = (
    "SELECT series_id, time, avg FROM ts_num_5m WHERE series_id = ANY(%s) AND time >= %s AND time < %s"
    " ORDER BY series_id, time"
)
#: What the answer is made of, asked as directly as PostgreSQL allows: rises within rows and between them.
BARE_YEAR = (
    "SELECT s, x.* FROM unnest(%s::int[]) AS s CROSS JOIN LATERAL (SELECT i, (array_agg(first ORDER BY time))[1],"
    " (array_agg(last ORDER BY time DESC))[1], sum(rise),"
    " sum(CASE WHEN first >= before AND b = i THEN first - before END)"
    " FROM (SELECT i, time, first, last, rise, lag(last) OVER w AS before, lag(i) OVER w AS b FROM"
    " (SELECT date_trunc('day', time) AS i, time, first, last, rise FROM ts_num_5m WHERE series_id = s AND time >= %s"
    " AND time < %s) AS p WINDOW w AS (ORDER BY time)) AS l GROUP BY i) AS x"
)


def notifications(edges: int, values: int, messages: int, start: int) -> list[Item]:
    """``messages`` for each edge, one a second: whole numbers, one in ten with a fraction, like an edge's."""
    names = [f"component{n // 20}/Channel{n}" for n in range(values)]
    items: list[Item] = []
    for second in range(messages):
        for edge in range(edges):
            row: dict[str, Any] = {
                name: (n * 37 + second * 11 + edge) % 5000 + (0 if n % 10 else 0.25) for n, name in enumerate(names)
            }
            items.append((f"edge{edge}", DataKind.TIMESTAMPED, {start + second * 1000: row}))
    return items


class Bench:
    def __init__(self, server: Running, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._count = itertools.count()

    def database(self) -> str:
        name = f"bench{next(self._count)}"
        connection = psycopg2.connect(self._server.info["dsn"])
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        return name

    def provider(self, database: str) -> TimescaledbTimedata:
        return TimescaledbTimedata(
            "bench",
            self._folder / database,
            host="127.0.0.1",
            port=self._server.port,
            user="postgres",
            password="secret",
            database=database,
            write_pool_size=SESSIONS,
            reactor=reactor,
            now=lambda: time.time_ns() // 1_000_000,
        )

    async def session(self, database: str) -> Any:
        connection = Connection(reactor)
        await connection.connect(
            host="127.0.0.1", port=self._server.port, user="postgres", password="secret", dbname=database
        )
        return connection

    async def through_us(self, items: list[Item], keep: list[Any] | None = None) -> dict[str, float]:
        """``keep`` gets the statements that were sent."""
        provider = self.provider(self.database())
        await provider.start()
        try:
            return await self._through(provider, items, keep)
        finally:
            await provider.stop()

    async def _through(
        self, provider: TimescaledbTimedata, items: list[Item], keep: list[Any] | None
    ) -> dict[str, float]:
        execute = provider.write_pool.execute
        if keep is not None:

            async def recorded(sql: Any, params: Any = (), **options: Any) -> int:
                if isinstance(sql, bytes):
                    keep.append((sql, params))
                return await execute(sql, params, **options)

            provider.write_pool.execute = recorded  # type: ignore[method-assign]
        # Names and partitions first: the statements made by hand know them too.
        first = {item[0]: item for item in reversed(items)}
        for edge, kind, rows in first.values():
            provider.write(edge, DataNotification(kind, rows))
        await provider.flush()
        if keep is not None:
            keep.clear()
        began, cpu = time.perf_counter(), time.process_time()
        for number, (edge, kind, rows) in enumerate(items):
            provider.write(edge, DataNotification(kind, rows))
            if number % 50 == 49:
                await _moment()
            if number % 1000 == 999:
                # Not faster than it is written: what is measured is no waiting room.
                await provider.flush()
        await provider.flush()
        figures = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        metrics = provider.debug_metrics()
        rows_written = sum(len(row) for item in items for row in item[2].values())
        extra = sum(len(row) for item in first.values() for row in item[2].values())
        if metrics["bench/Rows"] != rows_written + extra:
            raise RuntimeError(f"values were lost: {metrics}")
        return figures

    async def by_hand(self, items: list[Item], statements: list[Any]) -> dict[str, float]:
        database = self.database()
        provider = self.provider(database)
        await provider.start()
        for edge, kind, rows in {item[0]: item for item in reversed(items)}.values():
            provider.write(edge, DataNotification(kind, rows))
        await provider.flush()
        await provider.stop()
        sessions = [await self.session(database) for _ in range(SESSIONS)]
        waiting = iter(statements)

        async def send(session: Any) -> None:
            for sql, params in waiting:
                await session.cursor().execute(sql, params or None)

        began, cpu = time.perf_counter(), time.process_time()
        await gatherResults([Deferred.fromCoroutine(send(session)) for session in sessions])
        figures = {"wall": time.perf_counter() - began, "cpu": time.process_time() - cpu}
        for session in sessions:
            session.close()
        return figures


def _moment() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    reactor.callLater(0, done.callback, None)
    return done


async def _write(bench: Bench, *, edges: int, values: int, messages: int, rounds: int) -> dict[str, Any]:
    start = (time.time_ns() // 1_000_000 - 3_600_000) // 300_000 * 300_000
    items = notifications(edges, values, messages, start)
    total = edges * values * messages
    ours: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    for number in range(rounds):
        statements: list[Any] = []
        ours.append(await bench.through_us(items, statements if number == 0 else None))
        if number == 0:
            kept = statements
        bare.append(await bench.by_hand(items, kept))
    figures = {
        f"{who}_{what}": statistics.median(run[what] for run in runs)
        for who, runs in (("ours", ours), ("bare", bare))
        for what in ("wall", "cpu")
    }
    return {
        "ratio_per_cpu_second": round(figures["bare_cpu"] / figures["ours_cpu"], 3),
        "ratio_per_second": round(figures["bare_wall"] / figures["ours_wall"], 3),
        "rows": total,
        "rows_per_cpu_second": round(total / figures["ours_cpu"]),
        "rows_per_second": round(total / figures["ours_wall"]),
        "bare_rows_per_cpu_second": round(total / figures["bare_cpu"]),
        "bare_rows_per_second": round(total / figures["bare_wall"]),
        "statements": len(kept),
        "edges": edges,
        "values_per_message": values,
    }


async def _ask(bench: Bench, *, days: int, rounds: int) -> dict[str, Any]:
    database = bench.database()
    provider = bench.provider(database)
    await provider.start()
    try:
        return await _compare(bench, provider, database, days, rounds)
    finally:
        await provider.stop()


async def _compare(
    bench: Bench, provider: TimescaledbTimedata, database: str, days: int, rounds: int
) -> dict[str, Any]:
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    end = int(today.timestamp() * 1000)
    row: dict[str, Any] = {name: 1 for name in CHANNELS}
    provider.write("edge0", DataNotification(DataKind.TIMESTAMPED, {end - DAY: row}))
    await provider.flush()
    session = await bench.session(database)
    series = await _fill(session, provider, days, end)
    figures: dict[str, Any] = {}
    year = [today - timedelta(days=days), today]
    for name, limit in (("day", rounds * 5), ("year", rounds)):
        ours, bare = [], []
        for turn in range(limit):
            day = today - timedelta(days=1 + turn * 7 % days)
            span = (day, day + timedelta(days=1)) if name == "day" else (year[0], year[1])

            async def ask_us(span: Any = span, name: str = name) -> None:
                if name == "day":
                    await provider.query_historic_data("edge0", *span, CHANNELS, Resolution(5, Unit.MINUTES))
                else:
                    await provider.query_historic_energy_per_period("edge0", *span, CHANNELS, Resolution(1, Unit.DAYS))

            async def ask_bare(span: Any = span, name: str = name) -> None:
                cursor = await session.cursor().execute(BARE_DAY if name == "day" else BARE_YEAR, (series, *span))
                cursor.fetchall()

            for ask, times in ((ask_us, ours), (ask_bare, bare))[:: 1 if turn % 2 else -1]:
                began = time.perf_counter()
                await ask()
                times.append(time.perf_counter() - began)
        figures[f"{name}_ratio"] = round(statistics.median(ours) / statistics.median(bare), 3)
        figures[f"{name}_p50_ms"] = round(statistics.median(ours) * 1000, 2)
        figures[f"{name}_bare_p50_ms"] = round(statistics.median(bare) * 1000, 2)
    session.close()
    return {**figures, "days": days}


async def _fill(session: Any, provider: TimescaledbTimedata, days: int, end: int) -> list[int]:
    """Five-minute values straight into their table: a year of samples would take hours."""
    await Partitions(provider.write_pool).make({end // DAY - n for n in range(days + 1)})
    rows = await session.runQuery(
        "SELECT s.id FROM ts_series s JOIN ts_channel c ON c.id = s.channel_id WHERE c.address = ANY(%s) ORDER BY id",
        (CHANNELS,),
    )
    series = [number for (number,) in rows]
    await session.runOperation("DELETE FROM ts_dirty")
    await session.runOperation(
        "INSERT INTO ts_num_5m SELECT s, t, 300, v, v - 5, v + 5, v, v + 4, 4, 0, 299000 FROM unnest(%s::int[]) AS s,"
        " LATERAL (SELECT t, 1000 + floor(date_part('epoch', t) / 60) AS v FROM"
        " generate_series(to_timestamp(%s), to_timestamp(%s), interval '5 min') AS t) AS x"
        " ON CONFLICT DO NOTHING",
        (series, end / 1000 - days * 86_400, end / 1000 - 300),
    )
    await session.runOperation("ANALYZE ts_num_5m")
    return series


def measure(part: str, **options: Any) -> dict[str, Any]:
    """``part``: write or ask."""

    async def run() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="openems-bench-") as folder:
            Path(folder).chmod(0o755)
            (Path(folder) / "server").mkdir()
            server = known()["postgresql"].start(Path(folder) / "server")
            try:
                bench = Bench(server, Path(folder))
                work = _write if part == "write" else _ask
                return await work(bench, **options)
            finally:
                server.stop()

    return in_reactor(lambda _: run())
