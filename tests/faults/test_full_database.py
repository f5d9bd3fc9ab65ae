"""The disk of the database's server is full: what we say, and that nothing is lost. Needs root for mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as LateError
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from openems.application.components import history_components
from openems.backend.timedata import spoolretry
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
from openems.common.data import DataKind, DataNotification
from openems.postgres import pool as pool_module
from services import known
from tests.backend.timedata.conformance import DAY, HOUR, NOW
from tests.backend.timedata.influx.servers import Bucket
from tests.faults.smalldisk import SmallDisk
from tests.postgres.databases import run_sql
from tests.real import absent

START = NOW - 2 * HOUR
CHANNELS = 25


def wait(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)  # type: ignore[arg-type]


class FullDisk(TestCase):
    """``put`` writes a row of 25 values; ``taken`` counts them."""

    timeout = 60  # type: ignore[assignment]
    provider: Any

    def begin(self, service: str, size: str, place: str = "") -> None:
        if os.geteuid() != 0:
            absent("mount", "only root may mount a file system")
        tried = subprocess.run(["unshare", "-m", "--propagation", "private", "true"], capture_output=True)
        if tried.returncode:
            absent("mount", tried.stderr.decode())
        if not known()[service].installed():
            absent(service, f"not installed; ./dev services {service} installs it")
        self.patch(spoolretry, "MAX_RETRY", 0.5)
        self.patch(pool_module, "LAST_RETRY", 0.5)
        folder = tempfile.mkdtemp(prefix="openems-small-")
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.disk = SmallDisk(service, size, Path(folder), place)
        self.addCleanup(self.disk.stop)
        self.taken = 0
        self.lines: list[str] = []
        observer = lambda event: self.lines.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    async def start(self, provider: Any) -> None:
        self.provider = provider
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        await provider.start()
        self.put()
        await provider.flush()

    def put(self, time: int = START) -> None:
        row: Any = {f"m0/C{n}": self.taken + n for n in range(CHANNELS)}
        self.provider.write("edge7", DataNotification(DataKind.TIMESTAMPED, {time + self.taken: row}))
        self.taken += CHANNELS

    async def under_load(self, ready: Any, seconds: float = 20.0) -> None:
        """Rows all the time until ``ready``; nobody has to wait for the database meanwhile."""
        gaps: list[float] = []
        last = [reactor.seconds()]  # type: ignore[attr-defined]

        def some() -> None:
            now = reactor.seconds()  # type: ignore[attr-defined]
            gaps.append(now - last[0])
            last[0] = now
            for _ in range(8):
                self.put()

        load = LoopingCall(some)
        load.start(0.02)
        try:
            for _ in range(int(seconds / 0.1)):
                await wait(0.1)
                if ready():
                    break
            else:
                self.fail(self.provider.debug_log())
        finally:
            load.stop()
        self.assertLess(max(gaps), 1.0)

    def waits(self, text: str) -> bool:
        """It says so, and values wait on disk."""
        said = self.provider.debug_log() or ""
        return "CANNOT WRITE" in said and text in said and self.provider.debug_metrics()["timedata0/WaitingOnDisk"] > 0

    def assertTold(self, text: str) -> None:
        """In the log once, and as a component that does not work on the page for monitors."""
        lines = [line for line in self.lines if "cannot write history" in line and text in line]
        self.assertEqual(1, len(lines), self.lines)
        self.assertIn("values wait", lines[0])
        [component] = history_components([self.provider]).values()
        self.assertFalse(component.ok)
        self.assertIn(text, component.state)

    async def assertAllWritten(self, count: Any) -> None:
        flushed = Deferred.fromCoroutine(self.provider.flush())
        flushed.addTimeout(30, reactor)  # type: ignore[arg-type]
        try:
            await flushed
        except LateError:
            self.fail(f"not all is written: {self.provider.debug_log()}")
        self.assertEqual(self.taken, count())
        metrics = self.provider.debug_metrics()
        self.assertEqual({}, {name: n for name, n in metrics.items() if "/Dropped" in name and n})
        self.assertEqual(0, metrics["timedata0/Waiting"])
        self.assertNotIn("CANNOT", self.provider.debug_log() or "")


class InfluxTests(FullDisk):
    async def influx(self, service: str) -> None:
        self.begin(service, "64m")
        self.bucket = Bucket(self.disk)  # type: ignore[arg-type]
        options = self.bucket.options
        await self.start(InfluxTimedata("timedata0", Path(self.mktemp()), reactor=reactor, now=lambda: NOW, **options))

    def count(self) -> int:
        fields = ", ".join(f'COUNT("m0/C{n}")' for n in range(CHANNELS))
        return sum(sum(row[1:]) for row in self.bucket.query(f'SELECT {fields} FROM "data"'))

    async def full(self, service: str, time: int) -> None:
        """InfluxDB does not write again by itself once its log of writes, or a new shard, did not fit."""
        await self.influx(service)
        await deferToThread(self.disk.ask, "fill")
        self.put(time)
        await self.under_load(lambda: self.waits("make room and restart InfluxDB"))
        self.assertTold("the disk of the server is full")
        self.assertTold("no space left on device")
        await deferToThread(self.disk.ask, "free")
        await deferToThread(self.disk.ask, "again")
        await self.assertAllWritten(self.count)

    async def test_influxdb2(self) -> None:
        await self.full("influxdb2", START)

    async def test_influxdb2_a_new_shard(self) -> None:
        await self.full("influxdb2", START - 40 * DAY)

    async def test_influxdb1(self) -> None:
        await self.full("influxdb1", START)


class PostgresqlTests(FullDisk):
    async def history(self, size: str, place: str = "") -> None:
        self.begin("postgresql", size, place)
        space = ""
        if place:
            run_sql(self.disk, f"CREATE TABLESPACE small LOCATION '{self.disk.directory / place}'")  # type: ignore[arg-type]
            space = " TABLESPACE small"
        run_sql(self.disk, f"CREATE DATABASE history{space}")  # type: ignore[arg-type]
        await self.start(
            TimescaledbTimedata(
                "timedata0",
                Path(self.mktemp()),
                host="127.0.0.1",
                port=self.disk.port,
                user="postgres",
                password="secret",
                database="history",
                batch_delay=0.05,
                reactor=reactor,
                now=lambda: NOW,
            )
        )

    def count(self) -> int:
        [(count,)] = run_sql(self.disk, "SELECT count(*) FROM ts_num", database="history")  # type: ignore[arg-type]
        return int(count)

    async def test_tables_do_not_fit(self) -> None:
        await self.history("64m", "small")
        await deferToThread(self.disk.ask, "fill")
        await self.under_load(lambda: self.waits("No space left on device"))
        self.assertTold("No space left on device")
        self.assertIn("The server has no room left", self.provider.debug_log() or "")
        self.assertTrue(await deferToThread(self.disk.ask, "alive"))
        await deferToThread(self.disk.ask, "free")
        await self.assertAllWritten(self.count)

    async def test_the_log_of_the_server_does_not_fit(self) -> None:
        """PostgreSQL ends itself then: to us it is away, until it is started again with room."""
        await self.history("160m")
        await deferToThread(self.disk.ask, "fill")
        gone = 0

        def ended() -> bool:
            nonlocal gone
            try:
                run_sql(self.disk, "SELECT pg_switch_wal()")  # type: ignore[arg-type]
            except Exception:
                gone += 1
            return gone > 10 and self.waits("")

        await self.under_load(ended)
        self.assertRegex(self.provider.debug_log() or "", "refused|starting up|recovery mode|closed the connection")
        self.assertIn("values wait", next(line for line in self.lines if "cannot write history" in line))
        await deferToThread(self.disk.ask, "free")
        if not await deferToThread(self.disk.ask, "alive"):
            await deferToThread(self.disk.ask, "again")
        await self.assertAllWritten(self.count)
