from __future__ import annotations

import gc

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.plausibility import Plausibility
from openems.backend.timedata.sharedsets import NONE, SharedSets
from openems.common.data import DataKind, Row

NOW = 1_700_000_000_000


class SharedSetsTests(SynchronousTestCase):
    def test_equal_ones_are_one(self) -> None:
        sets = SharedSets()
        one = sets.plus(sets.plus(NONE, [["a", "b"]], 9), [["c"]], 9)
        self.assertEqual(one, {"a", "b", "c"})
        self.assertIs(one, sets.plus(NONE, [["b", "c"], [], ["a", "b"]], 9))
        self.assertIs(one, sets.plus(one, [["a"], ["c", "b"]], 9))
        self.assertIsNot(one, sets.plus(one, [["d"]], 9))

    def test_limit(self) -> None:
        sets = SharedSets()
        two = sets.plus(NONE, [["a", "b"]], 2)
        self.assertEqual(two, {"a", "b"})
        self.assertIs(two, sets.plus(two, [["b", "c"]], 2))
        self.assertIs(two, sets.plus(NONE, [["a"], ["a", "b", "c"]], 2))

    def test_nothing_stays_that_nobody_has(self) -> None:
        sets = SharedSets()
        names = NONE
        for number in range(100):
            names = sets.plus(names, [[str(number)]], 1000)
        gc.collect()
        self.assertEqual(len(sets._sets), 1)

    def test_edges_of_one_kind(self) -> None:
        plausibility = Plausibility()
        row: Row = {f"a0/C{n}": n for n in range(50)}
        for edge in ("edge0", "edge1"):
            # In another order, and in parts.
            names = list(row) if edge == "edge0" else list(reversed(row))
            for part in (names[:20], names[20:]):
                plausibility.rows(edge, DataKind.TIMESTAMPED, {NOW: {name: row[name] for name in part}}, NOW)
        one, other = plausibility._edges.values()
        self.assertEqual(one.settled, row.keys())
        self.assertIs(one.settled, other.settled)
        self.assertIs(one.known, other.known)
        self.assertIs(one.timestamped, other.timestamped)
