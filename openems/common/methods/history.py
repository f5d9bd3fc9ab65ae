"""Parameters and results of the history requests (wire.md 6.7, 4.11)."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from openems.common.channel import check_addresses
from openems.common.errors import generic
from openems.common.instant import instant
from openems.common.jsonrpc import Members
from openems.common.resolution import Grid, Resolution, automatic, midnight, periods, zone

DATA = "queryHistoricTimeseriesData"
ENERGY = "queryHistoricTimeseriesEnergy"
ENERGY_PER_PERIOD = "queryHistoricTimeseriesEnergyPerPeriod"
EXPORT = "queryHistoricTimeseriesExportXlxs"
METHODS = frozenset({DATA, ENERGY, ENERGY_PER_PERIOD, EXPORT})

#: Channels of one request, and values (channels times periods) of one answer.
MAX_CHANNELS = 500
MAX_VALUES = 5_000_000


class HistoryQuery(msgspec.Struct, frozen=True):
    """``to_date`` is the exclusive end. ``resolution`` is None where the method has none, ``channels`` are sorted."""

    method: str
    from_date: datetime.datetime
    to_date: datetime.datetime
    channels: tuple[str, ...]
    resolution: Resolution | None

    @classmethod
    def parse(cls, method: str, members: Members) -> HistoryQuery:
        """Checks in the order of the Java program: zone, from, to, resolution, channels."""
        tz = zone(members.primitive("timezone"))
        first, last = members.date("fromDate"), members.date("toDate")
        try:
            from_date, to_date = midnight(first, tz), midnight(last + datetime.timedelta(days=1), tz)
        except (OverflowError, ValueError, OSError):
            raise generic(f"Period [{first} to {last}] is beyond the calendar") from None
        resolution = None
        if method == DATA:
            resolution = (
                Resolution.parse(members.any("resolution"))
                if "resolution" in members
                else automatic(from_date, to_date)
            )
        elif method == ENERGY_PER_PERIOD:
            resolution = Resolution.parse(members.any("resolution"))
        channels = () if method == EXPORT else tuple(check_addresses(members.strings("channels")))
        if len(channels) > MAX_CHANNELS:
            raise generic(f"Too many channels: {len(channels)}, at most {MAX_CHANNELS}")
        query = cls(method, from_date, to_date, channels, resolution)
        if resolution is not None and len(query.grid()) * len(channels) > MAX_VALUES:
            raise generic(
                f"Too many values: ask for a shorter period, fewer channels or a coarser resolution than {resolution}"
            )
        return query

    def grid(self) -> Grid:
        assert self.resolution is not None  # noqa: S101 - only asked for where there is one
        return periods(self.from_date, self.to_date, self.resolution)


def table(timestamps: list[int], data: dict[str, list[Any]]) -> dict[str, Any]:
    """The ``result`` of a table: instants as text; every column as long as ``timestamps``."""
    return {"timestamps": [instant(time) for time in timestamps], "data": data}
