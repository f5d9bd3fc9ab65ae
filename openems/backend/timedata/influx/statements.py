"""What can be asked of a database in one statement, whatever its language, and how an answer looks.

Times are epoch ms; every stretch is ``begin <= time < end``. A :class:`Statement` is about some fields of one edge in
one measurement; its answer has for each field that has data the (time, value) pairs in ascending order of time.
Windows are labelled with their beginning.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from openems.common.data import Value
from openems.common.resolution import Grid

#: field -> [(epoch ms, value)]
Answer = dict[str, list[tuple[int, Value]]]


class Kind(enum.Enum):
    #: Plain mean of each window; windows without samples are left out.
    MEANS = "means"
    #: Last value of each window, numbers or not.
    LASTS = "lasts"
    #: Sum over each window of the rises from sample to sample, restarts left out; the first sample of the stretch is
    #: compared with nothing.
    RISES = "rises"
    #: The earliest sample of the stretch, the latest one, with its own time.
    FIRST = "first"
    LAST = "last"
    #: Samples that came more than ``step`` ms after the one before: how many ms.
    GAPS = "gaps"
    #: How many samples of each window are true; how many there are at all.
    TRUES = "trues"
    COUNTS = "counts"


class Table(msgspec.Struct, frozen=True):
    """Where something is stored. ``policy`` is the retention policy, empty for the default one."""

    database: str
    policy: str
    measurement: str
    tag: str

    @property
    def bucket(self) -> str:
        return f"{self.database}/{self.policy}" if self.policy else self.database


class Statement(msgspec.Struct, frozen=True):
    """``begin`` None: from ever. ``step``: length of the windows, one of which begins at ``origin``; or see
    :attr:`Kind.GAPS`. ``together``: the time of a first or last sample does not matter."""

    kind: Kind
    fields: tuple[str, ...]
    begin: int | None
    end: int
    step: int = 0
    origin: int = 0
    together: bool = False

    @property
    def offset(self) -> int:
        """Of the windows, from the epoch."""
        return self.origin % self.step

    def of(self, fields: Iterable[str]) -> Statement:
        """The same for other fields."""
        return msgspec.structs.replace(self, fields=tuple(fields))

    def within(self, begin: int | None, end: int | None) -> Statement | None:
        """Cut to a stretch of time; None if nothing is left."""
        lower = begin if self.begin is None else self.begin if begin is None else max(self.begin, begin)
        upper = self.end if end is None else min(self.end, end)
        if (lower or 0) >= upper:
            return None
        if (lower, upper) == (self.begin, self.end):
            return self
        return Statement(self.kind, self.fields, lower, upper, self.step, self.origin, self.together)


class Run(msgspec.Struct, frozen=True):
    """Neighbouring periods of one length: those from number ``first`` on, ``count`` of them."""

    first: int
    count: int
    begin: int
    end: int
    step: int


def runs(grid: Grid) -> Iterator[Run]:
    """A grid as few stretches of periods of equal length: a year of days is five, cut at both clock changes.

    >>> [(run.first, run.count) for run in runs(Grid([0, 10, 20, 31, 41], 51))]
    [(0, 2), (2, 1), (3, 2)]
    """
    count = len(grid)
    if not count:
        return
    if grid.step is not None:
        yield Run(0, count, grid.start, grid.end, grid.step)
        return
    edges = grid.edges
    first = 0
    while first < count:
        step = edges[first + 1] - edges[first]
        last = first + 1
        while last < count and edges[last + 1] - edges[last] == step:
            last += 1
        yield Run(first, last - first, edges[first], edges[last], step)
        first = last


class StatementError(Exception):
    """The database did not answer a statement. ``types``: because a field is no number."""

    def __init__(self, text: str, types: bool = False) -> None:
        super().__init__(text)
        self.types = types


def fields_of(statements: Sequence[Statement]) -> set[str]:
    return {field for statement in statements for field in statement.fields}
