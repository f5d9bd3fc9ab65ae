"""The simulated household: believable flows, and counters that only grow."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.simulator.energyflow import DAY, HOUR, Household

#: 2026-06-21T00:00:00Z
MIDSUMMER = 1_782_000_000_000


class Flows(SynchronousTestCase):
    @given(st.integers(0, 50), st.lists(st.integers(1_000, 2 * HOUR), min_size=1, max_size=50))
    @settings(max_examples=30, deadline=None)
    def test_balance_and_counters(self, number: int, steps: list[int]) -> None:
        household = Household(1, number)
        now = MIDSUMMER
        before: dict[str, Any] = {}
        for step in steps:
            now += step
            values = household.step(now)
            self.assertEqual(
                values["_sum/GridActivePower"],
                values["_sum/ConsumptionActivePower"]
                - values["_sum/ProductionActivePower"]
                - values["_sum/EssDischargePower"],
            )
            self.assertTrue(0 <= values["_sum/EssSoc"] <= 100)
            for address, value in values.items():
                if address.endswith("Energy"):
                    self.assertGreaterEqual(value, before.get(address, 0), address)
            before = values

    def test_same_seed_same_values(self) -> None:
        one, other = Household(7, 3), Household(7, 3)
        for hour in range(48):
            self.assertEqual(one.step(MIDSUMMER + hour * HOUR), other.step(MIDSUMMER + hour * HOUR))

    def test_sun_by_day_only(self) -> None:
        household = Household(1, 0)
        by_hour = [household.step(MIDSUMMER + hour * HOUR)["_sum/ProductionActivePower"] for hour in range(24)]
        self.assertEqual((by_hour[0], by_hour[3], by_hour[23]), (0, 0, 0))
        self.assertGreater(by_hour[12], 100)

    def test_a_day_has_load_and_sun(self) -> None:
        household = Household(1, 0)
        for time in range(MIDSUMMER, MIDSUMMER + DAY + 1, 300_000):
            values = household.step(time)
        self.assertTrue(3_000 < values["_sum/ConsumptionActiveEnergy"] < 60_000, values)
        self.assertGreater(values["_sum/ProductionActiveEnergy"], 1_000)
