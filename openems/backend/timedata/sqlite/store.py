"""What is written to the embedded history, and how. Synchronous; the thread around it is in writer.py.

- A sample is (series, time) -> value; the same time again replaces it, so repeated and overlapping ranges do no harm.
- Booleans are 0 and 1. Nothing is stored for null, NaN, infinity, numbers of 1e18 and more, long or broken text,
  lists and objects; all but null are counted.
- ``aggregatedData`` is written only for channels that this edge did not send as ``timestampedData`` since the start
  (timedata.md 5.2); ``resendData`` always.
- A roll-up bucket is made once it has ended; what comes later either follows its samples and is joined, or the bucket
  is made anew from all its samples: repeated samples are harmless there too.
- Samples older than the raw retention go into the roll-up only; there the fuller of two overlapping parts stands.
- Retention is counted from the newest sample of this run where the clock is ahead of it: a clock that jumps deletes
  nothing.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable
from operator import itemgetter

from openems.backend.timedata.plausibility import FUTURE, HUGE, MAX_CHANNELS, MAX_TEXT
from openems.backend.timedata.sharedsets import NONE, Names, SharedSets
from openems.backend.timedata.sqlite import buckets, schema
from openems.backend.timedata.sqlite.schema import BUCKET
from openems.common.channel import MAX_LENGTH
from openems.common.data import MIN_TIME, DataKind, Row
from openems.common.energy import Number

DAY = 86_400_000
#: A bucket is rolled up when it ended that long ago: most stragglers have arrived by then.
GRACE = 60_000
EXPIRE_EVERY = 3_600_000

Item = tuple[str, DataKind, dict[int, Row]]

_INSERT_NUMBER = (
    "INSERT INTO number VALUES (?, ?, ?) ON CONFLICT (series, time) DO UPDATE SET value = excluded.value"
    " WHERE value IS NOT excluded.value"
)
_INSERT_TEXT = (
    "INSERT INTO text VALUES (?, ?, ?) ON CONFLICT (series, time) DO UPDATE SET value = excluded.value"
    " WHERE value IS NOT excluded.value"
)


class Store:
    """The file, seen by its writer. Every method belongs to one thread; all raise sqlite3.Error."""

    def __init__(
        self,
        path: str,
        now: int,
        *,
        retention_days_raw: int,
        retention_days_rollup: int,
        max_channels: int = MAX_CHANNELS,
    ) -> None:
        self._raw_age = retention_days_raw * DAY
        self._rollup_age = retention_days_rollup * DAY
        self._max_channels = max_channels
        #: reason -> values that were not stored
        self.dropped: dict[str, int] = {}
        #: reason -> the edge that was the first to give one
        self.first_dropped: dict[str, str] = {}
        self.rows = 0
        self._connection = schema.open_for_writing(path)
        self._series: dict[str, dict[str, int]] = {}
        self._with_text: set[int] = set()
        #: edge -> channels sent as timestampedData
        self._timestamped: dict[str, Names] = {}
        self._sets = SharedSets()
        #: buckets at or after ``rolled_until`` with samples -> their series
        self._open: dict[int, set[int]] = {}
        self._expiring: list[int] = []
        self._expired_at = 0
        #: Time of the newest sample taken since the start.
        self._newest = 0
        meta = dict(self._connection.execute("SELECT name, value FROM meta"))
        self.rolled_until: int = meta.get("rolled_until", 0)
        self.raw_from: int = meta.get("raw_from", 0)
        ids = []
        for id, edge, channel, text in self._connection.execute("SELECT id, edge, channel, text FROM series"):
            # The same few hundred names for all edges: one object each.
            self._series.setdefault(edge, {})[sys.intern(channel)] = id
            ids.append(id)
            if text:
                self._with_text.add(id)
        for id in ids:
            for (bucket,) in self._connection.execute(
                "SELECT DISTINCT time - time % ? FROM number WHERE series = ? AND time >= ?",
                (BUCKET, id, self.rolled_until),
            ):
                self._open.setdefault(bucket, set()).add(id)
        if not ids or self.raw_from > now:
            self._set_raw_from(now)
        self.roll(now, limit=0)

    @property
    def series(self) -> int:
        return sum(map(len, self._series.values()))

    def close(self) -> None:
        self._connection.close()

    def interrupt(self) -> None:
        """From any thread: what runs fails with sqlite3.OperationalError."""
        try:
            self._connection.interrupt()
        except sqlite3.ProgrammingError:
            pass  # closed just now

    def _transaction(self, work: Callable[[], None]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            work()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def apply(self, items: Iterable[Item], now: int) -> None:
        """Write the notifications in one transaction; all or nothing (counters included)."""
        new_series: list[tuple[str, str]] = []
        new_text: set[int] = set()
        dropped: dict[str, int] = {}
        numbers: list[tuple[int, int, Number]] = []
        texts: list[tuple[int, int, str]] = []

        def work() -> None:
            for edge, kind, rows in items:
                reasons = len(dropped)
                self._collect(edge, kind, rows, now + FUTURE, numbers, texts, dropped, new_series)
                if len(dropped) > reasons:
                    for reason in dropped:
                        self.first_dropped.setdefault(reason, edge[:MAX_LENGTH])
            if texts:
                self._connection.executemany(_INSERT_TEXT, texts)
                new_text.update({series for series, _, _ in texts} - self._with_text)
                if new_text:
                    self._connection.executemany("UPDATE series SET text = 1 WHERE id = ?", [(id,) for id in new_text])
            if numbers:
                self._write_numbers(numbers)

        try:
            self._transaction(work)
        except BaseException:
            for edge, channel in new_series:
                self._series[edge].pop(channel, None)
            raise
        self._with_text |= new_text
        self.rows += len(numbers) + len(texts)
        for reason, count in dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def _collect(
        self,
        edge: str,
        kind: DataKind,
        rows: dict[int, Row],
        latest: int,
        numbers: list[tuple[int, int, Number]],
        texts: list[tuple[int, int, str]],
        dropped: dict[str, int],
        new_series: list[tuple[str, str]],
    ) -> None:
        ids = self._series.get(edge)
        if ids is None:
            if not 0 < len(edge) <= MAX_LENGTH or not storable(edge):
                dropped["edge"] = dropped.get("edge", 0) + sum(map(len, rows.values()))
                return
            ids = self._series[edge] = {}
        timestamped = self._timestamped.get(edge, NONE)
        if kind is DataKind.TIMESTAMPED:
            timestamped = self._sets.plus(timestamped, rows.values(), self._max_channels)
            self._timestamped[edge] = timestamped
        earliest = max(MIN_TIME, latest - FUTURE - self._rollup_age)
        for time, row in rows.items():
            if not earliest <= time <= latest:
                dropped["time"] = dropped.get("time", 0) + len(row)
                continue
            if time > self._newest:
                self._newest = time
            if kind is DataKind.AGGREGATED:
                row = {channel: value for channel, value in row.items() if channel not in timestamped}
            for channel, value in row.items():
                type_ = type(value)
                if type_ is int or type_ is float:
                    # Not a number compares false on both sides.
                    if not -HUGE < value < HUGE:  # type: ignore[operator]
                        dropped["number"] = dropped.get("number", 0) + 1
                        continue
                elif value is None:
                    continue
                elif type_ is bool:
                    value = int(value)  # type: ignore[arg-type]
                elif type_ is str:
                    if len(value) > MAX_TEXT or not storable(value):  # type: ignore[arg-type]
                        dropped["text"] = dropped.get("text", 0) + 1
                        continue
                else:
                    dropped["type"] = dropped.get("type", 0) + 1
                    continue
                series = ids.get(channel)
                if series is None:
                    reason = self._refusal(ids, channel)
                    if reason is not None:
                        dropped[reason] = dropped.get(reason, 0) + 1
                        continue
                    cursor = self._connection.execute(
                        "INSERT INTO series (edge, channel) VALUES (?, ?)", (edge, channel)
                    )
                    series = ids[channel] = cursor.lastrowid or 0
                    new_series.append((edge, channel))
                if type_ is str:
                    texts.append((series, time, value))  # type: ignore[arg-type]
                else:
                    numbers.append((series, time, value))  # type: ignore[arg-type]

    def _refusal(self, ids: dict[str, int], channel: str) -> str | None:
        if len(channel) > MAX_LENGTH or "/" not in channel or not storable(channel):
            return "address"
        return "channels" if len(ids) >= self._max_channels else None

    def _write_numbers(self, numbers: list[tuple[int, int, Number]]) -> None:
        # In the order of the key: one way through the tree instead of a search for each sample. The sort is stable,
        # so of two samples with one key the later one still comes last.
        numbers.sort(key=itemgetter(0, 1))
        rolled_until, raw_from = self.rolled_until, self.raw_from
        last_series, last_end = -1, 0
        late: dict[tuple[int, int], dict[int, Number]] = {}
        old: dict[tuple[int, int], dict[int, Number]] = {}
        for series, time, value in numbers:
            if time >= rolled_until:
                if series != last_series or time >= last_end:
                    bucket = time - time % BUCKET
                    last_series, last_end = series, bucket + BUCKET
                    self._open.setdefault(bucket, set()).add(series)
            else:
                part = (late if time >= raw_from else old).setdefault((series, time - time % BUCKET), {})
                part[time] = value
        if old:
            numbers = [sample for sample in numbers if sample[1] >= raw_from]
            buckets.extend(self._connection, old)
        self._connection.executemany(_INSERT_NUMBER, numbers)
        if late:
            for series, bucket in buckets.extend(self._connection, late):
                buckets.remake(self._connection, series, bucket, bucket + BUCKET)

    def roll(self, now: int, limit: int = 500) -> bool:
        """Roll up to ``limit`` series of buckets that have ended; True if there is more to do at once."""
        target = (now - GRACE) // BUCKET * BUCKET
        if target <= self.rolled_until:
            return False
        due = sorted(bucket for bucket in self._open if bucket < target)
        todo: list[tuple[int, int]] = []
        for bucket in due:
            todo += [(bucket, series) for series in self._open[bucket]]
            if len(todo) > limit:
                break
        work = todo[:limit]
        finished = len(work) == len(todo)

        def roll_all() -> None:
            for bucket, series in sorted(work, key=lambda pair: (pair[1], pair[0])):
                buckets.remake(self._connection, series, bucket, bucket + BUCKET)
            if finished:
                self._set_meta("rolled_until", target)

        if work or finished:
            self._transaction(roll_all)
        for bucket, series in work:
            self._open[bucket].discard(series)
        for bucket in due:
            if not self._open[bucket]:
                del self._open[bucket]
        if finished:
            self.rolled_until = target
        return not finished

    def _set_meta(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _set_raw_from(self, now: int) -> None:
        raw_from = max(self.raw_from, (now - self._raw_age) // BUCKET * BUCKET)
        if raw_from > now:
            # Made when the clock was wrong. What came since is in the roll-up; from now on samples are kept again.
            raw_from = now // BUCKET * BUCKET + BUCKET
        self._transaction(lambda: self._set_meta("raw_from", raw_from))
        self.raw_from = raw_from

    def expire(self, now: int, limit: int = 50) -> bool:
        """Delete what is older than the retention, a few series a call; True if there is more to do at once."""
        if not self._expiring:
            if not self._newest or abs(now - self._expired_at) < EXPIRE_EVERY:
                return False
            self._expired_at = now
            now = min(now, self._newest + FUTURE)
            self._set_raw_from(now)
            self._expiring = [id for ids in self._series.values() for id in ids.values()]
        part, self._expiring = self._expiring[:limit], self._expiring[limit:]
        oldest = min(now, self._newest + FUTURE) - self._rollup_age

        def work() -> None:
            for series in part:
                self._connection.execute("DELETE FROM number WHERE series = ? AND time < ?", (series, self.raw_from))
                self._connection.execute("DELETE FROM text WHERE series = ? AND time < ?", (series, oldest))
                self._connection.execute("DELETE FROM rollup WHERE series = ? AND time < ?", (series, oldest))

        self._transaction(work)
        return bool(self._expiring)


def storable(text: str) -> bool:
    """Whether it is valid Unicode: half a surrogate pair would spoil the whole batch."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
