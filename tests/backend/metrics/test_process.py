"""Reactor, garbage, log and process (metrics.md 8, 17)."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics.process import PERIOD, GcPauses, LogCounter, Process, ReactorLag


def values(families: Iterator[Metric]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("openems_backend_"), *(sample.labels[name] for name in sorted(sample.labels))):
        sample.value
        for family in families
        for sample in family.samples
    }  # fmt: skip


class TestReactor(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock: Any = Clock()
        self.lag = ReactorLag(self.clock)
        self.lag.start()
        self.addCleanup(self.lag.stop)

    def test_lateness(self) -> None:
        self.clock.advance(PERIOD)
        self.clock.advance(PERIOD + 0.3)
        got = values(self.lag.collect())
        self.assertEqual(got[("reactor_lag_seconds_count",)], 2)
        self.assertEqual(got[("reactor_lag_seconds_bucket", "0.001")], 1)
        self.assertEqual(got[("reactor_lag_seconds_bucket", "0.2")], 1)
        self.assertEqual(got[("reactor_lag_seconds_bucket", "0.5")], 2)
        self.assertAlmostEqual(self.lag.last, 0.3)
        self.assertEqual(got[("reactor_delayed_calls",)], 1)

    def test_a_clock_set_back_is_no_lateness(self) -> None:
        self.clock.rightNow -= 100
        self.clock.advance(PERIOD + 100)
        self.assertEqual(self.lag.last, 0)

    def test_nothing_is_left_behind(self) -> None:
        self.lag.stop()
        self.lag.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TestGarbage(SynchronousTestCase):
    def test_pauses(self) -> None:
        pauses = GcPauses()
        pauses.start()
        self.addCleanup(pauses.stop)
        before = pauses.seconds["2"].count
        gc.collect()
        self.assertEqual(pauses.seconds["2"].count, before + 1)
        self.assertGreater(pauses.seconds["2"].sum, 0)
        self.assertEqual(values(pauses.collect())[("gc_pause_seconds_count", "2")], before + 1)

    def test_stop(self) -> None:
        pauses = GcPauses()
        pauses.start()
        pauses.stop()
        pauses.stop()
        gc.collect()
        self.assertEqual(sum(h.count for h in pauses.seconds.values()), 0)


class TestLog(SynchronousTestCase):
    def test_levels(self) -> None:
        counter = LogCounter()
        counter.start()
        self.addCleanup(counter.stop)
        log = Logger()
        log.warn("x")
        log.warn("y")
        try:
            raise ValueError("z")
        except ValueError:
            log.failure("z")
        got = values(counter.collect())
        self.assertEqual(got[("log_messages_total", "warn")], 2)
        self.assertEqual(got[("log_messages_total", "critical")], 1)
        self.assertEqual(got[("log_messages_total", "debug")], 0)
        self.assertEqual(got[("unhandled_errors_total",)], 1)
        self.flushLoggedErrors(ValueError)


class TestProcess(SynchronousTestCase):
    def test_8_as_the_library_tells_it(self) -> None:
        ours = values(Process("1.2.3").collect())
        theirs = values(ProcessCollector(registry=None).collect())
        self.assertEqual({key for key in ours if key[0].startswith("process_")}, set(theirs))
        for (name,), value in theirs.items():
            # The library counts the descriptor it looks with; the kernel's two numbers of pages are not the same.
            delta = 1 if name == "process_open_fds" else value * (0.4 if "memory" in name else 0.05)
            self.assertLessEqual(abs(ours[(name,)] - value), delta, name)
        self.assertEqual(ours[("openems_version_info", "1.2.3")], 1)

    def test_descriptors(self) -> None:
        before = values(Process("1").collect())[("process_open_fds",)]
        with open("/dev/null"):
            self.assertEqual(values(Process("1").collect())[("process_open_fds",)], before + 1)
