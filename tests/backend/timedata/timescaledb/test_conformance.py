"""The tests that all providers share, on PostgreSQL and on TimescaleDB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
from tests.backend.timedata.comparison import ReferenceComparison
from tests.backend.timedata.conformance import TimedataConformance
from tests.postgres.databases import database, run_sql
from tests.real import real


class PostgresqlConformance(TimedataConformance):
    SERVICE = "postgresql"
    EXTENSION = False
    RAW_DAYS = 0
    ROLL = True
    timeout = 120
    addCleanup: Any
    assertEqual: Any
    assertIsNone: Any
    mktemp: Any

    async def make(self, now: Callable[[], int]) -> TimescaledbTimedata:
        server = real(self.SERVICE)
        name = database(self, server, "history")
        if self.EXTENSION:
            run_sql(server, "CREATE EXTENSION timescaledb", database=name)
        provider = TimescaledbTimedata(
            "timedata0",
            Path(self.mktemp()),
            host="127.0.0.1",
            port=server.port,
            user="postgres",
            password="secret",
            database=name,
            raw_retention_days=self.RAW_DAYS,
            batch_delay=0.0,
            lookback_days=36_500,
            reactor=reactor,
            now=now,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        await provider.start()
        return provider

    async def settle(self) -> None:
        await self.provider.flush()
        if self.ROLL:
            await self.provider.maintain()
            self.assertIsNone(self.provider.trouble)
            [(left,)] = await self.provider.pool.query("SELECT count(*) FROM ts_dirty")
            self.assertEqual(0, left)


class PostgresqlTests(ReferenceComparison, PostgresqlConformance, TestCase):
    """Rolled up: answers from the five-minute table."""


class PostgresqlOpenTests(ReferenceComparison, PostgresqlConformance, TestCase):
    """Nothing is rolled up: answers from samples alone."""

    FIRST_SEED = 60

    ROLL = False


class PostgresqlOldTests(PostgresqlConformance, TestCase):
    """All data is older than the samples that are kept: the five-minute table is all there is."""

    RAW_DAYS = 1
    FINE = False


class TimescaledbTests(ReferenceComparison, PostgresqlConformance, TestCase):
    FIRST_SEED = 80
    SERVICE = "timescaledb"
    EXTENSION = True


class TimescaledbOpenTests(PostgresqlConformance, TestCase):
    SERVICE = "timescaledb"
    EXTENSION = True
    ROLL = False


class TimescaledbOldTests(PostgresqlConformance, TestCase):
    SERVICE = "timescaledb"
    EXTENSION = True
    RAW_DAYS = 1
    FINE = False
