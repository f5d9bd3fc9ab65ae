"""Which channels are kept, and how: averages of five minutes, or the reading at the end of each day (timedata.md 9.3).

Patterns: ``ess{0..30}/Soc`` stands for 31 channels. Values are stored as whole numbers, or as they are where the
pattern ends in ``=double``. :data:`DEFAULT` in a configured list stands for the list below.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

DEFAULT = "default"
_RANGE = re.compile(r"\{([0-9]{1,4})\.\.([0-9]{1,4})\}")
MAX_NAMES = 100_000

_PHASES = "{1..3}"
_METERED = ("ActivePower", f"ActivePowerL{_PHASES}", "Current", "Voltage", f"CurrentL{_PHASES}", f"VoltageL{_PHASES}")
_PRODUCTION = ("ActiveProductionEnergy", f"ActiveProductionEnergyL{_PHASES}")
_CONSUMPTION = ("ActiveConsumptionEnergy", f"ActiveConsumptionEnergyL{_PHASES}")


def _of(component: str, *channels: str) -> list[str]:
    return [f"{component}/{channel}" for channel in channels]


AVERAGES: tuple[str, ...] = (
    *_of("_sum", "EssSoc", "EssActivePower", "EssActivePowerL{1..3}", "GridActivePower", "GridActivePowerL{1..3}"),
    *_of("_sum", "GridMode", "ProductionActivePower", "ProductionAcActivePower", "ProductionAcActivePowerL{1..3}"),
    *_of("_sum", "ProductionDcActualPower", "ConsumptionActivePower", "ConsumptionActivePowerL{1..3}"),
    *_of("_sum", "GridBuyPrice=double", "UnmanagedConsumptionActivePower", "EssDischargePower"),
    *_of("_meta", "_PropertyMaximumGridFeedInLimit", "GridBuySoftLimit"),
    *_of("ess{0..30}", "Soc", "ActivePower", "ReactivePower", "DcDischargePower"),
    *_of("charger{0..19}", "ActualPower", "Current", "Voltage"),
    *_of("meter{0..19}", *_METERED),
    *_of("pvInverter{0..9}", *_METERED),
    *_of("evseChargePoint{0..19}", *_METERED),
    *_of("evcs{0..19}", "ChargePower", *_METERED),
    *_of("io{0..9}", "Relay{1..8}", *_METERED),
    *_of("heat{0..4}", "Temperature", "ActivePower"),
    "ctrlIoHeatPump{0..4}/Status",
    "ctrlIoHeatingElement{0..4}/Level",
    *_of("ctrlEvseSingle{0..19}", "ActualMode", "StateMachine"),
    *_of("ctrlGridOptimizedCharge0", "DelayChargeMaximumChargeLimit", "_PropertyMaximumSellToGridPower"),
    "ctrlGridOptimizedCharge0/SellToGridLimitMinimumChargeLimit",
    "ctrlEmergencyCapacityReserve0/ActualReserveSoc",
    *_of("ctrlEssTimeOfUseTariff0", "QuarterlyPrices=double", "StateMachine"),
    *_of("ctrlTimeslotPeakshaving{0..9}", "StateMachine", "_PropertyRechargePower", "_PropertyPeakShavingPower"),
    *_of("ctrlPeakShaving0", "_PropertyPeakShavingPower", "_PropertyRechargePower"),
    *_of("ctrlApiModbusTcp{0..2}", "Ess0SetActivePowerEquals", "Ess0SetReactivePowerEquals"),
    *_of("ctrlApiModbusTcp{0..2}", "Ess0SetActivePowerLessOrEquals", "Ess0SetReactivePowerLessOrEquals"),
    *_of("ctrlApiModbusTcp{0..2}", "Ess0SetReactivePowerGreaterOrEquals", "Ess0SetActivePowerGreaterOrEquals"),
    "ctrlEssLimiter14a0/RestrictionMode",
    "ctrlEssRippleControlReceiver{0..2}/RestrictionMode",
    "ctrlEnerixControl0/RemoteControlMode",
)

COUNTERS: tuple[str, ...] = (
    *_of("_sum", "EssDcChargeEnergy", "EssDcDischargeEnergy", "GridSellActiveEnergy", "ProductionActiveEnergy"),
    *_of("_sum", "ProductionAcActiveEnergy", "ProductionDcActiveEnergy", "ConsumptionActiveEnergy"),
    *_of("_sum", "GridBuyActiveEnergy", "GridModeOffGridTime", "EssActiveChargeEnergy", "EssActiveDischargeEnergy"),
    *_of("ess{0..30}", "ActiveChargeEnergy", "ActiveDischargeEnergy", "DcChargeEnergy", "DcDischargeEnergy"),
    *_of("ess{0..30}", "CumulatedTimeOkState", "CumulatedTimeInfoState", "CumulatedTimeWarningState"),
    "ess{0..30}/CumulatedTimeFaultState",
    *_of("evcs{0..19}", "ActiveConsumptionEnergy", *_PRODUCTION),
    *_of("evseChargePoint{0..19}", *_PRODUCTION),
    *_of("meter{0..19}", *_PRODUCTION, *_CONSUMPTION),
    *_of("io{0..9}", *_PRODUCTION, *_CONSUMPTION),
    *_of("pvInverter{0..9}", *_PRODUCTION),
    "charger{0..19}/ActualEnergy",
    *_of("heat{0..4}", "ActiveConsumptionEnergy", "ActiveProductionEnergy"),
    "ctrlEssTimeOfUseTariffDischarge0/DelayedTime",
    *_of("ctrlEssTimeOfUseTariff0", "DelayedTime", "ChargedTime"),
    *_of("ctrlGridOptimizedCharge0", "AvoidLowChargingTime", "NoLimitationTime", "SellToGridLimitTime"),
    "ctrlGridOptimizedCharge0/DelayChargeTime",
    "ctrlIoHeatingElement{0..4}/Level{1..3}CumulatedTime",
    *_of("ctrlIoHeatPump{0..4}", "RegularStateTime", "RecommendationStateTime", "ForceOnStateTime", "LockStateTime"),
    *(
        f"{component}/CumulatedActiveTime"
        for component in (
            *("ctrlChpSoc0", "ctrlFixActivePower0", "ctrlChannelThreshold{0..4}"),
            *("ctrlIoChannelSingleThreshold{0..12}", "ctrlChannelSingleThreshold{0..12}"),
            *("ctrlIoFixDigitalOutput{0..4}", "ctrlApiModbusTcp{0..2}"),
        )
    ),
    "ctrlApiModbusTcp{0..2}/CumulatedInactiveTime",
    "ctrlEssLimiter14a0/CumulatedRestrictionTime",
    "ctrlEssRippleControlReceiver{0..2}/CumulatedRestrictionTime",
    *_of("system0", "CumulatedTimeCompressor1RunningState", "CumulatedTimeCompressor2RunningState"),
    *_of("system0", "CumulatedTimeCompressor1And2RunningState", "CumulatedTimePumpRunningState"),
    *_of("ctrlEnerixControl0", "CumulatedChargeFromGridTime", "CumulatedInactiveTime", "CumulatedNoDischargeTime"),
)


def expanded(pattern: str) -> Iterator[str]:
    """
    >>> list(expanded("io{0..1}/Relay{1..2}"))
    ['io0/Relay1', 'io0/Relay2', 'io1/Relay1', 'io1/Relay2']
    """
    found = _RANGE.search(pattern)
    if found is None:
        yield pattern
        return
    for number in range(int(found[1]), int(found[2]) + 1):
        yield from expanded(f"{pattern[: found.start()]}{number}{pattern[found.end() :]}")


def names(patterns: Iterable[str], default: Iterable[str]) -> dict[str, bool]:
    """Channel -> whether its values stay floats. Raises ValueError for what is no pattern and for too many names."""
    result: dict[str, bool] = {}
    for pattern in patterns:
        for text in default if pattern == DEFAULT else (pattern,):
            name, _, kind = text.partition("=")
            if kind not in ("", "double", "long"):
                raise ValueError(f'"{text}": only "=double" or "=long" may follow a channel')
            component, slash, channel = name.partition("/")
            if not slash or not component or not channel:
                raise ValueError(f'"{text}" is no channel address')
            for one in expanded(name):
                if len(result) >= MAX_NAMES:
                    raise ValueError(f"more than {MAX_NAMES} channels")
                result[one] = kind == "double"
    return result


class AllowedChannels:
    """``averages`` and ``counters``: channel -> whether its values stay floats."""

    def __init__(self, averages: Iterable[str] = (DEFAULT,), counters: Iterable[str] = (DEFAULT,)) -> None:
        self.averages = names(averages, AVERAGES)
        self.counters = names(counters, COUNTERS)
