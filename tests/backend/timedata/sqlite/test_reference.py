"""The embedded history against the reference: any series, written in any order, rolled up or not, asked in any way."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.sqlite import reader, schema
from openems.backend.timedata.sqlite.store import Store
from openems.common.resolution import Grid, periods
from tests.backend.timedata.conformance import DAY, NOW
from tests.backend.timedata.reference import Reference
from tests.backend.timedata.scenarios import COUNTER, MIXED, POWER, Chance, Question, Scenario, scenario

NAMES = [COUNTER, MIXED, POWER]
EXAMPLES = int(os.environ.get("HISTORY_EXAMPLES", "60"))


def near(one: Any, other: Any) -> bool:
    if isinstance(one, str) or isinstance(other, str) or one is None or other is None:
        return bool(one == other)
    return abs(one - other) < 1e-6


class ReferenceTests(SynchronousTestCase):
    def compare(self, case: Scenario, raw_days: int, grace: Callable[[], int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "history.sqlite")
            reference = Reference()

            def opened() -> Store:
                return Store(path, NOW, retention_days_raw=raw_days, retention_days_rollup=20_000)

            file = opened()
            for write in case.writes:
                if write is not None:
                    reference.write(*write)
                    file.apply([("edge0", *write)], NOW)
                    continue
                what = grace()
                if what == 0:
                    file.close()
                    file = opened()
                    reference.restarted()
                # At any moment, and not always to the end.
                while file.roll(NOW - what * DAY, limit=2) and what % 2:
                    pass
            connection = schema.open_for_reading(path)
            try:
                for question in case.questions:
                    self.ask(connection, reference, question)
            finally:
                connection.close()
                file.close()

    def ask(self, connection: Any, reference: Reference, question: Question) -> None:
        grid = periods(*question.dates, question.resolution)
        edges = question.edges
        self.assertEqual(edges, grid.edges)
        with reader.ask(connection) as view:
            means = view.means("edge0", grid, NAMES)
            rises = view.rises("edge0", grid, NAMES)
            total = view.energy("edge0", Grid([question.start], question.end), NAMES)
            newest = view.newest_before("edge0", question.start, NAMES)
        for name in NAMES:
            self.same(reference.means(edges, name, question.length), means.get(name), (question, name, "means"))
            self.same(reference.rises(edges, name), rises.get(name), (question, name, "rises"))
            span = reference.rises([edges[0], edges[-1]], name)
            self.same(span, [total[name]] if name in total else None, (question, name, "energy"))
            self.same([reference.newest_before(question.start, name)], [newest.get(name)], (question, name, "before"))
            if name in rises:
                summed = sum(value for value in rises[name] if value is not None)
                self.assertAlmostEqual(summed, total[name], 6, "periods and span")

    def same(self, expected: Any, found: Any, where: Any) -> None:
        if expected is None or found is None:
            self.assertEqual(expected, found, where)
            return
        self.assertEqual(len(expected), len(found), where)
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            self.assertTrue(near(one, other), (where, index, expected, found))

    @settings(max_examples=EXAMPLES, deadline=None, print_blob=True)
    @given(st.data())
    def test_any_order(self, data: st.DataObject) -> None:
        chance = Chance(lambda low, high: data.draw(st.integers(low, high)))
        days = (NOW // DAY) - 14_000
        self.compare(scenario(chance), days, lambda: chance.choice((0, 1, 2, 900, 901)))

    @settings(max_examples=EXAMPLES, deadline=None, print_blob=True)
    @given(st.data())
    def test_samples_that_are_gone(self, data: st.DataObject) -> None:
        """All is older than what is kept as it came: in order and by five minutes nothing is lost but the samples."""
        chance = Chance(lambda low, high: data.draw(st.integers(low, high)))
        self.compare(scenario(chance, late=False, aligned=True, mixed=False), 1, lambda: 1)

    def test_seeds(self) -> None:
        for seed in range(EXAMPLES):
            chance = Chance.of_seed(seed)
            try:
                self.compare(scenario(chance), 14_000, lambda chance=chance: chance.choice((0, 1, 2, 900, 901)))
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {error}") from error
