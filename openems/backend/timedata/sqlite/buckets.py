"""Buckets of the table ``rollup``, made of samples and put into the file. Within the caller's transaction."""

from __future__ import annotations

import sqlite3
from typing import Any

from openems.backend.timedata.sqlite.rollup import COUNT, FIRST_AT, LAST_AT, joined, rollup_row
from openems.backend.timedata.sqlite.schema import BUCKET
from openems.common.energy import Number

_REPLACE = "INSERT OR REPLACE INTO rollup VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def extend(connection: sqlite3.Connection, parts: dict[tuple[int, int], dict[int, Number]]) -> list[tuple[int, int]]:
    """Bring samples into buckets that were rolled up before: (series, bucket) -> time -> value. Parts that follow each
    other are joined.

    Returns the (series, bucket) whose parts overlap: they must be made anew from their samples. Until then, and for
    ever where the samples are gone, the fuller part stands, so that a repeated part changes nothing.
    """
    rows = []
    overlapping = []
    for (series, bucket), samples in parts.items():
        row = rollup_row(series, bucket, list(samples.items()))
        known = connection.execute("SELECT * FROM rollup WHERE series = ? AND time = ?", (series, bucket)).fetchone()
        if known is None:
            rows.append(row)
        elif row[FIRST_AT] > known[LAST_AT]:
            rows.append(joined(known, row))
        elif row[LAST_AT] < known[FIRST_AT]:
            rows.append(joined(row, known))
        else:
            overlapping.append((series, bucket))
            if row[COUNT] >= known[COUNT]:
                rows.append(row)
    connection.executemany(_REPLACE, rows)
    return overlapping


def remake(connection: sqlite3.Connection, series: int, begin: int, end: int) -> None:
    """Make the buckets of [begin, end) anew."""
    rows: list[tuple[Any, ...]] = []
    samples: list[tuple[int, Number]] = []
    bucket = begin
    for sample in connection.execute(
        "SELECT time, value FROM number WHERE series = ? AND time >= ? AND time < ? ORDER BY time",
        (series, begin, end),
    ):
        if sample[0] >= bucket + BUCKET:
            if samples:
                rows.append(rollup_row(series, bucket, samples))
                samples = []
            bucket = sample[0] - sample[0] % BUCKET
        samples.append(sample)
    if samples:
        rows.append(rollup_row(series, bucket, samples))
    connection.executemany(_REPLACE, rows)
