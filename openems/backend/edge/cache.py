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
#: Characters of all the texts among its values.
MAX_TEXT = 4 * 1024 * 1024
_SCALARS = frozenset({int, float, str, bool, type(None)})


class Store:
    """``dropped``: reason -> values that were no channel, no scalar, too many, or too long."""

    __slots__ = ("_text", "dropped", "timestamp", "values")

    def __init__(self) -> None:
        self.timestamp = 0
        self.values: dict[str, Value] = {}
        self.dropped: dict[str, int] = {}
        #: Characters of texts, at least those that are there.
        self._text = 0

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
            kinds = set(map(type, row.values()))
            if not kinds <= _SCALARS:
                row = self._scalars(row)
            if str in kinds:
                row = self._bounded(row)
            values.update(row)
            if len(values) != before:
                self._check_new(before)

    def restore(self, timestamp: int, values: dict[str, Value]) -> None:
        """As it was when it had these."""
        self.timestamp = timestamp
        self.values = values
        self._text = sum(len(value) for value in values.values() if type(value) is str)

    def _scalars(self, row: Row) -> Row:
        clean = {address: value for address, value in row.items() if type(value) in _SCALARS}
        self._count("value", len(row) - len(clean))
        return clean

    def _bounded(self, row: Row) -> Row:
        """Without its texts where they would be too much."""
        more = sum(len(value) for value in row.values() if type(value) is str)
        self._text += more
        if self._text > MAX_TEXT:
            # What was replaced or forgotten since is still counted.
            kept = sum(len(v) for address, v in self.values.items() if type(v) is str and address not in row)
            self._text = kept + more
            if self._text > MAX_TEXT:
                self._text = kept
                bounded = {address: value for address, value in row.items() if type(value) is not str}
                for address in row.keys() - bounded.keys():
                    self.values.pop(address, None)
                self._count("text", len(row) - len(bounded))
                return bounded
        return row

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
