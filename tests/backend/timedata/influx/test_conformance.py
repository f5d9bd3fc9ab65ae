"""What every provider must answer, on the real servers in both languages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.backend.timedata.influx.database import FLUX, INFLUX_QL
from openems.backend.timedata.influx.provider import InfluxTimedata
from tests.backend.timedata.comparison import ReferenceComparison
from tests.backend.timedata.conformance import TimedataConformance
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
            reactor=reactor,
            now=now,
            query_language=self.LANGUAGE,
            **self.bucket.options,
        )
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))  # type: ignore[attr-defined]
        return provider

    async def settle(self) -> None:
        await self.provider.flush()


class Influxdb2InfluxQlTests(ReferenceComparison, InfluxConformance, TestCase):
    NAMES = (COUNTER, POWER)
    CLIPS = True
    timeout = 400


class Influxdb2FluxTests(ReferenceComparison, InfluxConformance, TestCase):
    LANGUAGE = FLUX
    NAMES = (COUNTER, POWER)
    CLIPS = True
    FIRST_SEED = 20
    timeout = 400


class Influxdb1InfluxQlTests(ReferenceComparison, InfluxConformance, TestCase):
    SERVICE = "influxdb1"
    NAMES = (COUNTER, POWER)
    FIRST_SEED = 40
    RESTARTS = True
    timeout = 400
