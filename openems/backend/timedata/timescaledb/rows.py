"""From notifications to statements: pure, and the hottest part of writing.

A statement carries arrays as text. Numbers become text all at once, by the JSON encoder; a row's time is repeated as
text. Nothing is done for each single value in Python where a whole row can be looked at in one call.

- A sample is (series, time) -> value; the same time again replaces it. PostgreSQL refuses a key twice in a statement,
  so a second row of an edge for the same time begins the next one.
- What is stored at all is said in plausibility.py; here it is done for whole rows.
"""

# ruff: noqa: S608 - what is put into these texts are numbers and times of our own
from __future__ import annotations

from math import hypot
from typing import Any

import orjson

from openems.backend.timedata.plausibility import HUGE, MAX_TEXT, is_unicode
from openems.backend.timedata.timescaledb.migrations import LOCKS, WRITE
from openems.backend.timedata.timescaledb.series import Edge
from openems.common.data import Row, Value

BUCKET = 300_000
DAY = 86_400_000
#: Rows of one statement: larger ones are hardly faster, and building one holds up the reactor.
ROWS = 5_000

_LOCK = f"SELECT pg_advisory_xact_lock_shared({LOCKS}, {WRITE});"
# Not 1000.0: that would be arithmetic of decimals, five times as slow.
_DIRTY = (
    "INSERT INTO ts_dirty SELECT e, to_timestamp(b::float8 / 1000) FROM unnest('%s'::int[], '%s'::bigint[]) AS u(e, b)"
    " ORDER BY 1, 2 ON CONFLICT DO NOTHING;"
)
_TXT = "UPDATE ts_series SET txt = true WHERE id = ANY('%s'::int[]) AND NOT txt;"
_UPSERT = (
    " ON CONFLICT (series_id, time) DO UPDATE SET value = excluded.value"
    " WHERE {0}.value IS DISTINCT FROM excluded.value;"
)
_NUM = (
    b"INSERT INTO ts_num (series_id, time, value) SELECT s, to_timestamp(m::float8 / 1000), v"
    b" FROM unnest('{%b}'::int[], '{%b}'::bigint[], '{%b}'::float8[]) AS u(s, m, v)" + _UPSERT.format("ts_num").encode()
)
_TEXTS = (
    "INSERT INTO ts_txt (series_id, time, value) SELECT s, to_timestamp(m::float8 / 1000), v"
    " FROM unnest(%s::int[], %s::bigint[], %s::text[]) AS u(s, m, v)" + _UPSERT.format("ts_txt")
)


def plain(row: Row, dropped: dict[str, int]) -> tuple[dict[str, int | float], dict[str, str]]:
    """The numbers and the texts of a row in which not all values are fine numbers."""
    numbers: dict[str, int | float] = {}
    texts: dict[str, str] = {}
    for channel, value in row.items():
        reason = _sort(channel, value, numbers, texts)
        if reason is not None:
            dropped[reason] = dropped.get(reason, 0) + 1
    return numbers, texts


def _sort(channel: str, value: Value, numbers: dict[str, int | float], texts: dict[str, str]) -> str | None:
    kind = type(value)
    if kind is int or kind is float:
        # Not a number compares false on both sides.
        if not -HUGE < value < HUGE:  # type: ignore[operator]
            return "number"
        numbers[channel] = value  # type: ignore[assignment]
    elif value is None:
        return None
    elif kind is bool:
        numbers[channel] = int(value)
    elif kind is str:
        if len(value) > MAX_TEXT or not is_unicode(value):  # type: ignore[arg-type]
            return "text"
        texts[channel] = value  # type: ignore[assignment]
    else:
        return "type"
    return None


def all_numbers(row: Row) -> bool:
    """Whether every value is a number (or a boolean) that can be stored: what edges nearly always send."""
    try:
        # Not smaller than any of them, and not a number if one is not.
        return hypot(*row.values()) < HUGE  # type: ignore[arg-type]
    except (TypeError, OverflowError):
        return False


class Statement:
    """Rows for one transaction. ``add`` until it says it is full, or cannot take a row; then ``sql``."""

    __slots__ = ("_ids", "_pairs", "_seen", "_texts", "_times", "_txt", "_values", "days", "rows")

    def __init__(self) -> None:
        self.rows = 0
        self._ids: list[int] = []
        self._times: list[str] = []
        self._values: list[int | float] = []
        self._texts: dict[tuple[int, int], str] = {}
        self._pairs: set[tuple[int, int]] = set()
        self._seen: set[tuple[int, int]] = set()
        #: Series that have a text for the first time -> the set of their edge that must know it.
        self._txt: dict[int, set[int]] = {}
        #: Days since the epoch of all rows.
        self.days: set[int] = set()

    def takes(self, edge: Edge, time: int) -> bool:
        """False if this edge's row of that time is in already."""
        return (edge.id, time) not in self._seen

    @property
    def full(self) -> bool:
        return self.rows >= ROWS

    def add(self, edge: Edge, time: int, numbers: dict[str, Any], texts: dict[str, str] | None = None) -> None:
        """All channels must be known to ``edge``, all values fine."""
        ids = edge.ids
        self._seen.add((edge.id, time))
        self.days.add(time // DAY)
        if numbers:
            self._pairs.add((edge.id, time - time % BUCKET))
            values = numbers.values()
            self._ids += map(ids.__getitem__, numbers)
            self._values += values
            self._times.append(f"{time}," * len(numbers))
            self.rows += len(numbers)
        if texts:
            for channel, text in texts.items():
                number = ids[channel]
                self._texts[number, time] = text
                if number not in edge.txt:
                    self._txt[number] = edge.txt
            self.rows += len(texts)

    def sql(self) -> tuple[bytes, tuple[Any, ...]]:
        """The statements, sent at once, in one transaction, and their parameters."""
        edges, buckets = [], []
        for edge_id, bucket in self._pairs:
            edges.append(edge_id)
            buckets.append(bucket)
        head = _LOCK + _DIRTY % (_array(edges), _array(buckets))
        if self._txt:
            head += _TXT % _array(sorted(self._txt))
        params: tuple[Any, ...] = ()
        if self._texts:
            head += _TEXTS
            keys = list(self._texts)
            params = ([k[0] for k in keys], [k[1] for k in keys], list(self._texts.values()))
        if not self._ids:
            return head.encode(), params
        times = "".join(self._times)[:-1].encode()
        values = orjson.dumps(self._values)[1:-1]
        if b"e" in values and (b"true" in values or b"false" in values):
            values = values.replace(b"true", b"1").replace(b"false", b"0")
        return head.encode() + _NUM % (orjson.dumps(self._ids)[1:-1], times, values), params

    def learn(self) -> None:
        """After it was committed: the marks are in the database."""
        for number, known in self._txt.items():
            known.add(number)


def _array(numbers: list[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"
