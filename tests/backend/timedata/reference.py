"""What every history answers, in the plainest words: lists of samples, no index, no roll-up, no SQL.

The rules are those of timedata.md 13, timedata-timescaledb.md 24 and docs of the providers; nothing of the project's
own arithmetic (energy, grids, holes) is used, so that a mistake there shows as a difference.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence

from openems.common.data import DataKind, Row, Value
from openems.common.resolution import Resolution, Unit

UTC = datetime.UTC
MINUTE = 60_000
#: Neighbouring samples that near leave no hole between them.
CARRY = 310_000
_ELAPSED = {Unit.MILLIS: 1, Unit.SECONDS: 1_000, Unit.MINUTES: MINUTE, Unit.HOURS: 60 * MINUTE}
Number = int | float


def local(time: int, zone: datetime.tzinfo) -> datetime.datetime:
    return (datetime.datetime(1970, 1, 1, tzinfo=UTC) + datetime.timedelta(milliseconds=time)).astimezone(zone)


def first_instant(date: datetime.date, zone: datetime.tzinfo) -> int:
    """Of a local day: quarter of an hour by quarter of an hour from well before it."""
    time = int(datetime.datetime(date.year, date.month, date.day, tzinfo=UTC).timestamp()) * 1000 - 900 * MINUTE
    while local(time, zone).date() < date:
        time += 15 * MINUTE
    return time


def edges(start: int, end: int, zone: datetime.tzinfo, resolution: Resolution) -> list[int]:
    """Where periods begin, and the end of the last one."""
    found = [start]
    date = local(start, zone).date()
    while found[-1] < end:
        if resolution.unit in _ELAPSED:
            found.append(found[-1] + resolution.value * _ELAPSED[resolution.unit])
            continue
        for _ in range(resolution.value * (7 if resolution.unit is Unit.WEEKS else 1)):
            if resolution.unit in (Unit.DAYS, Unit.WEEKS):
                date += datetime.timedelta(days=1)
            elif resolution.unit is Unit.MONTHS:
                date = (date.replace(day=28) + datetime.timedelta(days=4)).replace(day=1)
            else:
                date = datetime.date(date.year + 1, 1, 1)
        following = first_instant(date, zone)
        if following > found[-1]:
            found.append(following)
    return [*found[:-1], end]


class Reference:
    def __init__(self) -> None:
        self.numbers: dict[str, dict[int, Number]] = {}
        self.texts: dict[str, dict[int, str]] = {}
        self._timestamped: set[str] = set()

    def restarted(self) -> None:
        self._timestamped.clear()

    def write(self, kind: DataKind, rows: dict[int, Row]) -> None:
        for time, row in rows.items():
            for channel, value in row.items():
                if kind is DataKind.TIMESTAMPED:
                    self._timestamped.add(channel)
                if value is None or (kind is DataKind.AGGREGATED and channel in self._timestamped):
                    continue
                if isinstance(value, str):
                    self.texts.setdefault(channel, {})[time] = value
                else:
                    self.numbers.setdefault(channel, {})[time] = value

    def samples(self, channel: str, start: int, end: int) -> list[tuple[int, Number]]:
        return sorted((time, value) for time, value in self.numbers.get(channel, {}).items() if start <= time < end)

    def means(self, edges: Sequence[int], channel: str, length: int | None) -> list[Value] | None:
        """``length`` of the periods in ms where they have one by definition (hours and shorter units)."""
        column: list[Value] = []
        known = self.samples(channel, 0, 1 << 60)
        for start, end in itertools.pairwise(edges):
            values = [value for time, value in known if start <= time < end]
            column.append(sum(values) / len(values) if values else None)
        if length is not None and length <= CARRY:
            for (before, value), (after, _) in itertools.pairwise(known):
                for index, (start, end) in enumerate(itertools.pairwise(edges)):
                    if after - before <= CARRY and before < start and end <= after:
                        column[index] = value
        for time, text in sorted(self.texts.get(channel, {}).items()):
            for index, (start, end) in enumerate(itertools.pairwise(edges)):
                if start <= time < end and not self.samples(channel, start, end) and not _number(column[index]):
                    column[index] = text
        return column if any(value is not None for value in column) else None

    def rises(self, edges: Sequence[int], channel: str) -> list[Number | None] | None:
        column: list[Number | None] = []
        for start, end in itertools.pairwise(edges):
            before = self.samples(channel, 0, edges[0])[-1:] + self.samples(channel, edges[0], start)
            values = [value for _, value in before[-1:] + self.samples(channel, start, end)]
            rises = [b - a for a, b in itertools.pairwise(values) if b >= a]
            column.append(sum(rises) if rises else None)
        return column if any(value is not None for value in column) else None

    def newest_before(self, time: int, channel: str) -> Value:
        numbers = self.samples(channel, 0, time)[-1:]
        texts = sorted((at, text) for at, text in self.texts.get(channel, {}).items() if at < time)[-1:]
        if texts and (not numbers or texts[0][0] > numbers[0][0]):
            return texts[0][1]
        return numbers[0][1] if numbers else None


def _number(value: Value) -> bool:
    return value is not None and not isinstance(value, str)
