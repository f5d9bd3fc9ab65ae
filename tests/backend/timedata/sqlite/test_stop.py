"""A stop has an end, and loses nothing that the disk could take."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.backend.timedata.sqlite import leftover
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.backend.timedata.sqlite.reader import Question
from openems.backend.timedata.sqlite.store import Store
from openems.backend.timedata.sqlite.writer import Writer
from openems.common.data import DataKind, DataNotification
from openems.common.errors import OpenemsError
from tests.backend.timedata.conformance import NOW

VALUES = 60_000
DATA = DataNotification(DataKind.RESEND, {NOW - 1_000_000 + i: {"m0/A": i, "m0/B": -i} for i in range(VALUES // 2)})


class StopTests(TestCase):
    timeout = 60  # type: ignore[assignment]

    def setUp(self) -> None:
        self.path = self.mktemp()

    def make(self, **options: Any) -> SqliteTimedata:
        provider = SqliteTimedata("timedata0", self.path, reactor=reactor, now=lambda: NOW, **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        return provider

    def stored(self) -> int:
        connection = sqlite3.connect(self.path)
        try:
            return int(connection.execute("SELECT count(*) FROM number").fetchone()[0])
        finally:
            connection.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            waited: Deferred[None] = Deferred()
            reactor.callLater(0.01, waited.callback, None)  # type: ignore[attr-defined]
            await waited

    async def test_what_there_was_no_time_for_is_written_at_the_next_start(self) -> None:
        provider = self.make(stop_patience=0.0)
        await provider.start()
        provider.write("edge0", DATA)
        await provider.stop()
        self.assertTrue(os.path.exists(leftover.path_of(self.path)))
        self.assertLess(self.stored(), VALUES)
        self.assertNotIn("timedata0/DroppedStopped", provider.debug_metrics())
        second = self.make()
        await second.start()
        await self.until(lambda: not os.path.exists(leftover.path_of(self.path)))
        await second.stop()
        self.assertEqual(VALUES, self.stored())

    async def test_a_little_is_written_at_once(self) -> None:
        provider = self.make()
        await provider.start()
        provider.write("edge0", DataNotification(DataKind.RESEND, {NOW - i: {"m0/A": i} for i in range(20_000)}))
        await provider.stop()
        self.assertEqual(20_000, self.stored())
        self.assertFalse(os.path.exists(leftover.path_of(self.path)))

    async def test_a_stop_that_has_time_for_a_part(self) -> None:
        self.patch(Writer, "LAST_VALUES", VALUES)
        provider = self.make(stop_patience=0.0)
        await provider.start()
        provider.write("edge0", DATA)
        await provider.stop()
        left = sum(len(row) for part in leftover.load(self.path) for i in part for row in i[2].values())
        self.assertEqual(VALUES, self.stored() + left)

    async def test_a_stop_while_the_last_run_is_taken_over(self) -> None:
        for run in range(3):
            provider = self.make(stop_patience=0.0)
            await provider.start()
            provider.write(f"edge{run}", DATA)
            await provider.stop()
        last = self.make()
        await last.start()
        await self.until(lambda: not os.path.exists(leftover.path_of(self.path)))
        await last.stop()
        self.assertEqual(3 * VALUES, self.stored())

    async def test_a_write_that_hangs_ends_when_the_time_is_over(self) -> None:
        begun, interrupted = threading.Event(), threading.Event()

        def hang(store: Store, items: Any, now: int) -> None:
            begun.set()
            interrupted.wait(30)
            raise sqlite3.OperationalError("interrupted")

        self.patch(Store, "interrupt", lambda store: interrupted.set())
        self.patch(Store, "apply", hang)
        provider = self.make(stop_patience=0.1)
        await provider.start()
        provider.write("edge0", DATA)
        await self.until(begun.is_set)
        await provider.stop()
        self.assertTrue(interrupted.is_set())
        self.assertEqual(
            VALUES, sum(len(row) for part in leftover.load(self.path) for i in part for row in i[2].values())
        )

    async def test_a_query_under_way_ends_with_1006(self) -> None:
        provider = self.make()
        await provider.start()
        begun = threading.Event()

        def for_ever(view: Question) -> None:
            while True:
                view._execute("SELECT 1").fetchone()
                begun.set()

        queries = [Deferred.fromCoroutine(provider._ask(for_ever)) for _ in range(3 * provider.READERS)]
        await self.until(begun.is_set)
        await provider.stop()
        for query in queries:
            failure = await self.assertFailure(query, OpenemsError)
            self.assertEqual(1006, failure.code)

    async def test_a_stopping_writer_rolls_nothing_up(self) -> None:
        provider = self.make()
        await provider.start()
        await self.until(lambda: provider._writer._store is not None)
        self.patch(Store, "roll", lambda *_: self.fail("rolled up"))
        self.patch(Store, "expire", lambda *_: self.fail("expired"))
        self.patch(Writer, "COMMIT_DELAY", 60.0)
        self.patch(Writer, "LAST_VALUES", VALUES)
        provider.write("edge0", DATA)
        await provider.stop()
        self.assertEqual(VALUES, self.stored())


class LeftoverTests(SynchronousTestCase):
    def test_it_grows_and_damage_costs_what_is_damaged(self) -> None:
        path = self.mktemp()
        first, second = ("edge0", DataKind.RESEND, {1: {"a/B": 1}}), ("edge0", DataKind.RESEND, {2: {"a/B": "x"}})
        leftover.save(path, [first], 5)
        size = os.path.getsize(leftover.path_of(path))
        leftover.save(path, [second], 6)
        self.assertEqual([[first], [second]], list(leftover.load(path)))
        whole = Path(leftover.path_of(path)).read_bytes()
        Path(leftover.path_of(path)).write_bytes(whole[: size - 3] + b"\0" + whole[size - 2 :] + whole[:20])
        self.assertEqual([[second]], list(leftover.load(path)))
        leftover.remove(path)
        leftover.remove(path)
        self.assertEqual([], list(leftover.load(path)))

    def test_it_has_a_bound_and_keeps_what_it_has(self) -> None:
        path = self.mktemp()
        item = ("edge0", DataKind.RESEND, {1: {"a/B": 1}})
        leftover.save(path, [item], 5)
        self.patch(leftover, "MAX_BYTES", 100)
        self.assertRaises(OSError, leftover.save, path, [item] * 50_000, 5)
        self.assertEqual([[item]], list(leftover.load(path)))
