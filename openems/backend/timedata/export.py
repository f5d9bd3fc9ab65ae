"""Reading everything out of a history: what moving from one provider to another and checking one need.

A provider that can be copied from has something that provides :class:`ITimedataExport`.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Iterator, Mapping
from typing import Literal

import msgspec
from zope.interface import Interface

from openems.common.data import Row, Value


class ITimedataExport(Interface):
    """Times are epoch milliseconds. Raises OpenemsError, OSError or what the database's driver raises."""

    def export_edges() -> Awaitable[list[str]]:
        """All edges with history, sorted."""

    def export_span(edge_id: str) -> Awaitable[tuple[int, int] | None]:
        """Time of the first and of the last sample."""

    def export_count(edge_id: str, start: int, end: int) -> Awaitable[int]:
        """About how many samples :meth:`export` would give: cheap, so that a caller can choose its span."""

    def export(edge_id: str, start: int, end: int) -> Awaitable[dict[int, Row]]:
        """All samples of [start, end), in ascending order of time; the caller has chosen a span it can hold.

        Where only five-minute values are left, each of them becomes :func:`samples_of`."""

    def exact_from() -> Awaitable[int]:
        """From this time on samples are kept as they came."""


class Finding(msgspec.Struct, frozen=True):
    """One thing to know before trusting a database, and what can be done about it."""

    level: Literal["ok", "warning", "error"]
    text: str
    hint: str = ""


def samples_of(
    start: int, count: int, mean: float, first: float, last: float, rise: float | None, ends: tuple[int, int]
) -> dict[int, float]:
    """Few samples with the same first, last and rise as the many that are gone, and, but for counters, the same mean.

    >>> samples_of(0, 300, 10.0, 5.0, 7.0, None, (0, 299_000))
    {0: 5.0, 149500: 18.0, 299000: 7.0}
    """
    first_at, last_at = start + ends[0], start + ends[1]
    if count == 1 or first_at == last_at:
        return {last_at: last}
    result = {first_at: first}
    middle = (first_at + last_at) // 2
    # A counter: in between it was somewhere in between.
    if rise != last - first and first_at < middle < last_at:
        result[middle] = 3 * mean - first - last
    result[last_at] = last
    return result


class Digest(msgspec.Struct):
    """Number and checksum of samples, whatever their order. Numbers count in double precision, booleans as numbers."""

    count: int = 0
    checksum: int = 0

    def add(self, time: int, channel: str, value: Value) -> None:
        self.count += 1
        text = f"{time} {channel} {plain(value)!r}".encode(errors="replace")
        self.checksum = (self.checksum + zlib.crc32(text)) & 0xFFFFFFFFFFFF


def plain(value: Value) -> float | str | None:
    """How a value is compared."""
    return float(value) if isinstance(value, int | float) else value


def cells(rows: Mapping[int, Row]) -> Iterator[tuple[int, str, Value]]:
    for time, row in rows.items():
        for channel, value in row.items():
            yield time, channel, value


def sharing_a_number(edges: list[str]) -> dict[int, list[str]]:
    """Edges whose names end in the same number: InfluxDB keeps the number only, and cannot tell them apart.

    >>> sharing_a_number(["edge5", "edge6", "fems5", "lab"])
    {5: ['edge5', 'fems5']}
    """
    by_number: dict[int, list[str]] = {}
    for edge in edges:
        digits = edge[len(edge.rstrip("0123456789")) :]
        if digits and len(digits) < 19:
            by_number.setdefault(int(digits), []).append(edge)
    return {number: names for number, names in sorted(by_number.items()) if len(names) > 1}
