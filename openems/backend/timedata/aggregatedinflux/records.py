"""What is kept of an edge's five-minute rows (timedata.md 9.2). Pure.

An average is stored at the time of its row. The reading of a day is that of a row between 23:55 and midnight of a
configured zone; it is stored **at the beginning of that day**: the record of a day says how far its counters were when
it ended.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping

from openems.backend.timedata.aggregatedinflux.allowed import AllowedChannels
from openems.backend.timedata.spoolfile import Item
from openems.common.data import Row
from openems.common.resolution import SECOND, UTC, Grid, start_of_day


def day_of_reading(time: int, zone: datetime.tzinfo) -> int | None:
    """Epoch ms of the beginning of the local day that ends within five minutes after ``time``; None at other times."""
    local = datetime.datetime.fromtimestamp(time / 1000, zone)
    if local.hour != 23 or local.minute < 55:
        return None
    return start_of_day(local.date(), zone)


def kept(rows: Mapping[int, Row], allowed: AllowedChannels, zones: Iterable[datetime.tzinfo]) -> dict[int, Row]:
    """The part of the rows that is stored at all."""
    averages, counters = allowed.averages, allowed.counters
    result: dict[int, Row] = {}
    for time, row in rows.items():
        reading = any(day_of_reading(time, zone) is not None for zone in zones)
        good: Row = {
            channel: value
            for channel, value in row.items()
            if (channel in averages or (reading and channel in counters)) and _is_number(value)
        }
        if good:
            result[time] = good
    return result


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _stored(row: Row, names: Mapping[str, bool]) -> Row:
    result: Row = {}
    for channel, value in row.items():
        as_float = names.get(channel)
        if as_float is not None and isinstance(value, int | float):
            result[channel] = float(value) if as_float else int(value)
    return result


def averages(items: Iterable[Item], allowed: AllowedChannels) -> list[Item]:
    """Items for the averages, times in seconds."""
    return [
        (edge, kind, {time // SECOND: _stored(row, allowed.averages) for time, row in rows.items()})
        for edge, kind, rows in items
    ]


def readings(items: Iterable[Item], allowed: AllowedChannels, zone: datetime.tzinfo) -> list[Item]:
    """Items for the readings of days of one zone, times in seconds."""
    result: list[Item] = []
    for edge, kind, rows in items:
        days: dict[int, Row] = {}
        for time, row in rows.items():
            day = day_of_reading(time, zone)
            if day is not None:
                # A later row of the same five minutes has the newer reading.
                days.setdefault(day // SECOND, {}).update(_stored(row, allowed.counters))
        if days:
            result.append((edge, kind, days))
    return result


def whole_days(grid: Grid, zone: datetime.tzinfo) -> bool:
    """Whether every period begins and ends at a midnight of that zone: nothing finer can be answered from readings."""
    return all(_is_midnight(edge, zone) for edge in grid.edges)


def _is_midnight(time: int, zone: datetime.tzinfo) -> bool:
    date = datetime.datetime.fromtimestamp(time / 1000, UTC).astimezone(zone).date()
    return start_of_day(date, zone) == time
