"""The current values of one edge (edge.md 3.10).

Two stores, ``current`` from timestampedData and ``aggregated`` from aggregatedData, each with its own clock, which is
the edge's. Data older than the newest is ignored; a gap of more than 15 minutes empties the store first. There is no
expiry by wall clock.
"""

from __future__ import annotations

from collections.abc import Iterable

from openems.common.channel import MAX_LENGTH
from openems.common.data import Row, Value

#: Milliseconds between two timestamps after which old values say nothing any more.
GAP = 900_000
#: Channels one edge may have.
MAX_CHANNELS = 10_000
_SCALARS = frozenset({int, float, str, bool, type(None)})


class Store:
    """``dropped``: reason -> values that were no channel, no scalar, or too many."""

    __slots__ = ("dropped", "timestamp", "values")

    def __init__(self) -> None:
        self.timestamp = 0
        self.values: dict[str, Value] = {}
        self.dropped: dict[str, int] = {}

    def update(self, rows: dict[int, Row]) -> None:
        """``rows`` in ascending order of time. Hot path."""
        for time, row in rows.items():
            values = self.values
            if time < self.timestamp:
                # A little older: late. Much older: the edge's clock was ahead and has been set right; without this its
                # values would stand still until the clock has caught up.
                if self.timestamp - time <= GAP:
                    continue
                values.clear()
            elif time > self.timestamp + GAP:
                values.clear()
            self.timestamp = time
            before = len(values)
            if not _SCALARS.issuperset(map(type, row.values())):
                row = self._scalars(row)
            values.update(row)
            if len(values) != before:
                self._check_new(before)

    def _scalars(self, row: Row) -> Row:
        clean = {address: value for address, value in row.items() if type(value) in _SCALARS}
        self._count("value", len(row) - len(clean))
        return clean

    def _check_new(self, before: int) -> None:
        """The values after the first ``before`` are new; dicts keep the order of insertion."""
        new = list(self.values)[before:]
        bad = [address for address in new if "/" not in address or len(address) > MAX_LENGTH]
        for address in bad:
            del self.values[address]
        self._count("address", len(bad))
        if len(self.values) > MAX_CHANNELS:
            surplus = list(self.values)[MAX_CHANNELS:]
            for address in surplus:
                del self.values[address]
            self._count("channels", len(surplus))

    def _count(self, reason: str, number: int) -> None:
        if number:
            self.dropped[reason] = self.dropped.get(reason, 0) + number


class EdgeCache:
    __slots__ = ("aggregated", "current")

    def __init__(self) -> None:
        self.current = Store()
        self.aggregated = Store()

    def get(self, address: str) -> Value:
        """None also where nothing is known."""
        current = self.current.values
        return current[address] if address in current else self.aggregated.values.get(address)

    def get_channel_values(self, addresses: Iterable[str]) -> dict[str, Value]:
        """Every address in ascending order. A null in ``current`` hides the value in ``aggregated``."""
        current = self.current.values
        aggregated = self.aggregated.values
        return {
            address: current[address] if address in current else aggregated.get(address)
            for address in sorted(addresses)
        }

    def only_aggregated(self, addresses: Iterable[str]) -> set[str]:
        """Those of ``addresses`` whose value came from aggregatedData."""
        return {a for a in addresses if a not in self.current.values and a in self.aggregated.values}
