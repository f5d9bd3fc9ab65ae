"""InfluxDB: writing beside a loop that sends pre-made batches, questions beside their bare queries; in turns, one run.

The other side of each comparison uses the provider's own HTTP client, gzip included, over the same kept connections:
its batches are line protocol already, its queries are texts already, and of answers it reads the bytes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, DeferredList, DeferredSemaphore
from twisted.internet.task import deferLater

from openems.application.running import in_reactor
from openems.backend.timedata.influx import flux, influxql
from openems.backend.timedata.influx.database import FLUX, INFLUX_QL
from openems.backend.timedata.influx.lineprotocol import Encoder
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.backend.timedata.influx.statements import Answer, Statement
from openems.backend.timedata.spool import Item
from openems.common.data import DataKind, DataNotification, Row
from openems.common.resolution import Resolution, Unit
from services import known

reactor: Any = _reactor
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
NOW = int(datetime(2026, 1, 2, tzinfo=UTC).timestamp() * 1000)
POWERS = [f"meter{n}/ActivePower" for n in range(10)]
COUNTERS = [f"meter{n}/ActiveProductionEnergy" for n in range(10)]
BATCH = 5_000
PARALLEL = 4
#: Values that may wait: a round's messages come faster than they are written.
MEMORY = 10_000_000
MINUTES = 5


def measure(*, messages: int, values: int, rounds: int) -> dict[str, Any]:
    """``messages`` notifications of ``values`` values in each round of writing."""

    async def run() -> dict[str, Any]:
        service = known()["influxdb2"]
        service.install()
        with tempfile.TemporaryDirectory(prefix="openems-bench-") as folder:
            running = service.start(Path(folder))
            try:
                bench = Bench(running.info, Path(folder))
                return {**await bench.writing(messages, values, rounds), **await bench.asking(rounds)}
            finally:
                running.stop()

    return in_reactor(lambda _: run())


class Bench:
    def __init__(self, info: dict[str, Any], folder: Path) -> None:
        self._options = {
            "url": info["url"], "org": info["org"], "bucket": info["bucket"], "api_key": info["token"]
        }  # fmt: skip
        self._folder = folder

    async def _provider(self, language: str = INFLUX_QL) -> InfluxTimedata:
        provider = InfluxTimedata(
            "timedata0",
            self._folder / f"spool-{language}",
            reactor=reactor,
            now=lambda: NOW,
            query_language=language,
            batch_values=BATCH,
            memory_values=MEMORY,
            **self._options,
        )
        await provider.start()
        return provider

    # -- writing ---------------------------------------------------------------------------------

    async def writing(self, messages: int, values: int, rounds: int) -> dict[str, Any]:
        provider = await self._provider()
        ours: list[float] = []
        bare: list[float] = []
        try:
            for turn in range(rounds + 1):
                items = list(_messages(messages, values, turn))
                for take, figures in ((self._through_provider, ours), (self._pre_made, bare))[:: 1 if turn % 2 else -1]:
                    seconds = await take(provider, items)
                    if turn:  # the first round warms up both
                        figures.append(messages * values / seconds)
                if provider.dropped or provider.debug_metrics()["timedata0/Retries"]:
                    raise RuntimeError(f"not everything was written at once: {provider.debug_log()}")
        finally:
            await provider.stop()
        return {
            "write_ratio": round(statistics.median(ours) / statistics.median(bare), 3),
            "written_values_per_cpu_second": round(statistics.median(ours)),
            "pre_made_values_per_cpu_second": round(statistics.median(bare)),
        }

    @staticmethod
    async def _through_provider(provider: InfluxTimedata, items: list[Item]) -> float:
        began = time.process_time()
        for number, (edge, kind, rows) in enumerate(items):
            provider.write(edge, DataNotification(kind, rows))
            if number % 200 == 199:
                await deferLater(reactor, 0)
        await provider.flush()
        return time.process_time() - began

    @staticmethod
    async def _pre_made(provider: InfluxTimedata, items: list[Item]) -> float:
        encoder = Encoder("premade", "edge")
        size = max(1, BATCH // sum(map(len, items[0][2].values())))
        batches = [encoder.encode(items[at : at + size]) for at in range(0, len(items), size)]
        client, bucket = provider._client, provider._table.bucket
        turns = DeferredSemaphore(PARALLEL)

        def send(lines: str) -> Deferred[None]:
            return Deferred.fromCoroutine(client.write(bucket, lines, "ms"))

        began = time.process_time()
        await DeferredList([turns.run(send, lines) for lines in batches], fireOnOneErrback=True)
        return time.process_time() - began

    # -- asking ----------------------------------------------------------------------------------

    async def asking(self, rounds: int) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for language in (INFLUX_QL, FLUX):
            provider = await self._provider(language)
            try:
                if language == INFLUX_QL:
                    await _fill(provider)
                name = language.lower().replace("_", "")
                figures |= await self._compare(f"day_{name}", provider, self._day, rounds * 10)
                figures |= await self._compare(f"year_{name}", provider, self._year, rounds)
            finally:
                await provider.stop()
        return figures

    async def _compare(
        self, name: str, provider: InfluxTimedata, ask: Callable[[InfluxTimedata, int], Awaitable[Any]], count: int
    ) -> dict[str, Any]:
        """``ask`` through the provider, and whatever it asked of the server as bare queries."""
        asked: list[list[Statement]] = []
        original = provider._reader.ask

        async def listen(table: Any, edge: str, statements: Any) -> list[Answer]:
            asked.append(list(statements))
            return await original(table, edge, statements)

        provider._reader.ask = listen  # type: ignore[method-assign]
        await ask(provider, 0)
        provider._reader.ask = original  # type: ignore[method-assign]
        ours, bare, longest = [], [], 0
        for turn in range(1, count + 1):
            asked.clear()
            provider._reader.ask = listen  # type: ignore[method-assign]
            began = time.perf_counter()
            await ask(provider, turn)
            ours.append(time.perf_counter() - began)
            provider._reader.ask = original  # type: ignore[method-assign]
            texts = [self._text(provider, statements) for statements in asked]
            longest = max(longest, len(texts))
            began = time.perf_counter()
            for text in texts:
                if provider._reader.language == FLUX:
                    await provider._client.flux(text)
                else:
                    await provider._client.influxql(provider._table.database, "", text)
            bare.append(time.perf_counter() - began)
        return {
            f"{name}_ratio": round(statistics.median(ours) / statistics.median(bare), 3),
            f"{name}_provider_p50_ms": round(statistics.median(ours) * 1000, 2),
            f"{name}_bare_p50_ms": round(statistics.median(bare) * 1000, 2),
            f"{name}_exchanges": longest,
        }

    @staticmethod
    def _text(provider: InfluxTimedata, statements: list[Statement]) -> str:
        table = provider._table
        if provider._reader.language == FLUX:
            return flux.script(table, "1", statements)
        return ";".join(text for statement in statements for text in influxql.texts(table, "1", statement))

    @staticmethod
    async def _day(provider: InfluxTimedata, turn: int) -> None:
        begin = BEGIN + timedelta(days=turn * 7 % 360)
        history = await provider.query_historic_data(
            "edge1", begin, begin + timedelta(days=1), POWERS, Resolution(5, Unit.MINUTES)
        )
        if len(history.data) != len(POWERS) or None in history.data[POWERS[0]]:
            raise RuntimeError("not everything was answered")

    @staticmethod
    async def _year(provider: InfluxTimedata, turn: int) -> None:
        history = await provider.query_historic_energy_per_period(
            "edge1", BEGIN, BEGIN + timedelta(days=365), COUNTERS, Resolution(1, Unit.DAYS)
        )
        if len(history.data) != len(COUNTERS) or history.data[COUNTERS[0]][1] != 24 * 60 // MINUTES:
            raise RuntimeError("not everything was answered")


def _messages(count: int, values: int, turn: int) -> Iterable[Item]:
    begin = int(BEGIN.timestamp() * 1000) + turn * 86_400_000
    names = [f"meter{n}/ActivePower" if n % 4 else f"ess{n}/Voltage" for n in range(values)]
    for number in range(count):
        row: Row = {
            name: (number * 7 + n) % 5000 if n % 4 else round(230 + (number + n) % 100 / 10, 1)
            for n, name in enumerate(names)
        }
        yield f"edge{number % 100 + 100}", DataKind.TIMESTAMPED, {begin + number // 100 * 1000: row}


async def _fill(provider: InfluxTimedata) -> None:
    """A year of one edge: a row each five minutes with ten powers and ten counters."""
    encoder = Encoder("data", "edge")
    begin = int(BEGIN.timestamp() * 1000)
    for day in range(366):
        rows: dict[int, Row] = {}
        for index in range(24 * 60 // MINUTES):
            step = day * 24 * 60 // MINUTES + index
            row: Row = {name: (step * 13 + n) % 3000 for n, name in enumerate(POWERS)}
            row |= {name: step + n for n, name in enumerate(COUNTERS)}
            rows[begin + step * MINUTES * 60_000] = row
        await provider._client.write(
            provider._table.bucket, encoder.encode([("edge1", DataKind.TIMESTAMPED, rows)]), "ms"
        )
