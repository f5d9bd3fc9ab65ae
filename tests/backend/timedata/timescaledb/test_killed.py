"""Our own process killed with -9 under load, with and without its database: what it called safe is there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openems.backend.timedata import spoolretry
from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
from openems.postgres import pool as pool_module
from tests.backend.timedata.conformance import HOUR, NOW
from tests.postgres.databases import again, database, run_sql
from tests.real import fresh, real

ROOT = Path(__file__).parents[4]
START = NOW - HOUR


class KilledTests(TestCase):
    timeout = 120  # type: ignore[assignment]

    def begin(self, port: int, name: str, folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.backend.timedata.timescaledb.writing", str(port), name]
        process = subprocess.Popen([*command, str(folder), str(START)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def read(self, process: subprocess.Popen[str], seconds: float) -> int:
        """The last number of so many seconds from the first one on. Blocks."""
        assert process.stdout is not None
        last = int(process.stdout.readline())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            last = int(process.stdout.readline())
        return last

    def kill(self, process: subprocess.Popen[str]) -> int:
        """The last number it printed."""
        assert process.stdout is not None
        process.send_signal(signal.SIGKILL)
        lines = [line for line in process.stdout.read().split("\n")[:-1] if line]
        process.wait()
        process.stdout.close()
        return int(lines[-1]) if lines else 0

    async def finish(self, port: int, name: str, folder: Path) -> None:
        provider = TimescaledbTimedata(
            "timedata0",
            folder,
            host="127.0.0.1",
            port=port,
            user="postgres",
            password="secret",
            database=name,
            lookback_days=36_500,
            reactor=reactor,
            now=lambda: NOW,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))
        await provider.start()
        await provider.flush()

    async def test_under_load(self) -> None:
        server = real("postgresql")
        name = database(self, server, "killed")
        folder = Path(self.mktemp()).absolute()
        process = self.begin(server.port, name, folder)
        safe = await deferToThread(self.read, process, 2.0)
        safe = max(safe, self.kill(process))
        self.assertGreater(safe, 10_000)
        await self.finish(server.port, name, folder)
        [(count,)] = run_sql(server, "SELECT count(*) FROM ts_num", database=name)
        self.assertGreaterEqual(count, safe)

    async def test_while_the_database_is_away(self) -> None:
        self.patch(spoolretry, "MAX_RETRY", 0.5)
        self.patch(pool_module, "LAST_RETRY", 0.5)
        server = fresh("postgresql")
        self.addCleanup(server.stop)
        run_sql(server, "CREATE DATABASE history")
        folder = Path(self.mktemp()).absolute()
        process = self.begin(server.port, "history", folder)
        before = await deferToThread(self.read, process, 1.0)
        server.signal(signal.SIGKILL)
        safe = await deferToThread(self.read, process, 4.0)
        safe = max(safe, self.kill(process))
        self.assertGreater(safe, before + 10_000)
        again(server)
        await self.finish(server.port, "history", folder)
        [(count,)] = run_sql(server, "SELECT count(*) FROM ts_num", database="history")
        self.assertGreaterEqual(count, safe)
