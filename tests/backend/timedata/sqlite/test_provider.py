from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from openems.backend.timedata.sqlite import reader, schema, store
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.common.data import DataKind, DataNotification
from openems.common.errors import OpenemsError
from openems.common.resolution import Resolution, Unit
from tests.backend.timedata.conformance import DAY, MINUTE, NOW, TimedataConformance, at, day


class SqliteConformance(TimedataConformance):
    RAW_DAYS = 3_000
    ROLLUP_DAYS = 3_660

    async def make(self, now: Callable[[], int]) -> SqliteTimedata:
        provider = SqliteTimedata(
            "timedata0",
            self.mktemp(),
            reactor=reactor,
            now=now,
            retention_days_raw=self.RAW_DAYS,
            retention_days_rollup=self.ROLLUP_DAYS,
        )
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        return provider

    async def settle(self) -> None:
        await self.provider.flush()


class LateDataTests(SqliteConformance, TestCase):
    """All data comes after its buckets were rolled up: answers from the roll-up."""


class OpenBucketsTests(SqliteConformance, TestCase):
    """Nothing is rolled up: answers from samples alone."""

    def setUp(self) -> None:
        self.patch(store, "GRACE", 10 * NOW)


class OldDataTests(SqliteConformance, TestCase):
    """All data is older than the raw retention: the roll-up is all there is."""

    RAW_DAYS = 1
    FINE = False


