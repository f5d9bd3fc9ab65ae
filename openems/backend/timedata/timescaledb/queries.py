"""The texts of questions to the history: pure functions of a grid and numbers of series.

Everything comes from the list of the periods' edges; there is no calendar and no time zone in SQL, so all kinds of
servers answer alike. Every question is one statement and sees one state of the database.

Who answers: the five-minute table where all periods begin and end on its buckets, up to the first bucket of this edge
that is not rolled up (``at``); otherwise and after that the samples, as far back as they are kept (``raw_from``).
"""

# ruff: noqa: S608 - what is put into these texts are numbers and times of our own
from __future__ import annotations

import datetime
from collections.abc import Sequence

from openems.backend.timedata.timescaledb.rows import BUCKET
from openems.common.resolution import Grid

_RAW_FROM = "(SELECT time FROM ts_state WHERE name = 'raw_from')"


def stamp(time: int) -> str:
    """A constant, so that the planner leaves out what is not needed."""
    return f"'{datetime.datetime.fromtimestamp(time / 1000, datetime.UTC).isoformat()}'::timestamptz"


def array(numbers: Sequence[int]) -> str:
    return "'{" + ",".join(map(str, numbers)) + "}'::int[]"


def _border(edge_id: int, end: int, aligned: bool) -> str:
    if not aligned:
        return f"WITH b AS MATERIALIZED (SELECT {_RAW_FROM} AS at) "
    return (
        f"WITH b AS MATERIALIZED (SELECT greatest({_RAW_FROM}, least({stamp(end)},"
        f" (SELECT min(bucket) FROM ts_dirty WHERE edge_id = {edge_id}),"
        f" (SELECT min(bucket) FROM ts_rolling WHERE edge_id = {edge_id}))) AS at) "
    )


def _index(grid: Grid, column: str = "time") -> str:
    """Which period. Milliseconds are whole numbers, exact in double precision."""
    if len(grid) == 1:
        return "0"
    if grid.step is not None:
        return f"floor((round(date_part('epoch', {column}) * 1000) - {grid.start}) / {grid.step})::int"
    edges = ",".join(str(start / 1000) for start in grid.starts)
    return f"width_bucket(date_part('epoch', {column}), '{{{edges}}}'::float8[]) - 1"


def _ranges(grid: Grid) -> tuple[str, str]:
    """Conditions for the five-minute table and for the samples."""
    return (
        f"time >= {stamp(grid.start)} AND time < {stamp(grid.end)} AND time < (SELECT at FROM b)",
        f"time >= {stamp(grid.start)} AND time < {stamp(grid.end)} AND time >= (SELECT at FROM b)",
    )


def five_minutes(grid: Grid) -> bool:
    """Whether stored rows are the answer, one for each period."""
    return grid.step == BUCKET and grid.aligned(BUCKET)


def means(edge_id: int, series: Sequence[int], grid: Grid) -> str:
    """Series, and as text arrays: periods, sums, numbers of samples (for five minutes: means, and no third array).

    A period may come twice: in five-minute values and in samples."""
    rolled, raw = _ranges(grid)
    wanted = f"series_id = ANY({array(series)})"
    index = _index(grid)
    if five_minutes(grid):
        inner = (
            f"SELECT series_id, {index} AS i, avg AS a FROM ts_num_5m WHERE {wanted} AND {rolled}"
            f" UNION ALL SELECT series_id, {index}, avg(value) FROM ts_num WHERE {wanted} AND {raw} GROUP BY 1, 2"
        )
        columns = "series_id, array_agg(i)::text, array_agg(a)::text"
    else:
        inner = (
            f"SELECT series_id, {index} AS i, sum(avg * cnt) AS a, sum(cnt) AS n FROM ts_num_5m"
            f" WHERE {wanted} AND {rolled} GROUP BY 1, 2"
            f" UNION ALL SELECT series_id, {index}, sum(value), count(*) FROM ts_num"
            f" WHERE {wanted} AND {raw} GROUP BY 1, 2"
        )
        columns = "series_id, array_agg(i)::text, array_agg(a)::text, array_agg(n)::text"
    return f"{_border(edge_id, grid.end, grid.aligned(BUCKET))}SELECT {columns} FROM ({inner}) AS x GROUP BY 1"


