"""How long the reactor is busy between two polls (metrics.md 17)."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from openems.backend.metrics.ticks import ReactorTicks
from tests.backend.metrics.test_process import values

reactor: Any = _reactor


class TestReal(TestCase):
    if not hasattr(reactor, "_poller"):
        skip = "not the epoll reactor"

    async def test_a_block_is_seen(self) -> None:
        ticks = ReactorTicks(reactor)
        before = reactor._poller
        ticks.start()
        self.addCleanup(ticks.stop)
        reactor.callLater(0.01, time.sleep, 0.06)
        await deferLater(reactor, 0.1)
        got = values(ticks.collect())
        count = got[("reactor_tick_duration_seconds_count",)]
        self.assertGreater(count, 1)
        self.assertLess(got[("reactor_tick_duration_seconds_bucket", "0.05")], count)
        self.assertEqual(got[("reactor_tick_duration_seconds_bucket", "5.0")], count)
        # Waiting for something to do is no work.
        self.assertLess(got[("reactor_tick_duration_seconds_sum",)], 0.1)
        ticks.stop()
        self.assertIs(reactor._poller, before)


class TestOther(SynchronousTestCase):
    def test_a_reactor_without_a_poller(self) -> None:
        ticks = ReactorTicks(Clock())
        ticks.start()
        self.assertEqual(values(ticks.collect()), {})
        ticks.stop()

    def test_two_at_once_end_in_any_order(self) -> None:
        class Poller:
            def poll(self, timeout: float) -> list[int]:
                return [7]

            register = unregister = modify = poll

        class Reactor:
            _poller: Any = Poller()

        fake = Reactor()
        inner = fake._poller
        one, other = ReactorTicks(fake), ReactorTicks(fake)
        one.start()
        other.start()
        self.assertEqual(fake._poller.poll(1.0), [7])
        one.stop()
        self.assertEqual(fake._poller.poll(1.0), [7])
        other.stop()
        self.assertEqual(fake._poller.poll(1.0), [7])
        self.assertIs(getattr(fake._poller, "poller", fake._poller), inner)
