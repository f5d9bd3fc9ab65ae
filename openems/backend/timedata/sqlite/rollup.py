"""Rows of the table ``rollup``: what is kept of the samples of one bucket. Pure."""

from __future__ import annotations

from typing import Any

from openems.common.energy import Number, Stretch, stretch

_NOTHING = Stretch(0, 0, None)


def rollup_row(series: int, bucket: int, samples: list[tuple[int, Number]]) -> tuple[Any, ...]:
    """The row of table ``rollup`` for the (time, value) ``samples`` of one bucket, in ascending order of time."""
    values = [value for _, value in samples]
    part = stretch(values) or _NOTHING
    average = sum(values) / len(values)
    ends = (samples[0][0] - bucket, samples[-1][0] - bucket)
    low, high, rise = min(values), max(values), _column(part.rise)
    return (series, bucket, len(values), average, low, high, part.first, part.last, rise, *ends)


def _column(rise: Number | None) -> Number | None:
    """A counter that jumps to and fro rises further than an INTEGER can hold."""
    return rise if rise is None or rise < 2**63 else float(rise)


COUNT, FIRST_AT, LAST_AT = 2, 9, 10


def joined(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """The roll-up row of two parts of one bucket, the earlier first."""
    series, bucket, count, average, low, high, first, last, rise, first_at, _ = one
    part = Stretch(first, last, rise).then(Stretch(*other[6:9]))
    total = count + other[COUNT]
    average = (average * count + other[3] * other[COUNT]) / total
    ends = (first_at, other[LAST_AT])
    low, high, rise = min(low, other[4]), max(high, other[5]), _column(part.rise)
    return (series, bucket, total, average, low, high, part.first, part.last, rise, *ends)
