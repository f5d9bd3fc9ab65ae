"""Energy from counters: how far a counter rose over a span or in each period of it (timedata-timescaledb.md 24.3).

One definition for all providers:

- The rise between two neighbouring samples is their difference. A smaller value is a restart of the counter: it rises
  by nothing and is what later samples are compared with. So a result is never negative, and a restart costs only what
  was counted while nobody looked.
- The rise over several samples is the sum of these; None where there is no difference that counts: no sample, a single
  one with nothing before it, or only restarts.
- Each period is compared with the last sample before it, however old. So **the periods add up to the span**, across
  gaps, restarts and clock changes, and what happened in a gap belongs to the period in which the counter is seen again.
- Without a sample before the span its first sample is where counting starts; it is never taken for energy itself.

Everything that is needed of a stretch of samples is its :class:`Stretch`; stretches can be joined in any grouping.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from openems.common.data import Value
from openems.common.resolution import Grid

Number = int | float


class Stretch(NamedTuple):
    """Samples of one counter in a stretch of time: first and last value, and the rise between them (or None)."""

    first: Number
    last: Number
    rise: Number | None

    def then(self, later: Stretch) -> Stretch:
        """This stretch and a later one as one. Associative."""
        return Stretch(self.first, later.last, add(add(self.rise, difference(self.last, later.first)), later.rise))


def difference(before: Number, after: Number) -> Number | None:
    """Rise from one sample to the next, None at a restart.

    >>> difference(1000, 1040), difference(1040, 0)
    (40, None)
    """
    return after - before if after >= before else None


def add(one: Number | None, other: Number | None) -> Number | None:
    """Sum of what is known."""
    if one is None:
        return other
    return one if other is None else one + other


def stretch(values: Iterable[Number]) -> Stretch | None:
    """The stretch of samples in order of time; None if there are none.

    >>> stretch([1000, 1040, 0, 25])
    Stretch(first=1000, last=25, rise=65)
    """
    result: Number | None = None
    first: Number | None = None
    last: Number = 0
    for value in values:
        if first is None:
            first = value
        elif value >= last:
            result = value - last if result is None else result + (value - last)
        last = value
    return None if first is None else Stretch(first, last, result)


def rises(base: Number | None, stretches: Sequence[Stretch | None]) -> list[Number | None]:
    """Energy of each period. ``base`` is the last value before the first period, ``stretches`` has one a period.

    >>> rises(100, [Stretch(110, 130, 20), None, Stretch(135, 135, None)])
    [30, None, 5]
    """
    result: list[Number | None] = []
    for part in stretches:
        if part is None:
            result.append(None)
            continue
        result.append(part.rise if base is None else add(difference(base, part.first), part.rise))
        base = part.last
    return result


def total(base: Number | None, stretches: Iterable[Stretch | None]) -> Number | None:
    """Energy of the whole span: the sum of :func:`rises`.

    >>> total(None, [Stretch(1000, 1040, 40), Stretch(0, 25, 25)])
    65
    """
    result: Number | None = None
    for rise in rises(base, list(stretches)):
        result = add(result, rise)
    return result


def by_period(samples: Mapping[int, Value] | Sequence[tuple[int, Value]], grid: Grid) -> list[Stretch | None]:
    """Samples (epoch ms, value) in ascending order as one stretch a period; what is no number is passed over."""
    pairs = samples.items() if isinstance(samples, Mapping) else samples
    values: list[list[Number]] = [[] for _ in grid.starts]
    start, end = grid.start, grid.end
    for time, value in pairs:
        if start <= time < end and isinstance(value, int | float):
            values[grid.index(time)].append(value)
    return [stretch(part) for part in values]


def normalise(rows: Mapping[int, Mapping[str, Value]], channels: Sequence[str], grid: Grid) -> dict[str, list[Value]]:
    """Rows at any times as one value a period: the first row inside each, None where there is none (timedata.md 4.4).

    ``rows`` in ascending order of time. Linear in rows and periods.
    """
    picked: list[Mapping[str, Value] | None] = [None] * len(grid)
    for time, row in rows.items():
        if grid.start <= time < grid.end:
            index = grid.index(time)
            if picked[index] is None:
                picked[index] = row
    return {channel: [None if row is None else row.get(channel) for row in picked] for channel in channels}
