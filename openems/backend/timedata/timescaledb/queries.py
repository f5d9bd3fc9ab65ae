"""The texts of questions to the history: pure functions of a grid and numbers of series.

Everything comes from the list of the periods' edges; there is no calendar and no time zone in SQL, so all kinds of
servers answer alike.

Who answers: the five-minute table where all periods begin and end on its buckets, up to the first bucket of this edge
that is not rolled up; otherwise and after that the samples, as far back as they are kept. That border is asked first
and then stands in the question as a constant, so that the planner leaves out what is not needed.
"""

# ruff: noqa: S608 - what is put into these texts are numbers and times of our own
from __future__ import annotations

import datetime
from collections.abc import Sequence

from openems.backend.timedata.timescaledb.rows import BUCKET
from openems.common.resolution import Grid

#: Of an edge: before when samples may be gone, and the first bucket that is not rolled up, in ms (null: all are).
MARKS = (
    "SELECT CASE WHEN isfinite(time) THEN (date_part('epoch', time) * 1000)::bigint ELSE 0 END,"
    " (date_part('epoch', least((SELECT min(bucket) FROM ts_dirty WHERE edge_id = {0}),"
    " (SELECT min(bucket) FROM ts_rolling WHERE edge_id = {0}))) * 1000)::bigint"
    " FROM ts_state WHERE name = 'raw_from'"
)


def border(marks: tuple[int, int | None], aligned: bool, end: int) -> int:
    """Before it the five-minute table answers, from it on the samples.

    >>> border((0, None), True, 900_000), border((0, 300_000), True, 900_000), border((0, None), False, 900_000)
    (900000, 300000, 0)
    """
    raw_from, dirty = marks
    if not aligned:
        return raw_from
    return max(raw_from, end if dirty is None else min(end, dirty))


def stamp(time: int) -> str:
    """A constant, so that the planner leaves out what is not needed."""
    return f"'{datetime.datetime.fromtimestamp(time / 1000, datetime.UTC).isoformat()}'::timestamptz"


def array(numbers: Sequence[int]) -> str:
    return "'{" + ",".join(map(str, numbers)) + "}'::int[]"


def _index(grid: Grid, column: str = "time") -> str:
    """Which period. Milliseconds are whole numbers, exact in double precision."""
    if len(grid) == 1:
        return "0"
    if grid.step is not None:
        return f"floor((round(date_part('epoch', {column}) * 1000) - {grid.start}) / {grid.step})::int"
    edges = ",".join(str(start / 1000) for start in grid.starts)
    return f"width_bucket(date_part('epoch', {column}), '{{{edges}}}'::float8[]) - 1"


def _between(start: int, end: int) -> str:
    return f"time >= {stamp(start)} AND time < {stamp(end)}"


def _parts(border: int, start: int, end: int, rolled: str, raw: str) -> str:
    """Both tables, each for its part of the span, an empty one left out. ``rolled`` and ``raw`` end in their WHERE."""
    parts = []
    if start < border:
        parts.append(f"{rolled} {_between(start, min(border, end))}")
    if border < end:
        parts.append(f"{raw} {_between(max(border, start), end)}")
    return " UNION ALL ".join(parts)


def five_minutes(grid: Grid) -> bool:
    """Whether stored rows are the answer, one for each period."""
    return grid.step == BUCKET and grid.aligned(BUCKET)


def means(series: Sequence[int], grid: Grid, border: int) -> str:
    """Series, and as text arrays: periods, sums, numbers of samples (for five minutes: means, and no third array).

    A period may come twice: in five-minute values and in samples."""
    wanted = f"WHERE series_id = ANY({array(series)}) AND"
    index = _index(grid)
    if five_minutes(grid):
        rolled = f"SELECT series_id, {index} AS i, avg AS a FROM ts_num_5m {wanted}"
        raw = f"SELECT series_id, {index} AS i, value AS a FROM ts_num {wanted}"
        columns = "series_id, array_agg(i)::text, array_agg(a)::text"
        group = "series_id, i, avg(a) AS a"
    else:
        rolled = f"SELECT series_id, {index} AS i, avg * cnt AS a, cnt AS n FROM ts_num_5m {wanted}"
        raw = f"SELECT series_id, {index} AS i, value AS a, 1 AS n FROM ts_num {wanted}"
        columns = "series_id, array_agg(i)::text, array_agg(a)::text, array_agg(n)::text"
        group = "series_id, i, sum(a) AS a, sum(n) AS n"
    inner = _parts(border, grid.start, grid.end, rolled, raw)
    if not five_minutes(grid) or border < grid.end:
        inner = f"SELECT {group} FROM ({inner}) AS x GROUP BY 1, 2"
    return f"SELECT {columns} FROM ({inner}) AS y GROUP BY 1"


