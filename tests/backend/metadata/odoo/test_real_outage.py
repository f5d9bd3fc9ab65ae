"""Odoo's PostgreSQL is restarted again and again, or hangs, under the status of edges (T079)."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

from openems.common.errors import OpenemsError
from openems.common.role import Level
from openems.postgres import pool as pool_module
from openems.postgres.pool import Unavailable
from services.odoo import SERVICE
from tests.backend.metadata.odoo.world import OdooCase, pause, reactor
from tests.real import fresh

EDGES = 50
#: Status updates a second.
RATE = 100
#: Seconds that who asks may wait for a session and an answer.
PATIENCE = 3.0


class Restarted(OdooCase):
    timeout = 240

    async def load(self) -> None:
        """``EDGES`` edges of a real Odoo, which report from now on; ``self.last`` is the newest of each."""
        running = fresh("odoo")
        self.addCleanup(running.stop)
        metadata = await self.begin(running)
        self.ids = [self.inside.device() for _ in range(EDGES)]
        await self.until(lambda: metadata.get_edge(self.ids[-1][1]), 30)
        self.count = 0
        self.last: dict[int, tuple[str, str, bool]] = {}
        self.reporting = LoopingCall(self.report)
        self.reporting.start(0.1)
        self.addCleanup(self.silence)

    def silence(self) -> None:
        if self.reporting.running:
            self.reporting.stop()

    def report(self) -> None:
        for _ in range(RATE // 10):
            self.count += 1
            device, name = self.ids[self.count % EDGES]
            edge = self.metadata.get_edge(name)
            level = (Level.OK, Level.WARNING, Level.FAULT)[self.count % 3]
            product, online = f"product{self.count}", self.count % 7 > 0
            edge.set_producttype(product)
            edge.set_sum_state(level)
            edge.set_online(online)
            edge.set_lastmessage(int(time.time() * 1000))
            self.last[device] = (product, level.name.lower(), online)

    def rows(self) -> dict[int, tuple[str, str, bool]]:
        found = self.inside.sql(
            "SELECT id, producttype, openems_sum_state_level, openems_is_connected FROM openems_device"
            " WHERE id = ANY(%s)",
            list(self.last),
        )
        return {row[0]: tuple(row[1:]) for row in found}  # type: ignore[misc]

    async def ask(self, until: Any) -> tuple[int, int, float]:
        """Statements that were answered, that failed, and the longest anybody waited."""
        answered = failed = 0
        longest = 0.0
        while not until():
            began = time.monotonic()
            try:
                await self.metadata.pool.query("SELECT 1", timeout=PATIENCE)
                answered += 1
            except Unavailable:
                failed += 1
            longest = max(longest, time.monotonic() - began)
            await pause(0.05)
        return answered, failed, longest

    async def test_t079_restarted_five_times(self) -> None:
        self.patch(pool_module, "LAST_RETRY", 2.0)
        await self.load()
        over = False
        asking = [Deferred.fromCoroutine(self.ask(lambda: over)) for _ in range(5)]
        for _ in range(5):
            await pause(1.0)
            await deferToThread(SERVICE.stop_postgres, self.running)
            await pause(0.3)
            await deferToThread(SERVICE.resume_postgres, self.running)
            written = self.metadata.writer.written
            await self.until(lambda written=written: self.metadata.writer.written > written, 20)
        over = True
        for answered, failed, longest in await gatherResults(asking):
            self.assertGreater(answered, 0)
            self.assertGreater(failed, 0)
            # The reactor of this test is busy, too.
            self.assertLess(longest, PATIENCE + 2.0)
        self.silence()
        await self.until(lambda: not self.metadata.writer.waiting and self.rows() == self.last, 30)
        self.assertEqual(self.metadata.writer.dropped, 0)
        # A look for changed edges may be on its way just now; a session that leaked would stay busy.
        pool = self.metadata.pool
        await self.until(lambda: (pool.busy, pool.waiting) == (0, 0), 10)
        await self.until(lambda: not self.metadata.health(), 40)

    async def test_hangs(self) -> None:
        """It takes connections and statements and says nothing: who asks has a deadline, edges and lists go on, and
        what was reported meanwhile is written when it wakes up."""
        await self.load()
        metadata = self.metadata
        await self.until(lambda: metadata.writer.written)
        server = self.running.info["pg_process"].pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        everyone = [server, *map(int, children)]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        try:
            over = time.monotonic() + 6.0
            asked = [Deferred.fromCoroutine(self.ask(lambda: time.monotonic() > over)) for _ in range(20)]
            self.assertIsNotNone(metadata.edge_id_for_apikey(f"key-{self.ids[0][1]}"))
            for answered, failed, longest in await gatherResults(asked):
                self.assertEqual(answered, 0)
                self.assertGreater(failed, 0)
                self.assertLess(longest, PATIENCE + 2.0)
            self.assertGreater(metadata.writer.waiting, 0)
            self.assertLessEqual(metadata.pool.open, metadata.pool.size)
            with self.assertRaises(OpenemsError):
                metadata.log_generic_system_log("edge0815", None, "x", {})  # type: ignore[arg-type]
        finally:
            for pid in everyone:
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:
                    pass
        self.silence()
        await self.until(lambda: not metadata.writer.waiting and self.rows() == self.last, 60)
        self.assertEqual(metadata.writer.dropped, 0)
        await self.until(lambda: not metadata.health(), 40)
        self.assertTrue(reactor.running)
