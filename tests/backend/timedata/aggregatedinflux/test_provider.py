from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from openems.backend.interfaces import IDebugLoggable, ITimedata
from openems.backend.timedata.aggregatedinflux.provider import AggregatedInfluxTimedata
from openems.backend.timedata.influx.database import FLUX, INFLUX_QL
from openems.common.data import DataKind, DataNotification, Row, Value
from openems.common.resolution import Resolution, Unit
from tests.backend.timedata.conformance import BERLIN, DAY, KOLKATA, MINUTE, UTC, at, day
from tests.backend.timedata.influx.servers import bucket

PRODUCTION, GRID_BUY = "_sum/ProductionActiveEnergy", "_sum/GridBuyActiveEnergy"


class AggregatedTests:
    SERVICE = "influxdb2"
    LANGUAGE = INFLUX_QL

    def setUp(self) -> None:
        self.bucket = bucket(self.SERVICE)
        for policy in ("rp_avg", "rp_max"):
            self.bucket.make(f"{self.bucket.name}/{policy}")
        self.live: dict[str, Value] = {}
        self.now = at("2029-06-01")

    async def make(self, **options: Any) -> AggregatedInfluxTimedata:
        zones: dict[datetime.tzinfo, str] = {BERLIN: "max", UTC: "max_utc", KOLKATA: "max_in"}
        provider = AggregatedInfluxTimedata(
            "timedata0",
            Path(self.mktemp()),  # type: ignore[attr-defined]
            reactor=reactor,
            now=lambda: self.now,
            live=self.values,
            query_language=self.LANGUAGE,
            measurements_max=zones,
            **{**self.bucket.options, **options},
        )
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))  # type: ignore[attr-defined]
        return provider

    def values(self, edge_id: str, channels: Sequence[str]) -> Mapping[str, Value]:
        return {channel: self.live.get(channel) for channel in channels}

    async def given(self, provider: AggregatedInfluxTimedata, rows: dict[int, Row]) -> None:
        provider.write("edge7", DataNotification(DataKind.AGGREGATED, dict(sorted(rows.items()))))
        await provider.flush()

    def readings(self, zone: ZoneInfo | datetime.tzinfo = BERLIN, **days: Value) -> dict[int, Row]:
        """Of ``_sum/ProductionActiveEnergy`` at the end of days ``d2023_06_01``."""
        return {
            at(f"{name[1:].replace('_', '-')}T23:55", zone): {PRODUCTION: value} for name, value in days.items()
        }  # fmt: skip

    async def per_period(
        self, provider: Any, begin: str, end: str, unit: Unit, zone: datetime.tzinfo = BERLIN, *channels: str
    ) -> dict[str, list[Value]]:
        answer = await provider.query_historic_energy_per_period(
            "edge7", day(begin, zone), day(end, zone), channels or [PRODUCTION], Resolution(1, unit)
        )
        columns: dict[str, list[Value]] = answer.data
        return columns

    async def test_it_is_a_provider(self) -> None:
        provider = await self.make()
        verifyObject(ITimedata, provider)
        verifyObject(IDebugLoggable, provider)

    async def test_examples_10_to_12_past_days_and_months(self) -> None:
        provider = await self.make()
        rows = self.readings(
            d2022_12_31=1000, d2023_01_07=1280, d2023_01_08=1360, d2023_01_09=1450, d2023_01_11=1660,
            d2023_01_12=1780, d2023_01_31=5960, d2023_02_28=6156,
        )  # fmt: skip
        rows[at("2022-12-31T23:55")][GRID_BUY] = 50
        rows[at("2023-02-28T23:55")][GRID_BUY] = 88
        await self.given(provider, rows)
        columns = await self.per_period(provider, "2023-01-08", "2023-01-13", Unit.DAYS)
        self.assertEqual({PRODUCTION: [80, 90, None, 210, 120]}, columns)
        columns = await self.per_period(
            provider, "2023-01-01", "2023-04-01", Unit.MONTHS, BERLIN, PRODUCTION, GRID_BUY, "nope0/Energy"
        )
        self.assertEqual({PRODUCTION: [4960, 196, None], GRID_BUY: [None, 38, None]}, columns)
        columns = await self.per_period(provider, "2023-01-01", "2024-01-01", Unit.YEARS)
        self.assertEqual({PRODUCTION: [5156]}, columns)
        total = await provider.query_historic_energy("edge7", day("2023-01-01"), day("2023-02-01"), [PRODUCTION])
        self.assertEqual({PRODUCTION: 4960}, total)

    async def test_example_11b_and_16_without_a_base_the_next_provider_is_asked(self) -> None:
        provider = await self.make()
        await self.given(provider, self.readings(d2023_06_05=100, d2023_06_06=150))
        self.assertEqual({}, await self.per_period(provider, "2023-06-01", "2023-07-01", Unit.DAYS))
        self.assertEqual({}, await self.per_period(provider, "2020-06-01", "2020-07-01", Unit.DAYS))
        self.assertEqual({PRODUCTION: [50]}, await self.per_period(provider, "2023-06-06", "2023-06-07", Unit.DAYS))

    async def test_example_13_half_hour_zone(self) -> None:
        provider = await self.make()
        await self.given(provider, self.readings(KOLKATA, d2023_05_31=1, d2023_06_01=5, d2023_06_02=9))
        columns = await self.per_period(provider, "2023-06-01", "2023-06-03", Unit.DAYS, KOLKATA)
        self.assertEqual({PRODUCTION: [4, 4]}, columns)

    async def test_17_zones(self) -> None:
        provider = await self.make()
        await self.given(provider, self.readings(d2023_05_31=1, d2023_06_01=5))
        vienna, york = ZoneInfo("Europe/Vienna"), ZoneInfo("America/New_York")
        columns = await self.per_period(provider, "2023-06-01", "2023-06-02", Unit.DAYS, vienna)
        self.assertEqual({PRODUCTION: [4]}, columns)
        self.assertEqual({}, await self.per_period(provider, "2023-06-01", "2023-06-02", Unit.DAYS, york))
        self.assertEqual({}, await self.per_period(provider, "2023-06-01", "2023-06-02", Unit.HOURS))

    async def test_clock_changes_and_restarts(self) -> None:
        provider = await self.make()
        readings = self.readings(
            d2023_03_24=100, d2023_03_25=110, d2023_03_26=130, d2023_03_27=160, d2023_03_28=5, d2023_03_29=25
        )
        await self.given(provider, readings)
        columns = await self.per_period(provider, "2023-03-25", "2023-03-30", Unit.DAYS)
        self.assertEqual({PRODUCTION: [10, 20, 30, None, 20]}, columns)

    async def test_example_14_the_current_day_is_live(self) -> None:
        provider = await self.make()
        rows = self.readings(d2024_12_31=0, d2025_01_01=100, d2025_01_02=200, d2025_01_03=250)
        rows[at("2024-12-31T23:55")][GRID_BUY] = 7
        await self.given(provider, rows)
        self.now = at("2025-01-04T14:33")
        self.live = {PRODUCTION: 300}
        columns = await self.per_period(
            provider, "2025-01-01", "2025-02-01", Unit.DAYS, BERLIN, PRODUCTION, GRID_BUY
        )  # fmt: skip
        self.assertEqual({PRODUCTION: [100, 100, 50, 50, *[None] * 27]}, columns)
        columns = await self.per_period(provider, "2025-01-01", "2026-01-01", Unit.MONTHS)
        self.assertEqual({PRODUCTION: [300, *[None] * 11]}, columns)
        columns = await self.per_period(provider, "2025-01-04", "2025-01-05", Unit.DAYS)
        self.assertEqual({PRODUCTION: [50]}, columns)
        span = day("2025-01-03"), day("2025-01-05")
        self.assertEqual({PRODUCTION: 100}, await provider.query_historic_energy("edge7", *span, [PRODUCTION]))
        self.live = {}
        self.assertEqual({}, await provider.query_historic_energy("edge7", *span, [PRODUCTION]))
        self.live = {PRODUCTION: 10}
        columns = await self.per_period(provider, "2025-01-03", "2025-01-05", Unit.DAYS)
        self.assertEqual({PRODUCTION: [50, None]}, columns)

    async def test_averages_by_kind(self) -> None:
        provider = await self.make()
        base = at("2023-06-01")
        rows: dict[int, Row] = {base + n * 5 * MINUTE: {"_sum/EssSoc": 50.9 + n, "meter0/Foo": 1} for n in range(6)}
        rows[base][PRODUCTION] = 5
        await self.given(provider, rows)
        span = day("2023-06-01"), day("2023-06-01") + datetime.timedelta(minutes=30)
        names = ["_sum/EssSoc", "_sum/GridMode", PRODUCTION, "meter0/Foo"]
        answer = await provider.query_historic_data("edge7", *span, names, Resolution(5, Unit.MINUTES))
        self.assertEqual({"_sum/EssSoc": [50, 51, 52, 53, 54, 55]}, answer.data)
        answer = await provider.query_historic_data("edge7", *span, names, Resolution(15, Unit.MINUTES))
        self.assertEqual({"_sum/EssSoc": [51, 54]}, answer.data)
        self.assertEqual({}, await provider.query_historic_energy("edge7", *span, names))

    async def test_first_value_before(self) -> None:
        provider = await self.make()
        rows = self.readings(d2023_05_30=1, d2023_05_31=2, d2023_06_01=3)
        rows[at("2023-06-01T10:00")] = {"_sum/EssSoc": 40}
        await self.given(provider, rows)
        noon = day("2023-06-01") + datetime.timedelta(hours=12)
        answer = await provider.query_first_value_before("edge7", noon, [PRODUCTION, "_sum/EssSoc", "_sum/GridMode"])
        self.assertEqual({PRODUCTION: 2, "_sum/EssSoc": 40}, answer)

    async def test_what_is_written(self) -> None:
        provider = await self.make()
        row: Row = {PRODUCTION: 5000, "_sum/GridActivePower": 12.9, "foo0/Bar": 1}
        time = at("2023-06-01T23:57")
        provider.write("edge7", DataNotification(DataKind.TIMESTAMPED, {time - DAY: dict(row)}))
        provider.write("edge7", DataNotification(DataKind.RESEND, {time: dict(row)}))
        await provider.flush()
        self.bucket.name = f"{self.bucket.name}/rp_max"
        self.assertEqual(
            [[at("2023-06-01"), "7", 5000]], self.bucket.query(f'SELECT "edge", "{PRODUCTION}" FROM "max"')
        )
        self.bucket.name = self.bucket.name.replace("rp_max", "rp_avg")
        query = 'SELECT "edge", "_sum/GridActivePower" FROM "avg"'
        self.assertEqual([[time, "7", 12]], self.bucket.query(query))

    async def test_buckets_of_java_are_read_and_continued(self) -> None:
        """Averages at their time, the reading of a day at its beginning, both in seconds, the edge's number as tag."""
        june = [at(f"2023-06-0{day}") // 1000 for day in (1, 2, 3)]
        averages = (f"avg,edge=7 _sum/EssSoc={50 + n}i {june[0] + n * 300}" for n in range(3))
        self.bucket.write("\n".join(averages), f"{self.bucket.name}/rp_avg", "s")
        for measurement in ("max", "max_utc", "max_in"):
            readings = (f"{measurement},edge=7 {PRODUCTION}={1000 + 10 * n}i {time}" for n, time in enumerate(june[:2]))
            self.bucket.write("\n".join(readings), f"{self.bucket.name}/rp_max", "s")
        provider = await self.make()
        self.assertEqual({PRODUCTION: [10]}, await self.per_period(provider, "2023-06-02", "2023-06-03", Unit.DAYS))
        rows = self.readings(d2023_06_03=1050)
        rows[at("2023-06-01") + 15 * MINUTE] = {"_sum/EssSoc": 60.9}
        await self.given(provider, rows)
        self.assertEqual({PRODUCTION: [10, 40]}, await self.per_period(provider, "2023-06-02", "2023-06-04", Unit.DAYS))
        span = day("2023-06-01"), day("2023-06-01") + datetime.timedelta(minutes=20)
        answer = await provider.query_historic_data("edge7", *span, ["_sum/EssSoc"], Resolution(5, Unit.MINUTES))
        self.assertEqual({"_sum/EssSoc": [50, 51, 52, 60]}, answer.data)
        self.assertEqual({}, provider.dropped)

    async def test_read_only(self) -> None:
        provider = await self.make(read_only=True)
        provider.write("edge7", DataNotification(DataKind.RESEND, self.readings(d2023_05_30=1)))
        await provider.flush()
        answer = await provider.query_first_value_before("edge7", day("2023-06-01"), [PRODUCTION])
        self.assertEqual({}, answer)


class Influxdb2InfluxQlTests(AggregatedTests, TestCase): ...


class Influxdb2FluxTests(AggregatedTests, TestCase):
    LANGUAGE = FLUX


class Influxdb1InfluxQlTests(AggregatedTests, TestCase):
    SERVICE = "influxdb1"
