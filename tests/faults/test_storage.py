"""Disks that are full or cannot be written: live data goes on, nothing stored is lost. Needs root for mounts."""

from __future__ import annotations

import datetime
import os
import subprocess

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.faults.backend import Faults
from tests.real import absent

TODAY = {"timezone": 0, "channels": ["_sum/EssSoc"], "resolution": {"value": 1, "unit": "MINUTES"}}


class Storage(Faults):
    def setUp(self) -> None:
        if os.geteuid() != 0:
            absent("mount", "only root may mount a file system")
        tried = subprocess.run(["unshare", "-m", "--propagation", "private", "true"], capture_output=True)
        if tried.returncode:
            absent("mount", tried.stderr.decode())

    async def stored(self) -> int:
        """Periods of this and the last hours that have a value."""
        now = datetime.datetime.now(datetime.UTC)
        dates = {"fromDate": str((now - datetime.timedelta(days=1)).date()), "toDate": str(now.date())}
        answer = await self.ui.edge_rpc("edge0", "queryHistoricTimeseriesData", {**TODAY, **dates})
        return sum(value is not None for value in answer["data"]["_sum/EssSoc"])

    async def until_health(self, code: int) -> str:
        for _ in range(200):
            status, body = await self.health()
            if status == code:
                return str(body)
            await deferLater(reactor, 0.1)  # type: ignore[arg-type]
        self.fail(f"health is not {code}: {await self.health()}")

    async def test_disk_full_and_free_again(self) -> None:
        await self.start(disk="6m")
        await self.until_health(200)
        self.delays.clear()
        filler = self.seen_by_process(f"{self.state}/filler")
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        self.assertIn("CANNOT WRITE", await self.until_health(503))
        await deferLater(reactor, 2)  # type: ignore[arg-type]
        self.assertIn("cannot write history", self.process.output)
        self.assertUntouched()
        filler.unlink()
        await self.until_health(200)
        self.assertGreater(await self.stored(), 0)

    async def test_read_only(self) -> None:
        await self.start(disk="6m")
        await self.until_health(200)
        await deferLater(reactor, 1.5)  # type: ignore[arg-type]
        mount = ["nsenter", "-t", str(self.transport.pid), "-m", "mount", "-o"]
        # Files that are open for writing keep a file system writable: so it is bound over itself.
        subprocess.run([*mount, "bind", self.state, self.state], check=True)
        subprocess.run([*mount, "remount,bind,ro", self.state], check=True)
        self.delays.clear()
        await deferLater(reactor, 3)  # type: ignore[arg-type]
        self.assertUntouched()
        self.assertGreater(await self.stored(), 0)
