"""Random aggregated rows, random questions, beside the reference of the conformance suite.

It cannot join that suite as the others do: it takes no timestampedData and only channels of its list, keeps one reading
of a counter a day, and leaves out what it does not know for sure. So the reference is given what this provider should
keep - averages as they are, the reading of a day at its beginning - and is asked the same.
"""

from __future__ import annotations

import datetime
import random
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.backend.timedata.aggregatedinflux.provider import AggregatedInfluxTimedata
from openems.backend.timedata.influx.database import FLUX, INFLUX_QL
from openems.common.data import DataKind, DataNotification, Row
from openems.common.resolution import Resolution, Unit
from tests.backend.timedata.comparison import EXAMPLES
from tests.backend.timedata.conformance import NOW
from tests.backend.timedata.influx.servers import bucket
from tests.backend.timedata.reference import Reference, edges, first_instant

COUNTERS = ["_sum/ProductionActiveEnergy", "_sum/GridBuyActiveEnergy"]
POWERS = ["_sum/EssSoc", "_sum/GridActivePower"]
#: With a configured zone of their own, and one with the midnights of another.
ZONES = ["Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kolkata", "UTC"]
LIKE_BERLIN = "Europe/Vienna"
PLACES = [*((zone, zone) for zone in ZONES), (LIKE_BERLIN, "Europe/Berlin")]
STARTS = ["2026-03-20", "2026-10-20", "2027-12-20", "2028-02-20", "2026-04-01"]
COARSE = [(1, Unit.DAYS), (2, Unit.DAYS), (1, Unit.WEEKS), (1, Unit.MONTHS), (1, Unit.YEARS)]
FINE = [(5, Unit.MINUTES), (15, Unit.MINUTES), (1, Unit.HOURS), (1, Unit.DAYS)]
DAY = datetime.timedelta(days=1)


