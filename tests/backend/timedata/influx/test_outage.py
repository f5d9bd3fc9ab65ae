"""T073: the server, or we, end in the middle of it. Everything is counted afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.common.data import DataKind, DataNotification
from openems.common.errors import OpenemsError
from openems.common.resolution import Resolution, Unit
from services import known
from services.framework import end
from tests.backend.timedata.conformance import NOW, at, day
from tests.backend.timedata.influx.servers import Bucket
from tests.real import fresh

BASE = at("2026-06-01")


def wait(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)  # type: ignore[arg-type]


class OutageTests:
    SERVICE = "influxdb2"

    def setUp(self) -> None:
        self.running = fresh(self.SERVICE)
        self.addCleanup(self.running.stop)  # type: ignore[attr-defined]
        self.bucket = Bucket(self.running)

    async def make(self, path: Path, **options: Any) -> InfluxTimedata:
        provider = InfluxTimedata(
            "timedata0", path, reactor=reactor, now=lambda: NOW, **{**self.bucket.options, **options}
        )
        await provider.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(provider.stop()))  # type: ignore[attr-defined]
        return provider

    async def resume(self) -> None:
        await deferToThread(known()[self.SERVICE].resume, self.running)  # type: ignore[attr-defined]

    def count(self) -> Any:
        return self.bucket.query('SELECT COUNT("a0/B") FROM "data"')[0][1]

    async def under_load(self, provider: InfluxTimedata, trouble: Any) -> int:
        """Puts a row each few ms while ``trouble`` goes on; how many were taken."""
        taken = 0
        gaps: list[float] = []
        last = [reactor.seconds()]  # type: ignore[attr-defined]

        def put() -> None:
            nonlocal taken
            now = reactor.seconds()  # type: ignore[attr-defined]
            gaps.append(now - last[0])
            last[0] = now
            for _ in range(5):
                provider.write("edge7", DataNotification(DataKind.TIMESTAMPED, {BASE + taken: {"a0/B": taken}}))
                taken += 1

        load = LoopingCall(put)
        load.start(0.01)
        try:
            await wait(0.7)
            await trouble()
            await wait(0.7)
        finally:
            load.stop()
        # Nobody else had to wait for the database.
        self.assertLess(max(gaps), 1.0)  # type: ignore[attr-defined]
        return taken

    async def test_the_server_is_killed_and_comes_back(self) -> None:
        provider = await self.make(Path(self.mktemp()))  # type: ignore[attr-defined]

        async def trouble() -> None:
            self.running.signal(signal.SIGKILL)
            await wait(1.5)
            self.assertIn("CANNOT WRITE", provider.debug_log() or "")  # type: ignore[attr-defined]
            self.assertGreater(provider.debug_metrics()["timedata0/Waiting"], 100)  # type: ignore[attr-defined]
            asked = Deferred.fromCoroutine(
                provider.query_historic_data("edge7", day("2026-06-01"), day("2026-06-02"), ["a0/B"],
                                             Resolution(1, Unit.HOURS))
            )  # fmt: skip
            await self.assertFailure(asked, OpenemsError)  # type: ignore[attr-defined]
            await self.resume()

        taken = await self.under_load(provider, trouble)
        await provider.flush()
        self.assertEqual((taken, {}), (self.count(), provider.dropped))  # type: ignore[attr-defined]
        self.assertNotIn("CANNOT WRITE", provider.debug_log() or "")  # type: ignore[attr-defined]

    async def test_the_server_is_stopped_and_started(self) -> None:
        provider = await self.make(Path(self.mktemp()))  # type: ignore[attr-defined]

        async def trouble() -> None:
            await deferToThread(end, self.running._processes[-1])
            await wait(1.0)
            await self.resume()

        taken = await self.under_load(provider, trouble)
        await provider.flush()
        self.assertEqual((taken, {}), (self.count(), provider.dropped))  # type: ignore[attr-defined]

    async def test_the_server_hangs(self) -> None:
        provider = await self.make(Path(self.mktemp()))  # type: ignore[attr-defined]

        async def trouble() -> None:
            self.running.signal(signal.SIGSTOP)
            await wait(2.5)
            # What is being written is on disk by now, too.
            self.assertLess(provider._spool.unsafe, 1_500)  # type: ignore[attr-defined]
            self.running.signal(signal.SIGCONT)

        taken = await self.under_load(provider, trouble)
        await provider.flush()
        self.assertEqual((taken, {}), (self.count(), provider.dropped))  # type: ignore[attr-defined]

    async def test_we_are_killed_while_the_server_is_away(self) -> None:
        path = Path(self.mktemp()).absolute()  # type: ignore[attr-defined]
        options = self.bucket.options
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [
            sys.executable,
            "-c",
            CHILD,
            str(path),
            *(options[key] for key in ("url", "bucket", "org", "api_key")),
        ]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert child.stdout is not None
        safe = 0
        killed = False
        for line in child.stdout:
            taken, safe = map(int, line.split())
            if taken > 1_000 and not killed:
                killed = True
                self.running.signal(signal.SIGKILL)
            if safe > 4_000:
                break
        child.kill()
        child.communicate()
        await self.resume()
        provider = await self.make(path)
        self.assertGreater(provider.debug_metrics()["timedata0/Waiting"], 1_000)  # type: ignore[attr-defined]
        await provider.flush()
        rows = self.bucket.query('SELECT "a0/B" FROM "data"')
        self.assertLessEqual(set(range(safe)), {row[1] for row in rows})  # type: ignore[attr-defined]


CHILD = """
import sys
from pathlib import Path
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.common.data import DataKind, DataNotification
from tests.backend.timedata.influx.test_outage import BASE, NOW
path, url, bucket, org, api_key = sys.argv[1:]
provider = InfluxTimedata("timedata0", Path(path), url=url, bucket=bucket, org=org, api_key=api_key, reactor=reactor,
                          now=lambda: NOW)
taken = 0
def put():
    global taken
    for _ in range(10):
        provider.write("edge7", DataNotification(DataKind.TIMESTAMPED, {BASE + taken: {"a0/B": taken}}))
        taken += 1
    print(taken, taken - provider._spool.unsafe, flush=True)
Deferred.fromCoroutine(provider.start()).addCallback(lambda _: task.LoopingCall(put).start(0.01))
reactor.run()
"""


class Influxdb2OutageTests(OutageTests, TestCase):
    timeout = 60


class Influxdb1OutageTests(OutageTests, TestCase):
    SERVICE = "influxdb1"
    timeout = 60
