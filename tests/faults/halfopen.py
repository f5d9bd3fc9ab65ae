"""A peer that vanishes without a word. To be run in a network of its own, by tests.faults.test_links."""

from __future__ import annotations

import subprocess
import time
from typing import Any

from twisted.internet.defer import Deferred

from tests.faults.backend import Faults

#: Seconds between pings, and how old a pong may be; in real life 60 and 90.
PING = (1.0, 1.5)


class HalfOpen(Faults):
    async def online(self) -> bool:
        return bool((await self.ui.request("getEdge", {"edgeId": "edge1"}))["edge"]["isOnline"])

    async def until_online(self, wanted: bool, seconds: float) -> None:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        end = time.monotonic() + seconds
        while await self.online() is not wanted:
            self.assertLess(time.monotonic(), end, f"not {'online' if wanted else 'offline'} in time")
            await deferLater(reactor, 0.1)  # type: ignore[arg-type]

    async def test_it_is_offline_in_time(self) -> None:
        subprocess.run(["ip", "address", "add", "10.9.9.1/32", "dev", "lo"], check=True)
        await self.start(launcher=["--ping", *map(str, PING)])
        attack: Deferred[Any] = Deferred.fromCoroutine(self.attack("vanishing"))
        await self.until_online(True, 5)
        # It answers pings for a second yet.
        await self.until_online(False, 1 + sum(PING) + 2)
        self.assertIn("silent, dropped", self.process.output)
        self.assertFalse(attack.called, "it has not closed anything")
        self.assertUntouched()
        await attack
