"""A household's energy flows, step by step (pure).

Sun, load and battery are plain curves with seeded noise; the grid takes the rest, so at every moment
``GridActivePower = ConsumptionActivePower - ProductionActivePower - EssDischargePower``. Counters only grow. The same
seed, number and times give the same values.
"""

from __future__ import annotations

import math
import random

from openems.common.data import Value

DAY = 86_400_000
HOUR = 3_600_000
CAPACITY = 10_000  # Wh
MAX_BATTERY_POWER = 5_000  # W
MIN_SOC = 10.0
PEAK_PRODUCTION = 8_000  # W

_COUNTERS = (
    "GridBuyActiveEnergy",
    "GridSellActiveEnergy",
    "ProductionActiveEnergy",
    "ConsumptionActiveEnergy",
    "EssDcChargeEnergy",
    "EssDcDischargeEnergy",
)


class Household:
    """One edge's model; :meth:`step` moves it on."""

    def __init__(self, seed: int, number: int) -> None:
        self._random = random.Random(f"{seed}/{number}")
        self._size = self._random.uniform(0.6, 1.4)
        self._cloud = 0.8
        self._noise = 0.0
        self._soc = self._random.uniform(30, 70)
        self._time: int | None = None
        self._energy = dict.fromkeys(_COUNTERS, 0.0)
        self.fault = False

    def step(self, now: int) -> dict[str, Value]:
        """The values of all channels at ``now``, epoch milliseconds; never before the step before."""
        hours = 0.0 if self._time is None else max(0.0, (now - self._time) / HOUR)
        self._time = now if self._time is None else max(self._time, now)
        self._wander(hours)
        production = round(self._production(now))
        consumption = round(self._consumption(now))
        discharge = self._battery(consumption - production, hours)
        grid = consumption - production - discharge
        for name, power in (
            ("GridBuyActiveEnergy", max(grid, 0)),
            ("GridSellActiveEnergy", max(-grid, 0)),
            ("ProductionActiveEnergy", production),
            ("ConsumptionActiveEnergy", consumption),
            ("EssDcChargeEnergy", max(-discharge, 0)),
            ("EssDcDischargeEnergy", max(discharge, 0)),
        ):
            self._energy[name] += power * hours
        return self._channels(grid, production, consumption, discharge)

    def _wander(self, hours: float) -> None:
        pull = min(1.0, hours)
        self._cloud += (0.75 - self._cloud) * pull + self._random.gauss(0, 0.25) * math.sqrt(pull)
        self._cloud = min(1.0, max(0.05, self._cloud))
        self._noise += -self._noise * min(1.0, hours * 20) + self._random.gauss(0, 300) * math.sqrt(
            min(1.0, hours * 20)
        )

    def _production(self, now: int) -> float:
        hour = now % DAY / HOUR
        season = 0.65 - 0.35 * math.cos(2 * math.pi * (now / DAY % 365.25 - 10) / 365.25)
        sun = math.sin(math.pi * (hour - 6) / 12) if 6 < hour < 18 else 0.0
        return PEAK_PRODUCTION * self._size * season * sun * self._cloud

    def _consumption(self, now: int) -> float:
        hour = now % DAY / HOUR
        morning = math.exp(-(((hour - 7.5) / 1.5) ** 2))
        evening = math.exp(-(((hour - 19) / 2.0) ** 2))
        return max(80.0, self._size * (350 + 1_200 * morning + 1_900 * evening) + self._noise)

    def _battery(self, need: int, hours: float) -> int:
        """Watts out of the battery, negative into it; ``need`` is what house and sun leave open."""
        power = max(-MAX_BATTERY_POWER, min(MAX_BATTERY_POWER, need))
        if (power > 0 and self._soc <= MIN_SOC) or (power < 0 and self._soc >= 100):
            power = 0
        if hours > 0:
            room = (self._soc - MIN_SOC if power > 0 else 100 - self._soc) * CAPACITY / 100 / hours
            power = int(min(power, room)) if power > 0 else -int(min(-power, room))
        self._soc = min(100.0, max(MIN_SOC, self._soc - power * hours * 100 / CAPACITY))
        return power

    def _channels(self, grid: int, production: int, consumption: int, discharge: int) -> dict[str, Value]:
        soc = round(self._soc)
        voltage = 230_000 + self._random.randint(-500, 500)
        values: dict[str, Value] = {
            "_sum/State": 3 if self.fault else 0,
            "_sum/EssSoc": soc,
            "_sum/EssActivePower": discharge,
            "_sum/EssDischargePower": discharge,
            "_sum/EssMinDischargePower": -MAX_BATTERY_POWER,
            "_sum/EssMaxDischargePower": MAX_BATTERY_POWER,
            "_sum/EssCapacity": CAPACITY,
            "_sum/GridActivePower": grid,
            "_sum/GridMode": 1,
            "_sum/ProductionActivePower": production,
            "_sum/ProductionAcActivePower": production,
            "_sum/ProductionDcActualPower": 0,
            "_sum/ProductionMaxActivePower": PEAK_PRODUCTION,
            "_sum/ConsumptionActivePower": consumption,
            "_sum/ConsumptionMaxActivePower": 6_000,
            "_sum/UnmanagedConsumptionActivePower": consumption,
            "ess0/Soc": soc,
            "ess0/ActivePower": discharge,
            "ess0/State": 3 if self.fault else 0,
            "ess0/GridMode": 1,
            "meter0/ActivePower": grid,
            "meter0/VoltageL1": voltage,
            "meter0/Frequency": 50_000 + self._random.randint(-15, 15),
            "meter0/State": 0,
            "meter1/ActivePower": production,
            "meter1/State": 0,
            "ctrlBackend0/UnableToSend": 0,
            "ctrlBackend0/State": 0,
        }
        for name, energy in self._energy.items():
            values[f"_sum/{name}"] = int(energy)
        values["meter0/ActiveProductionEnergy"] = int(self._energy["GridBuyActiveEnergy"])
        values["meter0/ActiveConsumptionEnergy"] = int(self._energy["GridSellActiveEnergy"])
        values["meter1/ActiveProductionEnergy"] = int(self._energy["ProductionActiveEnergy"])
        values["ess0/ActiveChargeEnergy"] = int(self._energy["EssDcChargeEnergy"])
        values["ess0/ActiveDischargeEnergy"] = int(self._energy["EssDcDischargeEnergy"])
        values["_sum/EssActiveChargeEnergy"] = int(self._energy["EssDcChargeEnergy"])
        values["_sum/EssActiveDischargeEnergy"] = int(self._energy["EssDcDischargeEnergy"])
        return values
