"""What of an edge's data a database is given at all: bounds on times, values, names and their number (timedata.md 14).

The same for every provider with a database behind it, so that their answers agree:

- times from ``earliest`` to an hour ahead of now;
- numbers below 1e18, texts of up to 4,096 characters that are valid Unicode; booleans are 1 and 0 (timedata.md 14, 10);
  nothing for null;
- addresses of up to 255 characters of a component id as Java accepts it (timedata.md 5.7), not denied and, where there
  is an allow list, on it; patterns with one ``*`` in each part (wire.md 4.4);
- up to ``max_channels`` channels an edge;
- ``aggregatedData`` only for channels that the edge did not send as ``timestampedData`` (timedata.md 5.2).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import hypot

from openems.backend.timedata.sharedsets import NONE, Names, SharedSets
from openems.common.channel import MAX_LENGTH, is_component_id, match
from openems.common.data import MIN_TIME, DataKind, Row

_PLAIN = frozenset((int, float))
#: What an edge's clock may be ahead, ms.
FUTURE = 3_600_000
HUGE = 10**18
MAX_TEXT = 4_096
MAX_CHANNELS = 10_000
MAX_EDGES = 200_000


class ChannelFilter:
    """Which addresses are stored. ``denied_ids`` are channel ids, whatever their component."""

    def __init__(
        self,
        denied: Iterable[str] = (),
        denied_ids: Iterable[str] = (),
        allowed: Iterable[str] = (),
        strict: bool = True,
    ) -> None:
        self._denied = _Patterns(denied)
        self._denied_ids = frozenset(denied_ids)
        allowed = list(allowed)
        self._allowed = _Patterns(allowed) if allowed else None
        self._strict = strict

    def valid(self, address: str) -> bool:
        """
        >>> ChannelFilter(denied=["ess*/Debug*"]).valid("ess0/DebugPower")
        False
        """
        component, slash, channel = address.partition("/")
        if not slash or not component or not channel or channel in self._denied_ids:
            return False
        if len(address) > MAX_LENGTH or (self._strict and not is_component_id(component)):
            return False
        if self._denied.has(address):
            return False
        return self._allowed is None or self._allowed.has(address)


class _Patterns:
    def __init__(self, patterns: Iterable[str]) -> None:
        texts = list(patterns)
        self._exact = frozenset(text for text in texts if "*" not in text)
        self._wild = [text for text in texts if "*" in text]

    def has(self, address: str) -> bool:
        return address in self._exact or any(match(address, pattern) >= 0 for pattern in self._wild)


def is_unicode(text: str) -> bool:
    """Whether a database can hold it: no lone surrogates, no NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _usual(row: Row) -> bool:
    """Numbers only, none of them huge."""
    values = row.values()
    try:
        # A vector is no shorter than any of its parts is long; not a number compares false.
        return _PLAIN.issuperset(map(type, values)) and hypot(*values) < HUGE  # type: ignore[arg-type]
    except OverflowError:  # a whole number that no float can hold
        return False


class Channels:
    """What is known of one edge: channels that may be stored, those sent as ``timestampedData``, and both at once."""

    __slots__ = ("known", "refused", "settled", "timestamped")

    def __init__(self) -> None:
        self.known: Names = NONE
        self.refused: dict[str, str] = {}
        self.timestamped: Names = NONE
        self.settled: Names = NONE


