"""The three data notifications of an edge (wire.md 6.9) and their plausibility bounds."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

Value = int | float | str | bool | None
#: channel address -> value
Row = dict[str, Value]
#: The pseudo edge that the backend's own numbers are written to (core.md 4.5).
BACKEND = "backend0"


class DataKind(enum.StrEnum):
    TIMESTAMPED = "timestampedData"
    AGGREGATED = "aggregatedData"
    RESEND = "resendData"


class DataNotification(msgspec.Struct):
    """``rows``: epoch milliseconds -> row, in ascending order of time."""

    kind: DataKind
    rows: dict[int, Row]


#: Times before 2000 are nonsense of an edge's clock.
MIN_TIME = 946_684_800_000


def rows_of(params: Any, now: int, future: int = 3_600_000) -> tuple[dict[int, Row], dict[str, int]]:
    """The rows of decoded ``params`` and what had to be left out, counted by reason.

    Only the bad entry is lost, where Java drops the whole notification: a name that is no integer (``time``), a time
    before 2000 or more than ``future`` ms after ``now`` (``time``), a row that is no object (``row``). Values are
    checked by whoever stores them.
    """
    rows: dict[int, Row] = {}
    dropped: dict[str, int] = {}
    latest = now + future
    for name, row in params.items():
        try:
            time = int(name)
        except ValueError:
            time = 0
        if not MIN_TIME <= time <= latest:
            dropped["time"] = dropped.get("time", 0) + 1
        elif type(row) is not dict:
            dropped["row"] = dropped.get("row", 0) + 1
        else:
            rows[time] = row
    if len(rows) > 1:
        rows = dict(sorted(rows.items()))
    return rows, dropped