def gaps(edge_id: int, series: Sequence[int], grid: Grid, carry: int) -> str:
    """Series, and as text arrays: times of samples, their values, times of the next one, where these are more than the
    shortest period and at most ``carry`` ms apart."""
    wider = Grid([grid.start - carry - BUCKET], grid.end + carry + BUCKET)
    rolled, raw = _ranges(wider)
    shortest = grid.end - grid.starts[-1]  # the last period may be cut
    return (
        f"{_border(edge_id, wider.end, grid.aligned(BUCKET))}"
        "SELECT s, array_agg(t1)::text, array_agg(v)::text, array_agg(t2)::text FROM ("
        f"SELECT s, x.* FROM unnest({array(series)}) AS s CROSS JOIN LATERAL ("
        "SELECT last_at AS t1, v, lead(first_at) OVER (ORDER BY first_at) AS t2 FROM ("
        "SELECT round(date_part('epoch', time) * 1000) + first_at AS first_at,"
        " round(date_part('epoch', time) * 1000) + last_at AS last_at, last AS v"
        f" FROM ts_num_5m WHERE series_id = s AND {rolled}"
        " UNION ALL SELECT round(date_part('epoch', time) * 1000), round(date_part('epoch', time) * 1000), value"
        f" FROM ts_num WHERE series_id = s AND {raw}) AS points) AS x"
        f" WHERE t2 - t1 > {shortest} AND t2 - t1 <= {carry}) AS y GROUP BY s"
    )


def texts(series: Sequence[int], grid: Grid) -> str:
    """Series, period, last text in it."""
    return (
        f"SELECT DISTINCT ON (1, 2) series_id, {_index(grid)}, value FROM ts_txt WHERE series_id = ANY({array(series)})"
        f" AND time >= {stamp(grid.start)} AND time < {stamp(grid.end)} ORDER BY 1, 2, time DESC"
    )


def stretches(edge_id: int, series: Sequence[int], grid: Grid) -> str:
    """Series, period (-1 for what was before the grid), first value, last value, rise inside rows, between rows."""
    rolled, raw = _ranges(grid)
    return (
        f"{_border(edge_id, grid.end, grid.aligned(BUCKET))}"
        f"SELECT s, x.* FROM unnest({array(series)}) AS s CROSS JOIN LATERAL ("
        "SELECT i, (array_agg(first ORDER BY time))[1], (array_agg(last ORDER BY time DESC))[1], sum(rise),"
        " sum(CASE WHEN before_i = i AND first >= before THEN first - before END) FROM ("
        "SELECT i, time, first, last, rise, lag(last) OVER w AS before, lag(i) OVER w AS before_i FROM ("
        f"SELECT {_index(grid)} AS i, time, first, last, rise FROM ts_num_5m WHERE series_id = s AND {rolled}"
        f" UNION ALL SELECT {_index(grid)}, time, value, value, NULL::float8 FROM ts_num WHERE series_id = s AND {raw}"
        ") AS points WINDOW w AS (ORDER BY time)) AS lagged GROUP BY i"
        f" UNION ALL SELECT -1, v, v, NULL, NULL FROM ({_newest(grid.start, grid.aligned(BUCKET))}) AS before"
        ") AS x"
    )


def _newest(time: int, aligned: bool) -> str:
    """(time in ms, value) of the newest number of series ``s`` before ``time``; ``b`` must be there.

    Where ``b`` is for a grid that is not aligned, samples are asked as far back as they go."""
    bucket = time - time % BUCKET
    from_raw = f"time >= least({stamp(bucket)}, (SELECT at FROM b))" if aligned else "true"
    from_rolled = "time < (SELECT at FROM b)" if aligned else "true"
    return (
        "SELECT t, v FROM ("
        "(SELECT round(date_part('epoch', time) * 1000) + last_at AS t, last AS v FROM ts_num_5m"
        f" WHERE series_id = s AND time < {stamp(bucket)} AND {from_rolled} ORDER BY time DESC LIMIT 1)"
        " UNION ALL (SELECT round(date_part('epoch', time) * 1000), value FROM ts_num"
        f" WHERE series_id = s AND time < {stamp(time)} AND {from_raw} ORDER BY time DESC LIMIT 1)"
        ") AS found ORDER BY t DESC LIMIT 1"
    )


def newest(edge_id: int, series: Sequence[int], time: int) -> str:
    """Series, time in ms, value."""
    return (
        f"{_border(edge_id, time, True)}SELECT s, x.* FROM unnest({array(series)}) AS s"
        f" CROSS JOIN LATERAL ({_newest(time, True)}) AS x"
    )


def newest_texts(series: Sequence[int], time: int) -> str:
    """Series, time in ms, text."""
    return (
        f"SELECT s, x.* FROM unnest({array(series)}) AS s CROSS JOIN LATERAL ("
        "SELECT round(date_part('epoch', time) * 1000), value FROM ts_txt"
        f" WHERE series_id = s AND time < {stamp(time)} ORDER BY time DESC LIMIT 1) AS x"
    )