def gaps(series: Sequence[int], grid: Grid, marks: tuple[int, int | None], carry: int) -> str:
    """Series, and as text arrays: times of samples, their values, times of the next one, where these are more than the
    shortest period and at most ``carry`` ms apart."""
    start, end = grid.start - carry - BUCKET, grid.end + carry + BUCKET
    shortest = grid.end - grid.starts[-1]  # the last period may be cut
    time = "round(date_part('epoch', time) * 1000)"
    points = _parts(
        border(marks, grid.aligned(BUCKET), end),
        start,
        end,
        f"SELECT {time} + first_at AS first_at, {time} + last_at AS last_at, last AS v"
        " FROM ts_num_5m WHERE series_id = s AND",
        f"SELECT {time} AS first_at, {time} AS last_at, value AS v FROM ts_num WHERE series_id = s AND",
    )
    return (
        "SELECT s, array_agg(t1)::text, array_agg(v)::text, array_agg(t2)::text FROM ("
        f"SELECT s, x.* FROM unnest({array(series)}) AS s CROSS JOIN LATERAL ("
        "SELECT last_at AS t1, v, lead(first_at) OVER (ORDER BY first_at) AS t2"
        f" FROM ({points}) AS points) AS x WHERE t2 - t1 > {shortest} AND t2 - t1 <= {carry}) AS y GROUP BY s"
    )


def texts(series: Sequence[int], grid: Grid) -> str:
    """Series, period, last text in it."""
    return (
        f"SELECT DISTINCT ON (1, 2) series_id, {_index(grid)}, value FROM ts_txt WHERE series_id = ANY({array(series)})"
        f" AND {_between(grid.start, grid.end)} ORDER BY 1, 2, time DESC"
    )


def stretches(series: Sequence[int], grid: Grid, border: int, marks: tuple[int, int | None]) -> str:
    """Series, period (-1 for what was before the grid), first value, last value, rise inside rows, between rows."""
    points = _parts(
        border,
        grid.start,
        grid.end,
        f"SELECT {_index(grid)} AS i, time, first, last, rise FROM ts_num_5m WHERE series_id = s AND",
        f"SELECT {_index(grid)} AS i, time, value AS first, value AS last, NULL::float8 AS rise"
        " FROM ts_num WHERE series_id = s AND",
    )
    return (
        f"SELECT s, x.* FROM unnest({array(series)}) AS s CROSS JOIN LATERAL ("
        "SELECT i, max(first) FILTER (WHERE before_i IS DISTINCT FROM i),"
        " max(last) FILTER (WHERE next_i IS DISTINCT FROM i), sum(rise),"
        " sum(first - before) FILTER (WHERE before_i = i AND first >= before) FROM ("
        "SELECT i, first, last, rise, lag(last) OVER w AS before, lag(i) OVER w AS before_i, lead(i) OVER w AS next_i"
        f" FROM ({points}) AS points WINDOW w AS (ORDER BY time)) AS lagged GROUP BY i"
        f" UNION ALL SELECT -1, v, v, NULL, NULL FROM ({_newest(grid.start, marks)}) AS before) AS x"
    )


def _newest(time: int, marks: tuple[int, int | None]) -> str:
    """(time in ms, value) of the newest number of series ``s`` before ``time``."""
    bucket = time - time % BUCKET
    until = border(marks, True, bucket)
    ms = "round(date_part('epoch', time) * 1000)"
    return (
        "SELECT t, v FROM ("
        f"(SELECT {ms} + last_at AS t, last AS v FROM ts_num_5m WHERE series_id = s"
        f" AND time < {stamp(min(bucket, until))} ORDER BY time DESC LIMIT 1)"
        f" UNION ALL (SELECT {ms}, value FROM ts_num WHERE series_id = s"
        f" AND {_between(min(bucket, until), time)} ORDER BY time DESC LIMIT 1)"
        ") AS found ORDER BY t DESC LIMIT 1"
    )


def newest(series: Sequence[int], time: int, marks: tuple[int, int | None]) -> str:
    """Series, time in ms, value."""
    return f"SELECT s, x.* FROM unnest({array(series)}) AS s CROSS JOIN LATERAL ({_newest(time, marks)}) AS x"


def newest_texts(series: Sequence[int], time: int) -> str:
    """Series, time in ms, text."""
    return (
        f"SELECT s, x.* FROM unnest({array(series)}) AS s CROSS JOIN LATERAL ("
        "SELECT round(date_part('epoch', time) * 1000), value FROM ts_txt"
        f" WHERE series_id = s AND time < {stamp(time)} ORDER BY time DESC LIMIT 1) AS x"
    )
