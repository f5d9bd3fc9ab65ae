"""Files that are not as they should be: another program's, half made, not to be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.timedata.sqlite import leftover, schema
from openems.backend.timedata.sqlite.provider import SqliteTimedata
from openems.common.data import DataKind, DataNotification
from openems.common.resolution import Resolution, Unit
from tests.backend.timedata.conformance import DAY, NOW, day


class SchemaTests(SynchronousTestCase):
    def foreign(self, version: int) -> str:
        path = self.mktemp()
        connection = sqlite3.connect(path)
        connection.executescript(f"CREATE TABLE series (name TEXT); PRAGMA user_version = {version};")
        connection.close()
        return path

    def test_the_database_of_another_program_is_not_changed(self) -> None:
        for version in (0, 1, 7):
            path = self.foreign(version)
            before = Path(path).read_bytes()
            self.assertRaises(schema.UnknownVersion, schema.open_for_writing, path)
            self.assertEqual(before, Path(path).read_bytes())
            self.assertFalse(os.path.exists(path + "-wal"))

    def test_a_file_whose_making_was_interrupted(self) -> None:
        empty, begun = self.mktemp(), self.mktemp()
        Path(empty).touch()
        connection = sqlite3.connect(begun)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        for path in (empty, begun):
            schema.open_for_writing(path).close()
            connection = schema.open_for_reading(path)
            self.assertEqual([], connection.execute("SELECT * FROM series").fetchall())
            connection.close()

    def test_killed_while_it_is_made(self) -> None:
        path = self.mktemp()
        script = (
            "import os, sys\nfrom openems.backend.timedata.sqlite import schema\n"
            "schema._TABLES += 'SELECT quit();'\nimport sqlite3\nreal = sqlite3.connect\n"
            "def connect(*args, **options):\n"
            "    connection = real(*args, **options)\n"
            "    connection.create_function('quit', 0, lambda: os._exit(9))\n"
            "    return connection\n"
            "sqlite3.connect = connect\nschema.open_for_writing(sys.argv[1])\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", script, os.path.abspath(path)], env=environment, check=False)
        self.assertEqual(9, done.returncode)
        schema.open_for_writing(path).close()


class ProviderTests(TestCase):
    timeout = 60  # type: ignore[assignment]

    def make(self, path: str, id: str = "timedata0", **options: Any) -> SqliteTimedata:
        provider = SqliteTimedata(id, path, reactor=reactor, now=lambda: NOW, **options)
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        return provider

    async def test_one_that_cannot_write_does_not_hurt_the_other(self) -> None:
        """The database of another program first, then a good one: both are asked, writes go to both."""
        path = self.mktemp()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE other (x)")
        connection.close()
        bad, good = self.make(path, stop_patience=0.1), self.make(self.mktemp(), "timedata1")
        await bad.start()
        await good.start()
        manager = TimedataManager([bad, good])
        manager.write("edge0", DataNotification(DataKind.TIMESTAMPED, {NOW - DAY // 2: {"m/P": 5}}))
        await good.flush()
        answer = await manager.query_historic_data(
            "edge0", day("2029-05-31"), day("2029-06-01"), ["m/P"], Resolution(1, Unit.DAYS)
        )
        self.assertEqual({"m/P": [5]}, answer.data)
        self.assertEqual({}, manager.write_failures)
        self.assertIn("CANNOT WRITE", bad.debug_log() or "")
        await bad.stop()
        connection = sqlite3.connect(path)
        self.assertEqual([("other",)], connection.execute("SELECT name FROM sqlite_master").fetchall())
        connection.close()

    async def test_a_file_that_may_only_be_read_answers(self) -> None:
        path = self.mktemp()
        first = self.make(path)
        await first.start()
        first.write("edge0", DataNotification(DataKind.TIMESTAMPED, {NOW - DAY // 2: {"m/P": 5}}))
        await first.stop()
        read_only = schema.open_for_writing

        def refused(path: str) -> sqlite3.Connection:
            connection = read_only(path)
            connection.execute("PRAGMA query_only = 1")
            return connection

        self.patch(schema, "open_for_writing", refused)
        second = self.make(path, stop_patience=0.1)
        await second.start()
        second.write("edge0", DataNotification(DataKind.TIMESTAMPED, {NOW: {"m/P": 6}}))
        answer = await second.query_historic_data(
            "edge0", day("2029-05-31"), day("2029-06-01"), ["m/P"], Resolution(1, Unit.DAYS)
        )
        self.assertEqual({"m/P": [5]}, answer.data)
        await second.stop()
        # What it took waits beside the file.
        self.patch(schema, "open_for_writing", read_only)
        third = self.make(path)
        await third.start()
        while os.path.exists(leftover.path_of(path)):
            waited: Deferred[None] = Deferred()
            reactor.callLater(0.01, waited.callback, None)  # type: ignore[attr-defined]
            await waited
        answer = await third.query_first_value_before("edge0", day("2029-06-02"), ["m/P"])
        self.assertEqual({"m/P": 6}, answer)
