"""What an edge sends again of the time when nobody heard it (edge.md 4.6). Pure.

Kept are the five-minute rows in which ``UnableToSend`` was set, each with the row before and after it: the groups of
a resend run are widened by 300 s on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator

from openems.common.data import Row

STEP = 300_000
HOUR = 3_600_000
#: Rows kept; the oldest go first. A month and a little more.
MAX_ROWS = 10_000


class Unsent:
    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._marked: list[int] = []
        self._before: tuple[int, Row] | None = None

    def add(self, start: int, row: Row, unable: bool) -> None:
        """The row of the window that begins at ``start``; ``unable``: the edge could not send in it."""
        if unable:
            if self._before is not None:
                self._rows.setdefault(*self._before)
            self._rows[start] = row
            self._marked.append(start)
        elif self._marked and self._marked[-1] == start - STEP:
            self._rows[start] = row
        self._before = (start, row)
        while len(self._rows) > MAX_ROWS:
            oldest = min(self._rows)
            del self._rows[oldest]
            self._marked = [time for time in self._marked if time > oldest]

    def parts(self) -> Iterator[dict[int, Row]]:
        """Params of the messages of one run, in order: at most 300 s each, ends included, so that times repeat; a part
        without data is empty."""
        for first, last in self._groups():
            for begin in range(first - STEP, last + STEP, STEP):
                yield {time: as_stored(time, self._rows[time]) for time in (begin, begin + STEP) if time in self._rows}

    def _groups(self) -> Iterator[tuple[int, int]]:
        first = last = None
        for time in self._marked:
            if first is None or last is None or time - last > STEP:
                if first is not None and last is not None:
                    yield first, last
                first = time
            last = time
        if first is not None and last is not None:
            yield first, last

    def clear(self) -> None:
        """A run was sent."""
        self._rows.clear()
        self._marked.clear()


def as_stored(time: int, row: Row) -> Row:
    """As the edge's own database has it: floating point numbers, no texts, counters once an hour."""
    return {
        address: float(value)
        for address, value in row.items()
        if isinstance(value, int | float) and not (address.endswith("Energy") and time % HOUR)
    }