class ProviderTests(TestCase):
    def make(self, path: str | None = None, **options: Any) -> SqliteTimedata:
        self.path = path or self.mktemp()
        options.setdefault("now", lambda: NOW)
        provider = SqliteTimedata("timedata0", self.path, reactor=reactor, **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        return provider

    def row(self, time: int, **values: Any) -> DataNotification:
        return DataNotification(DataKind.TIMESTAMPED, {time: {f"m/{name}": value for name, value in values.items()}})

    async def first_day(self, provider: SqliteTimedata, channel: str = "m/P") -> Any:
        answer = await provider.query_historic_data(
            "edge0", day("2029-05-31"), day("2029-06-01"), [channel], Resolution(1, Unit.DAYS)
        )
        return answer.data.get(channel)

    async def test_history_survives_a_restart(self) -> None:
        provider = self.make()
        await provider.start()
        provider.write("edge0", self.row(NOW - DAY // 2, P=5))
        await provider.stop()
        second = self.make(self.path)
        await second.start()
        await second.flush()
        self.assertEqual([5], await self.first_day(second))

    async def test_a_corrupt_file_is_moved_aside(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"this is no database" * 1000)
        provider = self.make(path)
        await provider.start()
        provider.write("edge0", self.row(NOW - DAY // 2, P=5))
        await provider.flush()
        self.assertEqual([5], await self.first_day(provider))
        self.assertTrue(os.path.exists(f"{path}.corrupt-{NOW}"))
        self.assertEqual(1, provider.debug_metrics()["timedata0/CorruptFiles"])

    async def test_a_file_that_breaks_while_running(self) -> None:
        provider = self.make()
        await provider.start()
        for minute in range(2_000):
            provider.write("edge0", self.row(NOW - 2 * DAY + minute * MINUTE, P=minute))
        await provider.flush()
        await self.first_day(provider)
        await provider.stop()
        size = os.path.getsize(self.path)
        with open(self.path, "r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (size - 4096))
        second = self.make(self.path)
        await second.start()
        second.write("edge0", self.row(NOW - DAY // 2, P=7))
        await second.flush()
        self.assertEqual([7], await self.first_day(second))

    async def test_a_path_that_cannot_be_written_costs_only_history(self) -> None:
        blocked = self.mktemp()
        with open(blocked, "w") as file:
            file.write("a file where a folder is wanted")
        provider = self.make(os.path.join(blocked, "history.db"), queue_rows=10, stop_patience=0.2)
        await provider.start()
        for i in range(20):
            provider.write("edge0", self.row(NOW - i, P=i))
        metrics = provider.debug_metrics()
        self.assertEqual((10, 10), (metrics["timedata0/Waiting"], metrics["timedata0/DroppedQueue"]))
        await self.assertFailure(Deferred.fromCoroutine(self.first_day(provider)), OpenemsError)
        await provider.stop()
        self.assertEqual(10, provider.debug_metrics()["timedata0/DroppedStopped"])

    async def test_trouble_that_ends(self) -> None:
        blocked = self.mktemp()
        with open(blocked, "w") as file:
            file.write("")
        provider = self.make(os.path.join(blocked, "history.db"))
        provider._writer._first_retry = 0.02
        await provider.start()
        provider.write("edge0", self.row(NOW - DAY // 2, P=5))
        while not provider.debug_metrics()["timedata0/Failures"]:
            waited: Deferred[None] = Deferred()
            reactor.callLater(0.01, waited.callback, None)  # type: ignore[attr-defined]
            await waited
        self.assertIn("CANNOT WRITE", provider.debug_log() or "")
        os.remove(blocked)
        await provider.flush()
        self.assertEqual([5], await self.first_day(provider))
        self.assertNotIn("CANNOT WRITE", provider.debug_log() or "")

    async def test_a_newer_file_is_left_alone(self) -> None:
        path = self.mktemp()
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        provider = self.make(path, stop_patience=0.2)
        await provider.start()
        provider.write("edge0", self.row(NOW, P=1))
        await provider.stop()
        connection = sqlite3.connect(path)
        self.assertEqual([(99,)], connection.execute("PRAGMA user_version").fetchall())
        connection.close()

    async def test_not_started(self) -> None:
        provider = self.make()
        failure = await self.assertFailure(Deferred.fromCoroutine(self.first_day(provider)), OpenemsError)
        self.assertEqual(1006, failure.code)

    async def test_metrics_count_what_was_not_stored(self) -> None:
        provider = self.make(max_channels=2)
        await provider.start()
        provider.write("edge0", self.row(NOW, A=1, B=float("nan"), C=10**18, D="x" * 5000, E={}))
        provider.write("edge0", self.row(NOW, A=1, F=1, G=1, H=1))
        provider.write("edge0", self.row(NOW + DAY, A=1))
        provider.write("e" * 300, self.row(NOW, A=1))
        await provider.flush()
        self.assertEqual(provider.writes.durations.count, provider.debug_metrics()["timedata0/Batches"])
        self.assertIsNotNone(provider.writes.last)
        metrics = {name.partition("/")[2]: value for name, value in provider.debug_metrics().items()}
        self.assertEqual(
            (2, 1, 1, 2, 1, 1, 3),
            tuple(
                metrics[name]
                for name in (
                    "DroppedNumber",
                    "DroppedText",
                    "DroppedType",
                    "DroppedChannels",
                    "DroppedTime",
                    "DroppedEdge",
                    "Rows",
                )
            ),
        )

    async def test_data_is_committed_without_being_asked_to(self) -> None:
        provider = self.make()
        await provider.start()
        provider.write("edge0", self.row(at("2029-05-31T12:00"), P=5))
        while provider.debug_metrics()["timedata0/Waiting"]:
            waited: Deferred[None] = Deferred()
            reactor.callLater(0.02, waited.callback, None)  # type: ignore[attr-defined]
            await waited
        self.assertEqual([5], await self.first_day(provider))

    async def test_a_query_has_an_end(self) -> None:
        self.patch(reader, "TIME_LIMIT", 0.0)
        provider = self.make()
        await provider.start()
        provider.write(
            "edge0", DataNotification(DataKind.RESEND, {NOW - DAY + i * 10: {"m/P": i} for i in range(60_000)})
        )
        await provider.flush()
        span = day("2029-05-31"), day("2029-06-02")
        failure = await self.assertFailure(
            Deferred.fromCoroutine(
                provider.query_historic_data("edge0", *span, ["m/P"], Resolution(7, Unit.SECONDS)),
            ),
            OpenemsError,
        )
        self.assertIn("took longer", failure.message)

    async def test_queries_are_bounded(self) -> None:
        provider = self.make()
        provider.MAX_QUERIES = 1  # type: ignore[misc]
        await provider.start()
        provider.write("edge0", self.row(NOW - DAY // 2, P=5))
        await provider.flush()
        first = Deferred.fromCoroutine(self.first_day(provider))
        failure = await self.assertFailure(Deferred.fromCoroutine(self.first_day(provider)), OpenemsError)
        self.assertEqual("Too many history queries are waiting", failure.message)
        self.assertEqual([5], await first)
        names = [f"m/C{i}" for i in range(100)]
        failure = await self.assertFailure(
            Deferred.fromCoroutine(
                provider.query_historic_data(
                    "edge0", day("2028-06-01"), day("2029-05-31"), names, Resolution(5, Unit.MINUTES)
                )
            ),
            OpenemsError,
        )
        self.assertIn("coarser resolution", failure.message)

    async def test_bad_values_are_logged_once_a_kind(self) -> None:
        lines: list[str] = []
        observer = lambda event: lines.append(event.get("reason", ""))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        provider = self.make()
        await provider.start()
        for i in range(5):
            provider.write("edge0", self.row(NOW - i, A=float("nan"), B="x" * 5000))
            await provider.flush()
        await provider.stop()
        self.assertEqual(["number", "text"], sorted(filter(None, lines)))

    async def test_a_full_disk(self) -> None:
        limit = 40
        open_for_writing = schema.open_for_writing

        def small_disk(path: str) -> sqlite3.Connection:
            connection = open_for_writing(path)
            connection.execute(f"PRAGMA max_page_count = {limit}")
            return connection

        self.patch(schema, "open_for_writing", small_disk)
        provider = self.make(queue_rows=20_000)
        provider._writer._first_retry = 0.02
        await provider.start()
        for index in range(50):
            provider.write("edge0", self.row(NOW - DAY // 2 + index, **{f"C{n}": n for n in range(600)}))
        while not provider.debug_metrics()["timedata0/Failures"]:
            waited: Deferred[None] = Deferred()
            reactor.callLater(0.01, waited.callback, None)  # type: ignore[attr-defined]
            await waited
        self.assertIn("CANNOT WRITE", provider.debug_log() or "")
        limit = 1_000_000
        await provider.flush()
        metrics = provider.debug_metrics()
        self.assertEqual(50 * 600, metrics["timedata0/Rows"] + metrics["timedata0/DroppedQueue"])
        self.assertEqual([7], await self.first_day(provider, "m/C7"))

    def test_kill_9_loses_at_most_the_last_second(self) -> None:
        path = self.mktemp()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, os.path.abspath(path)], stdout=subprocess.PIPE, env=environment
        )
        assert child.stdout is not None
        last = 0
        for line in child.stdout:
            last = int(line)
            if last >= 300:  # 5 ms each
                break
        child.kill()
        child.communicate()
        connection = schema.open_for_writing(path)
        stored = connection.execute("SELECT max(value), count(*) FROM number").fetchone()
        connection.close()
        self.assertEqual(stored[0], stored[1])
        self.assertGreaterEqual(stored[0], last - 200)


_CHILD = """
import sys, time
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.common.data import DataKind, DataNotification
now = lambda: int(time.time() * 1000)
provider = SqliteTimedata("timedata0", sys.argv[1], reactor=reactor, now=now)
written = 0
def write():
    global written
    written += 1
    provider.write("edge0", DataNotification(DataKind.TIMESTAMPED, {now() + written: {"m/P": written}}))
    print(written, flush=True)
Deferred.fromCoroutine(provider.start()).addCallback(lambda _: task.LoopingCall(write).start(0.005))
reactor.run()
"""