class Plausibility:
    """Sorts out what cannot be right. One for each provider; not for several threads at once.

    ``dropped`` counts values by reason: time, number, text, type, address (denied ones too), channels, edge.
    """

    def __init__(
        self,
        *,
        channels: ChannelFilter | None = None,
        max_channels: int = MAX_CHANNELS,
        max_edges: int = MAX_EDGES,
        earliest: int = MIN_TIME,
        latest: int | None = None,
        texts: bool = True,
    ) -> None:
        self._filter = channels or ChannelFilter(strict=False)
        self._max_channels = max_channels
        self._max_edges = max_edges
        self._earliest = earliest
        self._latest = latest
        self._texts = texts
        self._edges: dict[str, Channels] = {}
        self._sets = SharedSets()
        self.dropped: dict[str, int] = {}
        #: reason -> (edge id, channel) of the first
        self.first_dropped: dict[str, tuple[str, str]] = {}

    def rows(self, edge_id: str, kind: DataKind, rows: dict[int, Row], now: int) -> dict[int, Row]:
        """What may be stored of a notification. Rows that are fine as they are come back as they are."""
        edge = self._edges.get(edge_id)
        if edge is None:
            if not 0 < len(edge_id) <= MAX_LENGTH or not is_unicode(edge_id) or len(self._edges) >= self._max_edges:
                self._drop("edge", edge_id[:MAX_LENGTH], "", sum(map(len, rows.values())))
                return {}
            edge = self._edges[edge_id] = Channels()
        latest = now + FUTURE if self._latest is None else min(now + FUTURE, self._latest)
        result: dict[int, Row] = {}
        sent: list[Row] = []
        admitted: set[str] = set()
        for time, row in rows.items():
            if not self._earliest <= time <= latest:
                if row:
                    self._drop("time", edge_id, next(iter(row)), len(row))
                continue
            if kind is DataKind.TIMESTAMPED:
                # The usual row: channels known to be sent like this, plain numbers.
                if edge.settled.issuperset(row) and row and _usual(row):
                    result[time] = row
                    continue
                sent.append(row)
            elif kind is DataKind.AGGREGATED and edge.timestamped:
                timestamped = edge.timestamped
                row = {channel: value for channel, value in row.items() if channel not in timestamped}
            good = self._row(edge_id, edge, row, admitted)
            if good:
                result[time] = good
        if admitted or sent:
            self._remember(edge, sent, admitted)
        return result

    def _remember(self, edge: Channels, sent: list[Row], admitted: set[str]) -> None:
        timestamped = self._sets.plus(edge.timestamped, sent, self._max_channels)
        known = self._sets.plus(edge.known, [admitted], self._max_channels)
        if timestamped is not edge.timestamped or known is not edge.known:
            edge.timestamped, edge.known = timestamped, known
            edge.settled = self._sets.one(known & timestamped)

    def _row(self, edge_id: str, edge: Channels, row: Row, admitted: set[str]) -> Row:
        """``admitted`` gets the channels that may be stored from now on."""
        known = edge.known
        if known.issuperset(row) and _usual(row):
            return row
        good: Row = {}
        for channel, value in row.items():
            if value is None:
                continue
            if channel not in known and channel not in admitted and not self._admit(edge_id, edge, channel, admitted):
                continue
            type_ = type(value)
            if type_ is bool:
                value = int(value)
            elif type_ is int or type_ is float:
                # Not a number compares false on both sides.
                if not -HUGE < value < HUGE:  # type: ignore[operator]
                    self._drop("number", edge_id, channel)
                    continue
            elif type_ is not str:
                self._drop("type", edge_id, channel)
                continue
            elif not self._texts or len(value) > MAX_TEXT or not is_unicode(value):  # type: ignore[arg-type]
                self._drop("text", edge_id, channel)
                continue
            good[channel] = value
        return good

    def _admit(self, edge_id: str, edge: Channels, channel: str, admitted: set[str]) -> bool:
        reason = edge.refused.get(channel)
        if reason is None:
            if not self._filter.valid(channel):
                reason = "address"
            elif not is_unicode(channel) or not channel.isprintable():
                reason = "address"
            elif len(edge.known) + len(admitted) >= self._max_channels:
                reason = "channels"
            else:
                admitted.add(channel)
                return True
            if len(edge.refused) < self._max_channels:
                edge.refused[channel] = reason
        self._drop(reason, edge_id, channel)
        return False

    def _drop(self, reason: str, edge_id: str, channel: str, count: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        self.first_dropped.setdefault(reason, (edge_id, channel[:MAX_LENGTH]))
