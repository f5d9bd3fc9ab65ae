"""Every five seconds (core.md 5, vector 12.7)."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core.debugcycle import DebugCycle


class Component:
    def __init__(self, metrics: Mapping[str, int | float] | None = None, error: Exception | None = None) -> None:
        self.metrics, self.error, self.asked = metrics or {}, error, 0

    def debug_log(self) -> str | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return None

    def debug_metrics(self) -> Mapping[str, int | float]:
        return self.metrics


class Consumer:
    def __init__(self, error: Exception | None = None) -> None:
        self.got: list[tuple[int, Mapping[str, int | float]]] = []
        self.error = error

    def consume_metrics(self, now: int, metrics: Mapping[str, int | float]) -> None:
        self.got.append((now, metrics))
        if self.error is not None:
            raise self.error


class Cycle(SynchronousTestCase):
    def test_every_five_seconds_whoever_fails(self) -> None:
        clock = Clock()
        bad, good, silent = Component(error=RuntimeError("x")), Component({"a/b": 1}), Component()
        failing, consumer = Consumer(RuntimeError("y")), Consumer()
        cycle = DebugCycle([bad, good, silent], [failing, consumer], reactor=clock, now=lambda: int(clock.seconds()))
        cycle.start()
        self.assertEqual(good.asked, 0)
        clock.pump([5, 5])
        self.assertEqual(consumer.got, [(5, {"a/b": 1}), (10, {"a/b": 1})])
        self.assertEqual((bad.asked, silent.asked), (2, 2))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 4)
        cycle.stop()
        cycle.stop()
        clock.advance(60)
        self.assertEqual(good.asked, 2)