class ReferenceTests:
    SERVICE = "influxdb2"
    LANGUAGE = INFLUX_QL
    SEEDS = range(12)
    timeout = 200
    assertEqual: Any
    assertAlmostEqual: Any

    async def make(self) -> AggregatedInfluxTimedata:
        here = bucket(self.SERVICE)
        for policy in ("rp_avg", "rp_max"):
            here.make(f"{here.name}/{policy}")
        provider = AggregatedInfluxTimedata(
            "timedata0",
            Path(self.mktemp()),  # type: ignore[attr-defined]
            reactor=reactor,
            now=lambda: NOW,
            live=lambda edge_id, channels: {},
            query_language=self.LANGUAGE,
            measurements_max={ZoneInfo(zone): f"max{number}" for number, zone in enumerate(ZONES)},
            **here.options,
        )
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))  # type: ignore[attr-defined]
        return provider

    async def test_counters_and_averages(self) -> None:
        provider = await self.make()
        seeds = range(self.SEEDS.start, self.SEEDS.start + EXAMPLES) if EXAMPLES else self.SEEDS
        for seed in seeds:
            await self._counters(provider, random.Random(seed), f"edge{seed + 100}")
            await self._averages(provider, random.Random(seed), f"edge{seed + 100}")

    async def _counters(self, provider: Any, chance: random.Random, edge: str) -> None:
        asked, configured = chance.choice(PLACES)
        zone, own = ZoneInfo(asked), ZoneInfo(configured)
        date = first = datetime.date.fromisoformat(chance.choice(STARTS))
        reference, rows = Reference(), {}
        readings = dict.fromkeys(COUNTERS, 0)
        for _ in range(chance.randint(5, 40)):
            date += DAY * chance.choice((1, 1, 1, 1, 2, 5))
            row: Row = {}
            for name in COUNTERS:
                if chance.random() < 0.8:
                    readings[name] = chance.randint(0, 5) if chance.random() < 0.1 else readings[name] + 7
                    row[name] = readings[name]
            # The last five minutes of that day.
            time = first_instant(date + DAY, own) - 300_000 + 1_000 * chance.randint(0, 299)
            if row:
                rows[time] = row
                reference.write(DataKind.RESEND, {first_instant(date, own): dict(row)})
        parts = list(rows.items())
        chance.shuffle(parts)
        for time, row in parts:
            provider.write(edge, DataNotification(chance.choice((DataKind.AGGREGATED, DataKind.RESEND)), {time: row}))
        await provider.flush()
        for _ in range(6):
            begin = first + DAY * chance.randint(-3, 30)
            end = begin + DAY * chance.choice((1, 7, 40, 200))
            dates = [datetime.datetime.fromtimestamp(first_instant(d, zone) / 1000, zone) for d in (begin, end)]
            value, unit = chance.choice(COARSE)
            await self._ask_rises(provider, edge, reference, dates, Resolution(value, unit), zone)

    async def _ask_rises(
        self, provider: Any, edge: str, reference: Reference, dates: Any, resolution: Resolution, zone: ZoneInfo
    ) -> None:
        where = f"{edge} {dates[0]} {dates[1]} {resolution}"
        bounds = edges(round(dates[0].timestamp() * 1000), round(dates[1].timestamp() * 1000), zone, resolution)
        rises = await provider.query_historic_energy_per_period(edge, *dates, COUNTERS, resolution)
        total = await provider.query_historic_energy(edge, *dates, COUNTERS)
        self.assertEqual(bounds[:-1], rises.timestamps, where)
        for name in COUNTERS:
            text = f"{where} {name}"
            if reference.newest_before(bounds[0], name) is None:
                # How far it rose is not known: the next provider is asked.
                self.assertEqual((None, False), (rises.data.get(name), name in total), text)
                continue
            expected = reference.rises(bounds, name) or [None] * (len(bounds) - 1)
            self.assertEqual(expected, rises.data[name], text)
            [span] = reference.rises([bounds[0], bounds[-1]], name) or [None]
            self.assertEqual(span, total[name], text)
        before = await provider.query_first_value_before(edge, dates[0], COUNTERS)
        known = {name: reference.newest_before(bounds[0], name) for name in COUNTERS}
        self.assertEqual({name: value for name, value in known.items() if value is not None}, before, where)

    async def _averages(self, provider: Any, chance: random.Random, edge: str) -> None:
        zone = ZoneInfo(chance.choice(PLACES)[0])
        base = first_instant(datetime.date.fromisoformat(chance.choice(STARTS)), zone)
        reference = Reference()
        time = base
        for _ in range(chance.randint(3, 60)):
            row: Row = {name: chance.randint(-90, 90) for name in POWERS if chance.random() < 0.8}
            kind = chance.choice((DataKind.AGGREGATED, DataKind.RESEND))
            reference.write(kind, {time: row})
            provider.write(edge, DataNotification(kind, {time: {**row, "meter0/Other": 1}}))
            time += chance.choice((1, 1, 1, 1, 2, 7, 300)) * 300_000
        await provider.flush()
        for _ in range(6):
            start = base + chance.randint(-2, 30) * 3_600_000
            end = start + chance.choice((1, 6, 24, 48)) * 3_600_000
            value, unit = chance.choice(FINE)
            resolution = Resolution(value, unit)
            bounds = edges(start, end, zone, resolution)
            dates = [datetime.datetime.fromtimestamp(t / 1000, zone) for t in (start, end)]
            length = {Unit.MINUTES: 60_000, Unit.HOURS: 3_600_000}.get(unit, 0) * value or None
            answer = await provider.query_historic_data(edge, *dates, [*POWERS, "meter0/Other"], resolution)
            where = f"{edge} {dates[0]} {dates[1]} {resolution}"
            self.assertEqual(bounds[:-1], answer.timestamps, where)
            self.assertNotIn("meter0/Other", answer.data)  # type: ignore[attr-defined]
            for name in POWERS:
                expected, found = reference.means(bounds, name, length), answer.data.get(name)
                self.assertEqual(expected is None, found is None, f"{where} {name}")
                for one, other in zip(expected or [], found or [], strict=True):
                    if one is None or other is None:
                        self.assertEqual(one, other, f"{where} {name}\n{expected}\n{found}")
                    else:
                        self.assertAlmostEqual(one, other, places=6, msg=f"{where} {name}\n{expected}\n{found}")


class Influxdb2InfluxQlTests(ReferenceTests, TestCase): ...


class Influxdb2FluxTests(ReferenceTests, TestCase):
    LANGUAGE = FLUX
    SEEDS = range(20, 28)


class Influxdb1InfluxQlTests(ReferenceTests, TestCase):
    SERVICE = "influxdb1"
    SEEDS = range(40, 52)
