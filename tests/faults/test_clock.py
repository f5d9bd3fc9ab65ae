"""Somebody sets the clock of the machine while the backend runs."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater

from openems.testing.uiclient import UiClient
from tests.faults.backend import Faults

HOUR = 3_600_000


class Steps(Faults):
    async def step(self, milliseconds: int) -> None:
        """Nobody loses a connection or waits, timers go on, what comes is stored, sessions stay valid."""
        edge, ui = self.edge.connection, self.ui.connection
        self.clock.write_text(str(milliseconds))
        self.delays.clear()
        before = len(self.stored())
        await deferLater(reactor, 4)  # type: ignore[arg-type]
        self.assertUntouched()
        self.assertIs(self.edge.connection, edge)
        self.assertIs(self.ui.connection, ui)
        self.assertEqual((await self.ui.request("getEdge", {"edgeId": "edge0"}))["edge"]["isOnline"], True)
        self.assertGreater(len(self.stored()), before + 20)
        self.assertEqual((await self.health())[0], 200)
        await self.other.request("authenticateWithToken", {"token": self.token})

    async def test_back_and_forth(self) -> None:
        self.clock = Path(self.mktemp()).absolute()
        self.clock.write_text("0")
        await self.start(launcher=["--clock", str(self.clock), "--ping", "1", "2.5"])
        # Another tab: who logs in again has no subscriptions.
        self.other = UiClient(f"ws://127.0.0.1:{self.port(8082)}", reactor)
        self.addCleanup(self.other.close)
        await self.other.connect()
        self.token = (await self.other.login("admin", "secret"))["token"]
        # Data of an edge that is more than an hour ahead would rightly be left out.
        await self.step(-HOUR // 2)
        await self.step(2 * HOUR)
        await self.step(-HOUR // 2)
        self.assertNotIn("silent", self.process.output)
        self.assertNotIn("Traceback", self.process.output)
        await self.end()
        self.assertEqual(self.process.code, 0)
