"""What is switched on for which kind of server. TimescaleDB under its own licence is in no package registry: what it
would say is said by a stand-in here, and what is asked of it is compared."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg2
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.timescaledb import migrations
from openems.backend.timedata.timescaledb.maintenance import COMPRESS_AFTER_DAYS, Maintenance
from openems.backend.timedata.timescaledb.migrations import APACHE, PLAIN, TSL, Schema, SchemaTrouble
from openems.backend.timedata.timescaledb.partitions import Partitions

NOW = 1_800_000_000_000
NEWEST = max(migrations.files("plain"))


class StandIn:
    """A pool whose server has this licence (None: no extension). ``made``: the flavour its tables were made as."""

    def __init__(self, licence: str | None, made: str | None = None, refuses: str = "") -> None:
        self.licence = licence
        self.versions = [(NEWEST, made)] if made else []
        self.refuses = refuses
        self.said: list[str] = []
        self.server = SimpleNamespace(user="openems", reason=lambda error: str(error))

    async def query(self, text: str, *params: Any, **options: Any) -> list[Any]:
        if "timescaledb.license" in text:
            return [(self.licence, "2.19.3" if self.licence is not None else None)]
        if "current_schema()" in text:
            return [("public", bool(self.versions), "17.2")]
        if "FROM ts_schema" in text:
            return self.versions
        if "FROM ts_state" in text:
            return [(0,)]
        self.said.append(text)
        return [(0,)] if "drop_chunks" in text else []

    async def execute(self, text: str, *params: Any, **options: Any) -> None:
        self.said.append(text)
        if text.startswith("INSERT INTO ts_schema"):
            self.versions.append(params[0])
        if self.refuses and self.refuses in text:
            raise psycopg2.Error(f"functionality not supported under the current license: {self.refuses}")

    async def transaction(self, work: Callable[[Any], Any], **options: Any) -> Any:
        return await work(self)


class FlavourTests(SynchronousTestCase):
    def result(self, coroutine: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def test_the_licence_tells_what_it_is(self) -> None:
        for licence, flavour in ((None, PLAIN), ("apache", APACHE), ("timescale", TSL)):
            pool: Any = StandIn(licence)
            self.assertEqual(flavour, self.result(migrations.flavour(pool)))

    def test_tables_are_made_for_it(self) -> None:
        for licence, flavour, hypertables in ((None, PLAIN, False), ("apache", APACHE, True), ("timescale", TSL, True)):
            pool: Any = StandIn(licence)
            there = self.result(migrations.migrate(pool))
            self.assertEqual(Schema(NEWEST, flavour, hypertables, "17.2"), there)
            text = "\n".join(pool.said)
            self.assertEqual(hypertables, "create_hypertable" in text)
            self.assertEqual(not hypertables, "PARTITION BY RANGE" in text)

    def test_tables_of_another_kind_of_server(self) -> None:
        """Apache's tables go on under the other licence and the other way round; plain ones on any server."""
        for made, licence, flavour, hypertables in (
            (APACHE, "timescale", TSL, True),
            (TSL, "apache", APACHE, True),
            (PLAIN, "timescale", TSL, False),
        ):
            pool: Any = StandIn(licence, made)
            self.assertEqual(Schema(NEWEST, flavour, hypertables, "17.2"), self.result(migrations.migrate(pool)))
        pool = StandIn(None, TSL)
        failure = self.failureResultOf(Deferred.fromCoroutine(migrations.migrate(pool)), SchemaTrouble)
        self.assertIn("extension is gone", str(failure.value))

    def test_a_flavour_that_the_server_has_not(self) -> None:
        for licence, wanted in ((None, TSL), (None, APACHE), ("apache", TSL)):
            pool: Any = StandIn(licence)
            failure = self.failureResultOf(Deferred.fromCoroutine(migrations.migrate(pool, wanted)), SchemaTrouble)
            self.assertIn(f"flavour {wanted} is asked for", str(failure.value))
        pool = StandIn("timescale")
        self.assertFalse(self.result(migrations.migrate(pool, PLAIN)).hypertables)

    def maintenance(self, pool: Any, flavour: str, hypertables: bool) -> Maintenance:
        return Maintenance(
            "timedata0",
            pool,
            Schema(NEWEST, flavour, hypertables),
            None if hypertables else Partitions(pool),
            now=lambda: NOW,
            raw_days=31,
            rollup_days=400,
        )

    def test_compression_where_there_is_some(self) -> None:
        pool = StandIn("timescale", TSL)
        self.result(self.maintenance(pool, TSL, True).begin())
        self.assertEqual(4, len(pool.said))
        for table, (alter, policy) in zip(("ts_num", "ts_num_5m"), (pool.said[:2], pool.said[2:]), strict=True):
            self.assertTrue(alter.startswith(f"ALTER TABLE {table} SET (timescaledb.compress,"))
            self.assertIn("timescaledb.compress_segmentby = 'series_id'", alter)
            self.assertIn(f"add_compression_policy('{table}', INTERVAL '{COMPRESS_AFTER_DAYS} days'", policy)
        for licence, flavour, hypertables in (
            ("apache", APACHE, True),
            ("timescale", TSL, False),
            (None, PLAIN, False),
        ):
            pool = StandIn(licence, flavour)
            self.result(self.maintenance(pool, flavour, hypertables).begin())
            self.assertNotIn("compress", "\n".join(pool.said))

    def test_a_server_that_refuses_it_serves_as_well(self) -> None:
        lines: list[str] = []
        observer = lambda event: lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for refuses in ("timescaledb.compress,", "add_compression_policy"):
            lines.clear()
            pool = StandIn("timescale", TSL, refuses=refuses)
            self.result(self.maintenance(pool, TSL, True).begin())
            told = [line for line in lines if "is not compressed" in line]
            self.assertEqual(2, len(told), lines)
            self.assertIn("current license", told[0])

    def test_retention_by_chunks_or_by_partitions(self) -> None:
        for licence, flavour, hypertables in (("timescale", TSL, True), ("apache", APACHE, True), (None, PLAIN, False)):
            pool = StandIn(licence, flavour)
            maintenance = self.maintenance(pool, flavour, hypertables)
            self.result(maintenance._expire(NOW))
            dropping = [text for text in pool.said if "drop_chunks" in text]
            self.assertEqual(3 if hypertables else 0, len(dropping))
            self.assertEqual(not hypertables, any("pg_inherits" in text for text in pool.said))
