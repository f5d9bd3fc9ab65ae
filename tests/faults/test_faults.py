"""What one peer does wrong, and that nobody else notices. Real processes, real sockets."""

from __future__ import annotations

import os
import signal

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.faults.backend import Faults

MEGABYTE = 1_000_000


class OfOnePeer(Faults):
    async def test_slow_loris(self) -> None:
        """Handshakes that trickle in end after ten seconds."""
        await self.start()
        self.assertEqual(await self.attack("slow_loris"), 180)
        self.assertUntouched()

    async def test_a_reader_that_stops(self) -> None:
        """It loses pushes and at last its connection, the server keeps its memory."""
        await self.start()
        before = self.rss()
        await self.attack("stopped_reader")
        self.assertUntouched()
        self.assertLess(self.rss() - before, 150 * MEGABYTE)

    async def test_one_byte_fragments(self) -> None:
        await self.start()
        self.assertLessEqual(set(await self.attack("fragments")), {1009, None})
        self.assertUntouched(5)

    async def test_a_frame_of_100_megabytes(self) -> None:
        await self.start()
        before = self.rss()
        self.assertIn(await self.attack("huge_frame"), (1009, None))
        self.assertUntouched(5)
        self.assertLess(self.rss() - before, 60 * MEGABYTE)

    async def test_ten_thousand_requests_nobody_answers(self) -> None:
        """Each gets its one reply: an error, when as many wait as may, or when the edge goes."""
        await self.start()
        self.assertEqual(await self.attack("requests"), 10_001)
        self.assertUntouched(5)

    async def test_an_edge_that_reconnects_all_the_time(self) -> None:
        await self.start()
        before = self.rss()
        await self.attack("reconnecting_edge")
        self.assertUntouched()
        self.assertLess(self.rss() - before, 30 * MEGABYTE)

    async def test_no_descriptors_left(self) -> None:
        """Who is connected stays; when others go, new ones come in again."""
        await self.start(limit="--nofile=128:128")
        await self.attack("descriptors")
        self.assertUntouched()
        self.assertEqual(await self.attack("huge_frame"), 1009)

    async def test_the_process_stops_for_half_a_minute(self) -> None:
        """A machine that was asleep: connections stay, what came meanwhile is taken."""
        await self.start()
        edge, ui = self.edge.connection, self.ui.connection
        os.kill(self.transport.pid, signal.SIGSTOP)
        await deferLater(reactor, 30)  # type: ignore[arg-type]
        os.kill(self.transport.pid, signal.SIGCONT)
        await deferLater(reactor, 2)  # type: ignore[arg-type]
        self.delays.clear()
        await deferLater(reactor, 3)  # type: ignore[arg-type]
        self.assertUntouched()
        self.assertIs(self.edge.connection, edge)
        self.assertIs(self.ui.connection, ui)
