"""Aggregation: edge.md 9.8."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openems.simulator.aggregation import Window, mean


class Aggregation(SynchronousTestCase):
    def test_vectors(self) -> None:
        self.assertEqual(mean([2, 7]), 5)
        self.assertEqual(mean([2.9, 7.1]), 5.0)
        window = Window(0)
        for counter, power, text in ((2, 2, "a"), (4, 7, "b")):
            window.add({"meter0/ActiveEnergy": counter, "meter0/ActivePower": power, "x/Text": text, "x/None": None})
        self.assertEqual(window.result(), {"meter0/ActiveEnergy": 4, "meter0/ActivePower": 5, "x/Text": "a"})
