"""What a simulated edge is made of, and how a user changes it (edge.md 4.3, 4.7)."""

from __future__ import annotations

import copy
import datetime
from typing import Any

from openems.common.errors import EDGE_NO_COMPONENT_WITH_ID, OpenemsError, generic

VERSION = "2026.4.0"
_COMPONENT = "io.openems.edge.common.component.OpenemsComponent"
_METER = "io.openems.edge.meter.api.ElectricityMeter"
_CONTROLLER = "io.openems.edge.controller.api.Controller"

#: component id -> (alias, factory id, properties)
_COMPONENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "_sum": ("Core.Sum", "Core.Sum", {"gridMinActivePower": 0, "gridMaxActivePower": 0}),
    "_meta": ("Core.Meta", "Core.Meta", {"currency": "EUR", "isEssChargeFromGridAllowed": False}),
    "_host": ("Core.Host", "Core.Host", {"networkConfiguration": "{}"}),
    "_power": ("Ess.Power", "Ess.Power", {"debugMode": False, "enablePid": True}),
    "_cycle": ("Core.Cycle", "Core.Cycle", {"cycleTime": "1000"}),
    "_appManager": ("Core.AppManager", "Core.AppManager", {"apps": "[]", "keyForFreeApps": "0000-0000-0000-0000"}),
    "_componentManager": ("Core.ComponentManager", "Core.ComponentManager", {}),
    "_predictorManager": ("Core.PredictorManager", "Core.PredictorManager", {}),
    "scheduler0": ("Scheduler", "Scheduler.AllAlphabetically", {"enabled": True, "controllers.ids": [""]}),
    "ess0": (
        "Battery",
        "Simulator.EssSymmetric.Reacting",
        {"enabled": True, "capacity": 10000, "maxApparentPower": 5000},
    ),
    "battery0": ("Battery rack", "Battery.Fenecon.Home", {"enabled": True, "batteryStartUpRelay": "io0/Relay4"}),
    "meter0": ("Grid meter", "Simulator.GridMeter.Reacting", {"enabled": True, "type": "GRID"}),
    "meter1": ("Roof", "Simulator.ProductionMeter.Acting", {"enabled": True, "type": "PRODUCTION"}),
    "io0": ("Relays", "Simulator.IO.DigitalInputOutput", {"enabled": True, "numberOfOutputs": 4}),
    "ctrlBackend0": (
        "Backend",
        "Controller.Api.Backend",
        {"enabled": True, "apikey": "xxx", "persistencePriority": "HIGH"},
    ),
    "ctrlDebugLog0": (
        "Debug log",
        "Controller.Debug.Log",
        {"enabled": True, "showAlias": False, "condensedOutput": True},
    ),
    "ctrlBalancing0": (
        "Self-consumption",
        "Controller.Symmetric.Balancing",
        {"enabled": True, "targetGridSetpoint": 0},
    ),
    "ctrlLimit0": ("Limit", "Controller.Ess.LimitTotalDischarge", {"enabled": True, "minSoc": 10, "forceChargeSoc": 8}),
}
_NATURES: dict[str, tuple[str, ...]] = {
    "Core.Sum": ("io.openems.edge.common.sum.Sum",),
    "Core.Meta": ("io.openems.edge.common.meta.Meta",),
    "Core.Host": ("io.openems.edge.common.host.Host",),
    "Simulator.EssSymmetric.Reacting": (
        "io.openems.edge.ess.api.SymmetricEss",
        "io.openems.edge.ess.api.ManagedSymmetricEss",
    ),
    "Battery.Fenecon.Home": ("io.openems.edge.battery.api.Battery",),
    "Simulator.GridMeter.Reacting": (_METER,),
    "Simulator.ProductionMeter.Acting": (_METER,),
    "Simulator.IO.DigitalInputOutput": ("io.openems.edge.io.api.DigitalOutput",),
    "Controller.Api.Backend": (_CONTROLLER,),
    "Controller.Debug.Log": (_CONTROLLER,),
    "Controller.Symmetric.Balancing": (_CONTROLLER,),
    "Controller.Ess.LimitTotalDischarge": (_CONTROLLER,),
}


class Configuration:
    """Components of one edge; changes are remembered with who and when."""

    def __init__(self) -> None:
        self._components = copy.deepcopy(_COMPONENTS)

    def json(self) -> dict[str, Any]:
        """``params`` of ``edgeConfig``."""
        used = sorted({factory for _, factory, _ in self._components.values()})
        return {
            "components": {
                component_id: {"alias": alias, "factoryId": factory, "properties": {"alias": alias, **properties}}
                for component_id, (alias, factory, properties) in sorted(self._components.items())
            },
            "factories": {
                factory: {
                    "name": factory.replace(".", " "),
                    "description": f"Simulated {factory}.",
                    "natureIds": [*_NATURES.get(factory, ()), _COMPONENT],
                }
                for factory in used
            },
        }

    def __contains__(self, component_id: str) -> bool:
        return component_id in self._components

    def update(self, component_id: str, properties: list[dict[str, Any]], user: str, now: int) -> None:
        """2000 for an unknown component."""
        if component_id not in self._components:
            raise OpenemsError(EDGE_NO_COMPONENT_WITH_ID, component_id)
        alias, factory, known = self._components[component_id]
        changed = _properties(properties)
        alias = str(changed.pop("alias", alias))
        self._components[component_id] = (alias, factory, {**known, **changed, **_stamp(user, now)})

    def create(self, factory: str, properties: list[dict[str, Any]], user: str, now: int) -> None:
        given = _properties(properties)
        component_id = str(given.pop("id", "") or self._free_id())
        if component_id in self._components:
            raise generic(f"A Component with id [{component_id}] is already existing!")
        alias = str(given.pop("alias", component_id))
        self._components[component_id] = (alias, factory, {**given, **_stamp(user, now)})

    def _free_id(self) -> str:
        number = 0
        while f"component{number}" in self._components:
            number += 1
        return f"component{number}"

    def factory(self, component_id: str) -> str:
        return self._components[component_id][1]

    def delete(self, component_id: str, now: int) -> None:
        if component_id not in self._components or component_id.startswith("_"):
            raise OpenemsError(EDGE_NO_COMPONENT_WITH_ID, component_id)
        del self._components[component_id]


def _properties(properties: list[dict[str, Any]]) -> dict[str, Any]:
    """A real edge reads ``a_b`` as ``a.b`` (wire.md 6.6); names that begin with ``_`` are its own."""
    return {
        str(entry["name"]).replace("_", "."): entry.get("value")
        for entry in properties
        if isinstance(entry, dict) and not str(entry.get("name", "_")).startswith("_")
    }


def _stamp(user: str, now: int) -> dict[str, str]:
    at = datetime.datetime.fromtimestamp(now / 1000, datetime.UTC)
    return {"_lastChangeBy": user, "_lastChangeAt": at.strftime("%Y-%m-%dT%H:%M:%S")}
