from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.plausibility import HUGE
from openems.backend.timedata.timescaledb import partitions, queries
from openems.backend.timedata.timescaledb.rows import BUCKET, DAY, Statement, all_numbers, plain
from openems.backend.timedata.timescaledb.series import Edge
from openems.common.resolution import Grid


def edge(number: int, **channels: int) -> Edge:
    made = Edge()
    made.id = number
    for name, series in channels.items():
        made.add(name.replace("_", "/"), series, False)
    return made


class RowTests(SynchronousTestCase):
    @given(
        st.dictionaries(
            st.text(max_size=3),
            st.one_of(
                st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.integers())
            ),
            min_size=1,
        )
    )
    def test_the_fast_way_takes_nothing_the_slow_one_refuses(self, row: dict[str, Any]) -> None:
        if all_numbers(row):
            dropped: dict[str, int] = {}
            numbers, texts = plain(row, dropped)
            self.assertEqual((row, {}, {}), (numbers, texts, dropped))

    def test_bounds(self) -> None:
        self.assertTrue(all_numbers({"a": 1, "b": -2.5, "c": True, "d": HUGE // 2}))
        for bad in (HUGE, -HUGE, 10**400, math.nan, math.inf, "1", None, [1]):
            self.assertFalse(all_numbers({"a": 1, "b": bad}), bad)
        # What cancels out in a sum is no less huge.
        self.assertFalse(all_numbers({"a": HUGE, "b": -HUGE}))

    def test_reasons(self) -> None:
        dropped: dict[str, int] = {}
        row: Any = {"a": True, "b": "x", "c": None, "d": math.nan, "e": "y" * 5000, "f": "a\0", "g": {}, "h": "\ud800"}
        self.assertEqual(({"a": 1}, {"b": "x"}), plain(row, dropped))
        self.assertEqual({"number": 1, "text": 3, "type": 1}, dropped)


class StatementTests(SynchronousTestCase):
    def test_arrays(self) -> None:
        statement = Statement()
        statement.add(edge(7, a_B=1, a_C=2), 2 * BUCKET + 5, {"a/B": 5, "a/C": True})
        statement.add(edge(8, a_B=3), DAY, {"a/B": -2.5})
        sql, params = statement.sql()
        self.assertIn(b"'{1,2,3}'::int[]", sql)
        self.assertIn(b"'{600005,600005,86400000}'::bigint[]", sql)
        self.assertIn(b"'{5,1,-2.5}'::float8[]", sql)
        self.assertEqual(((), 3, {0, 1}), (params, statement.rows, statement.days))

    def test_texts_go_as_parameters(self) -> None:
        owner = edge(7, a_B=1)
        statement = Statement()
        statement.add(owner, 5, {}, {"a/B": "'; DROP TABLE ts_num; --"})
        sql, params = statement.sql()
        self.assertNotIn(b"DROP", sql)
        self.assertEqual(([1], [5], ["'; DROP TABLE ts_num; --"]), params)
        self.assertEqual(set(), owner.txt)
        statement.learn()
        self.assertEqual({1}, owner.txt)

    def test_a_second_row_of_the_same_time_begins_the_next_one(self) -> None:
        statement = Statement()
        owner = edge(7, a_B=1)
        self.assertTrue(statement.takes(owner, 5))
        statement.add(owner, 5, {"a/B": 1})
        self.assertFalse(statement.takes(owner, 5))
        self.assertTrue(statement.takes(owner, 6))
        self.assertTrue(statement.takes(edge(8), 5))


class PureTests(SynchronousTestCase):
    def test_partitions(self) -> None:
        needed = partitions.needed({20_088, 20_089})
        self.assertEqual(
            [
                "ts_num_20241231",
                "ts_num_20250101",
                "ts_num_5m_202412",
                "ts_num_5m_202501",
                "ts_txt_202412",
                "ts_txt_202501",
            ],
            sorted(needed),
        )
        self.assertEqual("2025-01-01 2025-02-01", " ".join(map(str, needed["ts_num_5m_202501"][1:])))

    def test_empty_parts_are_left_out(self) -> None:
        """The planner never sees the table that is not needed."""
        grid = Grid(list(range(0, 10 * BUCKET, BUCKET)), 10 * BUCKET, BUCKET)
        self.assertNotIn("ts_num ", queries.means([1], grid, grid.end))
        self.assertNotIn("ts_num_5m", queries.means([1], grid, 0))
        both = queries.means([1], grid, 5 * BUCKET)
        self.assertTrue("ts_num " in both and "ts_num_5m" in both)
