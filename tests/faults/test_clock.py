"""Somebody sets the clock of the machine while the backend runs."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.alerting.rules import OfflineRules, Stopwatch
from openems.backend.events import EventBus
from openems.backend.models import Edge, UserAlertingSettings
from openems.common.data import rows_of
from openems.testing.uiclient import UiClient
from tests.faults.backend import Faults

HOUR = 3_600_000
NOW = 1_795_608_000_000


class Steps(Faults):
    async def step(self, milliseconds: int) -> None:
        """Nobody loses a connection or waits, timers go on, what comes is stored, sessions stay valid."""
        edge, ui = self.edge.connection, self.ui.connection
        self.clock.write_text(str(milliseconds))
        self.delays.clear()
        before = len(self.stored_times())
        await deferLater(reactor, 4)  # type: ignore[arg-type]
        self.assertUntouched()
        self.assertIs(self.edge.connection, edge)
        self.assertIs(self.ui.connection, ui)
        self.assertEqual((await self.ui.request("getEdge", {"edgeId": "edge0"}))["edge"]["isOnline"], True)
        self.assertGreater(len(self.stored_times()), before + 20)
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


class Stamps(SynchronousTestCase):
    """What is measured by the clock of the wall, because it must survive a restart."""

    def setUp(self) -> None:
        self.rules = OfflineRules()
        self.settings = [UserAlertingSettings(edge_id="edge0", user_login="user0", offline_delay=15)]

    def told(self, now: int) -> list[str]:
        found = []
        for edge_id in self.rules.due(now):
            since = self.rules.entries[edge_id].since
            logins = [recipient.login for recipient in self.rules.choose(edge_id, self.settings, now)]
            self.rules.handed_over(edge_id, since, logins, now)
            found += logins
        return found

    def test_nobody_is_told_twice(self) -> None:
        self.rules.begin("edge0", NOW, NOW, self.settings, NOW)
        for now in (NOW - HOUR, NOW, NOW + HOUR, NOW - HOUR, NOW + 2 * HOUR):
            told = self.told(now)
            self.assertEqual(told, ["user0"] if now == NOW + HOUR else [])

    def test_a_stopwatch_never_runs_backwards(self) -> None:
        watch = Stopwatch()
        watch.run(NOW)
        watch.pause(NOW - HOUR)
        self.assertEqual(watch.elapsed, 0)
        watch.run(NOW - HOUR)
        watch.pause(NOW)
        self.assertEqual(watch.elapsed, HOUR)

    def test_last_message_only_grows(self) -> None:
        edge = Edge("edge0", EventBus())
        for now in (NOW, NOW - HOUR, NOW + HOUR, NOW):
            edge.set_lastmessage(now)
        self.assertEqual(edge.lastmessage, (NOW + HOUR) // 60_000 * 60_000)

    def test_rows_of_an_edge_that_is_ahead(self) -> None:
        """An hour is believed, more is left out and counted: it would be there when the time really comes."""
        params = {str(NOW + HOUR): {"a/B": 1}, str(NOW + HOUR + 1): {"a/B": 2}, str(NOW): {"a/B": 3}}
        rows, dropped = rows_of(params, NOW)
        self.assertEqual((sorted(rows), dropped), ([NOW, NOW + HOUR], {"time": 1}))
