"""Random histories and random questions, for comparing any provider with the reference."""

from __future__ import annotations

import datetime
import random
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar
from zoneinfo import ZoneInfo

from openems.common.data import DataKind, Row
from openems.common.resolution import Resolution, Unit
from tests.backend.timedata.reference import MINUTE, Reference, edges

T = TypeVar("T")
HOUR, DAY = 60 * MINUTE, 1440 * MINUTE
COUNTER, POWER, MIXED = "m0/Counter", "m0/Power", "m0/Mixed"
#: Where calendars are difficult: (zone, local day).
PLACES = [
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/St_Johns", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("Australia/Lord_Howe", "2026-10-04"),
    ("Asia/Kolkata", "2026-06-30"),
    ("Asia/Kathmandu", "2028-02-29"),
    ("America/Santiago", "2026-09-06"),
    ("Pacific/Apia", "2011-12-29"),
    ("Europe/Berlin", "2027-12-31"),
    ("UTC", "2028-02-28"),
]
FINE = [(1, Unit.MINUTES), (5, Unit.MINUTES), (7, Unit.MINUTES), (15, Unit.MINUTES), (90, Unit.SECONDS)]
COARSE = [(1, Unit.HOURS), (7, Unit.HOURS), (1, Unit.DAYS), (3, Unit.DAYS), (1, Unit.WEEKS), (1, Unit.MONTHS)]
LONG = [(1, Unit.DAYS), (1, Unit.WEEKS), (1, Unit.MONTHS), (2, Unit.MONTHS), (1, Unit.YEARS)]


class Chance:
    """``randint`` with both ends included."""

    def __init__(self, randint: Any) -> None:
        self.randint = randint

    @classmethod
    def of_seed(cls, seed: int) -> Chance:
        return cls(random.Random(seed).randint)

    def choice(self, of: Sequence[T]) -> T:
        return of[self.randint(0, len(of) - 1)]

    def once_in(self, n: int) -> bool:
        return bool(self.randint(1, n) == n)


class Question(NamedTuple):
    start: int
    end: int
    zone: ZoneInfo
    resolution: Resolution

    @property
    def dates(self) -> tuple[datetime.datetime, datetime.datetime]:
        return (
            datetime.datetime.fromtimestamp(self.start / 1000, self.zone),
            datetime.datetime.fromtimestamp(self.end / 1000, self.zone),
        )

    @property
    def edges(self) -> list[int]:
        return edges(self.start, self.end, self.zone, self.resolution)

    @property
    def length(self) -> int | None:
        value, unit = self.resolution.value, self.resolution.unit
        return {Unit.SECONDS: 1000, Unit.MINUTES: MINUTE, Unit.HOURS: HOUR}.get(unit, 0) * value or None


class Scenario(NamedTuple):
    #: In this order; None: the provider may roll up or restart.
    writes: list[tuple[DataKind, dict[int, Row]] | None]
    questions: list[Question]

    def written(self) -> Reference:
        reference = Reference()
        for write in self.writes:
            if write is not None:
                reference.write(*write)
        return reference


def scenario(chance: Chance, *, mixed: bool = True, late: bool = True, aligned: bool = False) -> Scenario:
    """``mixed``: with texts among numbers. ``late``: rows come in any order, again, and with other values. ``aligned``:
    all periods begin and end on five minutes."""
    name, date = chance.choice(PLACES)
    zone = ZoneInfo(name)
    base = round(datetime.datetime.fromisoformat(date).replace(tzinfo=zone).timestamp()) * 1000
    long = chance.once_in(3)
    time = base - chance.randint(0, 3) * (DAY if long else HOUR) + chance.choice((0, 1, -1, 299_999, 150_000))
    rows: dict[int, Row] = {}
    counter = chance.randint(0, 1000)
    gaps = (1, 1_000, 59_000, 299_000, 300_000, 301_000, 309_999, 310_000, 310_001, 5 * MINUTE * 7, 2 * HOUR)
    for _ in range(chance.randint(1, 40)):
        row: Row = {}
        if not chance.once_in(4):
            counter = chance.randint(0, 5) if chance.once_in(8) else counter + chance.randint(0, 30)
            row[COUNTER] = counter
        if not chance.once_in(3):
            row[POWER] = chance.randint(-80, 80) / 8
        if mixed and chance.once_in(3):
            row[MIXED] = chance.choice((1, 2.5, True, "a", "b", None))
        rows[time] = row
        time += chance.choice((HOUR, DAY, 5 * DAY, 31 * DAY)) if long and chance.once_in(3) else chance.choice(gaps)
    last = time
    writes = _parts(chance, rows, late)
    questions = []
    for _ in range(4):
        start = base + chance.randint(-1, 2) * (DAY if long else HOUR)
        if not aligned:
            start += chance.choice((0, 0, 5 * MINUTE, 90_500))
        value, unit = chance.choice(LONG if last - base > 40 * DAY else COARSE if long else FINE + COARSE)
        if aligned and value in (1, 7, 90) and unit in (Unit.MINUTES, Unit.SECONDS):
            value, unit = 10, Unit.MINUTES
        hours = chance.choice((1, 3, 24, 25)) if (value, unit) in FINE else chance.choice((3, 25, 24 * 8, 24 * 70))
        end = start + hours * HOUR - (0 if aligned else chance.choice((0, 0, 1, 100_000)))
        if not aligned and not long and chance.once_in(4):
            # Perhaps between two neighbouring samples.
            start = chance.choice(list(rows)) + chance.choice((0, 1, MINUTE))
            end = start + chance.choice((1, MINUTE, 4 * MINUTE))
        questions.append(Question(start, end, zone, Resolution(value, unit)))
    return Scenario(writes, questions)


def _parts(chance: Chance, rows: dict[int, Row], late: bool) -> list[tuple[DataKind, dict[int, Row]] | None]:
    pairs = list(rows.items())
    size = chance.randint(1, 12)
    parts = [dict(pairs[at : at + size]) for at in range(0, len(pairs), size)]
    if not late:
        return [(chance.choice((DataKind.TIMESTAMPED, DataKind.RESEND)), part) for part in parts]
    writes: list[tuple[DataKind, dict[int, Row]] | None] = []
    while parts:
        part = parts.pop(0 if chance.once_in(2) else chance.randint(0, len(parts) - 1))
        kind = chance.choice((DataKind.TIMESTAMPED, DataKind.RESEND, DataKind.AGGREGATED))
        writes.append((kind, part))
        if chance.once_in(5):
            writes.append((chance.choice((DataKind.RESEND, kind)), part))
        if chance.once_in(6):
            changed: dict[int, Row] = {
                time: {c: v + 1 for c, v in row.items() if type(v) in (int, float)}  # type: ignore[operator]
                for time, row in part.items()
            }
            writes.append((DataKind.RESEND, changed))
        if chance.once_in(3):
            writes.append(None)
    return writes
