"""A provider that keeps nothing (timedata.md 10): for a backend that only shows live values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, ITimedata
from openems.backend.models import History
from openems.common.data import DataNotification, Value
from openems.common.resolution import Resolution, periods


@implementer(ITimedata, IDebugLoggable)
class DummyTimedata:
    """Takes all data, knows no channel. Resolutions are checked as by every provider."""

    def __init__(self, id: str = "timedata0") -> None:
        self.id = id
        self._notifications = 0

    async def start(self) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to flush."""

    def write(self, edge_id: str, data: DataNotification) -> None:
        self._notifications += 1

    async def query_historic_data(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        return History(periods(from_date, to_date, resolution).starts, {})

    async def query_historic_energy(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        return {}

    async def query_historic_energy_per_period(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        return History(periods(from_date, to_date, resolution).starts, {})

    async def query_first_value_before(self, edge_id: str, date: datetime, channels: Sequence[str]) -> dict[str, Value]:
        return {}

    def debug_log(self) -> str | None:
        return None

    def debug_metrics(self) -> Mapping[str, int | float]:
        return {f"{self.id}/Notifications": self._notifications}
