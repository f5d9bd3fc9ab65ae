"""What every provider must answer, on the real servers in both languages."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

from twisted.internet import reactor as reactor_
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.backend.timedata.influx import reader
from openems.backend.timedata.influx.database import FLUX, INFLUX_QL
from openems.backend.timedata.influx.period import Period
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.common.resolution import Unit
from tests.backend.timedata.comparison import ReferenceComparison
from tests.backend.timedata.conformance import MINUTE, TimedataConformance, at, day
from tests.backend.timedata.influx.servers import bucket
from tests.backend.timedata.scenarios import COUNTER, POWER


class InfluxConformance(TimedataConformance):
    SERVICE = "influxdb2"
    LANGUAGE = INFLUX_QL
    TEXTS = False
    FRACTIONS = False

    def setUp(self) -> None:
        self.bucket = bucket(self.SERVICE)

    async def make(self, now: Callable[[], int]) -> InfluxTimedata:
        provider = InfluxTimedata(
            "timedata0",
            Path(self.mktemp()),  # type: ignore[attr-defined]
            reactor=reactor_,
            now=now,
            query_language=self.LANGUAGE,
            **self.bucket.options,
        )
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))  # type: ignore[attr-defined]
        return provider

    async def settle(self) -> None:
        await self.provider.flush()

    async def test_many_holes_are_measured_exactly(self) -> None:
        """Flux's ``elapsed`` in milliseconds says 310000 for the first gap."""
        self.patch(reader, "FEW_HOLES", 0)  # type: ignore[attr-defined]
        base = 1_325_168_562_001
        first, second, third = base, base + 310_001, base + 310_001 + 300_000
        await self.given(m0_P={first: 35, second: 36, third: 37})
        begin = datetime.datetime.fromtimestamp(first // MINUTE * MINUTE // 1000, datetime.UTC)
        [column] = await self.data(begin, begin + datetime.timedelta(minutes=12), 1, Unit.MINUTES, "m0/P")
        self.assertEqual([35, None, None, None, None, 36, 36, 36, 36, 36, 37, None], column)  # type: ignore[attr-defined]

    async def test_many_holes_after_the_begin_of_what_it_is_for(self) -> None:
        self.patch(reader, "FEW_HOLES", 0)  # type: ignore[attr-defined]
        base = at("2026-06-01")
        await self.begin()
        self.provider._period = Period(base + 30_500, None)
        await self.given(m0_P={base + 10_000: 1, base + 40_000: 2, base + 4 * MINUTE: 3})
        begin = day("2026-06-01")
        [column] = await self.data(begin, begin + datetime.timedelta(minutes=6), 1, Unit.MINUTES, "m0/P")
        self.assertEqual([2, 2, 2, 2, 3, None], column)  # type: ignore[attr-defined]


class InfluxReference(ReferenceComparison):
    NAMES = (COUNTER, POWER)
    CLIPS = True
    timeout = 400

    async def _compare(self, seed: int) -> None:
        # Holes are looked for in two ways.
        self.patch(reader, "FEW_HOLES", 40 if seed % 4 < 2 else 0)  # type: ignore[attr-defined]
        await super()._compare(seed)


class Influxdb2InfluxQlTests(InfluxReference, InfluxConformance, TestCase):
    FIRST_SEED = 0


class Influxdb2FluxTests(InfluxReference, InfluxConformance, TestCase):
    LANGUAGE = FLUX
    FIRST_SEED = 20


class Influxdb1InfluxQlTests(InfluxReference, InfluxConformance, TestCase):
    SERVICE = "influxdb1"
    FIRST_SEED = 40
    CLIPS = False
    RESTARTS = True
