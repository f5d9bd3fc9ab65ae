"""Five minutes of values as one (edge.md 4.5). Pure.

Cumulated values (counters): the largest; enums: the most frequent, of several the one seen last; other numbers: the
mean, integers rounded half up; texts: the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from openems.common.data import Row, Value

#: Ends of addresses whose values are enums.
ENUMS = ("/State", "/GridMode")


def mean(values: Sequence[int | float]) -> int | float:
    """
    >>> mean([2, 7]), mean([2.9, 7.1])
    (5, 5.0)
    """
    result = sum(values) / len(values)
    return math.floor(result + 0.5) if all(isinstance(value, int) for value in values) else result


class Window:
    """Collects the rows of one window."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._values: dict[str, list[Value]] = {}

    def add(self, row: Row) -> None:
        for address, value in row.items():
            if value is not None:
                self._values.setdefault(address, []).append(value)

    def result(self) -> Row:
        """Without the addresses that had no value."""
        return {address: _aggregate(address, values) for address, values in sorted(self._values.items())}


def mode(values: Sequence[int | float]) -> int | float:
    """
    >>> mode([1, 3, 3]), mode([1, 2, 3]), mode([3, 2, 1])
    (3, 3, 1)
    """
    last = {value: index for index, value in enumerate(values)}
    return max(last, key=lambda value: (values.count(value), last[value]))


def _aggregate(address: str, values: list[Value]) -> Value:
    numbers = [value for value in values if isinstance(value, int | float)]
    if not numbers:
        return values[0]
    if address.endswith("Energy"):
        return max(numbers)
    return mode(numbers) if address.endswith(ENUMS) else mean(numbers)
