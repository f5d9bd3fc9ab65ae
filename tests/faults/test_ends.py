"""The process ends without being asked: what was answered is there when it comes back."""

from __future__ import annotations

import random
import signal
import time

from twisted.internet import reactor
from twisted.internet.task import deferLater

from openems.common.errors import OpenemsError
from tests.faults.backend import Faults

MEGABYTE = 1_000_000


class Ends(Faults):
    async def come_back(self) -> None:
        """A new process with the same state, and the witnesses find it."""
        self.spawn()
        await self.until(lambda: self.ui.connected and self.edge.connection is not None)
        await self.ui.login("admin", "secret")

    async def settings(self) -> dict[str, object]:
        user = (await self.ui.login("admin", "secret"))["user"]
        return dict(user["settings"])


class Killed(Ends):
    timeout = 240

    async def change_until(self, end: float, number: int) -> tuple[int, int]:
        """Settings, one after the other, as fast as they are answered; the last answered and the last sent number."""
        answered = number
        while time.monotonic() < end:
            number += 1
            try:
                await self.ui.request("updateUserSettings", {"settings": {"number": number}})
            except (OpenemsError, ConnectionError):
                break
            answered = number
        return answered, number

    async def test_ten_times_at_any_moment(self) -> None:
        """Settings: each that was answered. History: all but the last second. Nothing is broken by it."""
        await self.start()
        generator = random.Random(int(time.time()))
        number = 0
        for turn in range(10):
            seconds = generator.uniform(0.2, 3)
            began = time.time() * 1000
            killing = deferLater(reactor, seconds, self.transport.signalProcess, "KILL")  # type: ignore[arg-type]
            answered, number = await self.change_until(time.monotonic() + seconds + 1, number)
            await killing
            killed = time.time() * 1000
            await self.process.ended
            self.assertGreater(answered, 0)
            await self.come_back()
            kept = (await self.settings())["number"]
            # What was sent and not answered may be there or not.
            self.assertIn(kept, range(answered, number + 1), f"turn {turn}, {seconds:.2f} s")
            # The edge sends every 50 ms; a second, and what a busy machine may take to write.
            newest = max(at for at in [0, *self.stored_times()] if at < killed)
            self.assertTrue(newest > killed - 1200 or killed - began < 1200, f"turn {turn}: {killed - newest:.0f} ms")
            self.assertNotIn("Traceback", self.process.output)
            self.assertNotIn("corrupt", self.process.output)


class OutOfMemory(Ends):
    async def test_it_goes_on_or_ends_and_comes_back(self) -> None:
        """Whoever asks for too much may lose it; the process must not live on without serving, and keeps its state."""
        await self.start(limit=f"--as={900 * MEGABYTE}")
        await self.ui.request("updateUserSettings", {"settings": {"number": 1}})
        await deferLater(reactor, 2)  # type: ignore[arg-type]
        stored = len(self.stored_times())
        await self.attack("hoarders")
        await deferLater(reactor, 3)  # type: ignore[arg-type]
        if self.process.code is None:
            self.assertEqual((await self.settings())["number"], 1)
            self.assertGreater(len(self.stored_times()), stored)
            self.transport.signalProcess("KILL")
            await self.process.ended
        elif self.process.signal == signal.SIGSEGV:
            # orjson does not ask whether it got its memory; the log says where.
            self.assertIn("Fatal Python error", self.process.output)
        await self.come_back()
        self.assertEqual((await self.settings())["number"], 1)
        self.assertGreaterEqual(len(self.stored_times()), stored)
