"""Random histories, random questions: PostgreSQL and the embedded history answer alike, whatever is rolled up."""

from __future__ import annotations

import datetime
import random
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
from openems.common.data import DataKind, DataNotification, Row
from openems.common.resolution import Resolution, Unit
from tests.backend.timedata.conformance import HOUR, MINUTE, NOW, at
from tests.postgres.databases import database
from tests.real import real

ZONES = [ZoneInfo(name) for name in ("Europe/Berlin", "Asia/Kolkata", "UTC", "America/St_Johns")]
RESOLUTIONS = [
    Resolution(value, unit)
    for value, unit in (
        (1, Unit.MINUTES),
        (5, Unit.MINUTES),
        (7, Unit.MINUTES),
        (15, Unit.MINUTES),
        (1, Unit.HOURS),
        (1, Unit.DAYS),
        (30, Unit.SECONDS),
    )
]
NAMES = ["m0/Counter", "m0/Power", "m0/Rare", "m0/Mixed"]
BASE = at("2026-10-24T12:00")


class SameAnswersTests(TestCase):
    timeout = 180  # type: ignore[assignment]
    SERVICE = "postgresql"

    async def both(self) -> tuple[SqliteTimedata, TimescaledbTimedata]:
        lite = SqliteTimedata("lite", self.mktemp(), reactor=reactor, now=lambda: NOW, retention_days_raw=3_000)
        self.addCleanup(lambda: Deferred.fromCoroutine(lite.stop()))
        await lite.start()
        server = real(self.SERVICE)
        big = TimescaledbTimedata(
            "big",
            Path(self.mktemp()),
            host="127.0.0.1",
            port=server.port,
            user="postgres",
            password="secret",
            database=database(self, server, "same"),
            batch_delay=0.0,
            reactor=reactor,
            now=lambda: NOW,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(big.stop()))
        await big.start()
        return lite, big

    def samples(self, chance: random.Random) -> dict[int, Row]:
        """A day and a half: a counter with restarts, a power, a rare value, numbers and texts in turns; two outages."""
        rows: dict[int, Row] = {}
        counter = 1000
        time = BASE
        for _ in range(chance.randint(200, 700)):
            gap = chance.random()
            if gap < 0.01:
                time += chance.randint(1, 8) * HOUR
            elif gap < 0.3:
                time += chance.choice((299_000, 300_000, 301_000, 305_000, 310_000, 310_001))
            else:
                time += chance.randint(100, 2 * MINUTE)
            counter = 0 if chance.random() < 0.02 else counter + chance.randint(0, 30)
            row: Row = {"m0/Counter": counter, "m0/Power": chance.randint(-9000, 9000) / 8}
            if chance.random() < 0.05:
                row["m0/Rare"] = chance.randint(0, 5)
            if chance.random() < 0.2:
                row["m0/Mixed"] = chance.choice((1, 2.5, "a", "b"))
            rows[time] = row
        return rows

    async def answers(self, provider: Any, questions: list[tuple[Any, ...]]) -> list[Any]:
        found: list[Any] = []
        for begin, end, resolution in questions:
            means = await provider.query_historic_data("edge7", begin, end, NAMES, resolution)
            rises = await provider.query_historic_energy_per_period("edge7", begin, end, NAMES, resolution)
            energy = await provider.query_historic_energy("edge7", begin, end, NAMES)
            before = await provider.query_first_value_before("edge7", begin, NAMES)
            found.append((begin, resolution, means.timestamps, means.data, rises.data, energy, before))
        return found

    def compare(self, one: Any, other: Any, where: str) -> None:
        if isinstance(one, float | int) and isinstance(other, float | int):
            self.assertAlmostEqual(one, other, places=6, msg=where)
        elif isinstance(one, dict):
            self.assertEqual(sorted(one), sorted(other), where)
            for key in one:
                self.compare(one[key], other[key], f"{where} {key}")
        elif isinstance(one, list | tuple):
            self.assertEqual(len(one), len(other), where)
            for index, (left, right) in enumerate(zip(one, other, strict=True)):
                self.compare(left, right, f"{where} {index}")
        else:
            self.assertEqual(one, other, where)

    def questions(self, chance: random.Random) -> list[tuple[Any, ...]]:
        result = []
        for _ in range(12):
            zone = chance.choice(ZONES)
            resolution = chance.choice(RESOLUTIONS)
            hours = chance.choice((1, 6)) if resolution.unit is Unit.SECONDS else chance.choice((3, 24, 40))
            start = BASE + chance.randint(-2, 30) * HOUR + chance.choice((0, 0, 5 * MINUTE, 90_500))
            begin = datetime.datetime.fromtimestamp(start / 1000, zone)
            result.append((begin, begin + datetime.timedelta(hours=hours), resolution))
        return result

    async def run_seed(self, seed: int) -> None:
        chance = random.Random(seed)
        lite, big = await self.both()
        rows = list(self.samples(chance).items())
        # In a random order of parts, rolled up in between or not; some parts twice.
        parts = [rows[start : start + 50] for start in range(0, len(rows), 50)]
        chance.shuffle(parts)
        for part in parts:
            for _ in range(chance.choice((1, 1, 2))):
                notification = DataNotification(chance.choice((DataKind.TIMESTAMPED, DataKind.RESEND)), dict(part))
                lite.write("edge7", notification)
                big.write("edge7", notification)
            await lite.flush()
            await big.flush()
            if chance.random() < 0.4:
                await big.maintain()
        questions = self.questions(chance)
        expected = await self.answers(lite, questions)
        self.compare(expected, await self.answers(big, questions), f"seed {seed}")
        await big.maintain()
        self.compare(expected, await self.answers(big, questions), f"seed {seed}, all rolled up")

    async def test_seeds(self) -> None:
        for seed in range(6):
            await self.run_seed(seed)


class SameAnswersTimescaledbTests(SameAnswersTests):
    SERVICE = "timescaledb"

    async def test_seeds(self) -> None:
        for seed in range(10, 12):
            await self.run_seed(seed)
