from __future__ import annotations

import os
import sqlite3
import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.timedata.sqlite import reader, schema
from openems.backend.timedata.sqlite.rollup import joined, rollup_row
from openems.backend.timedata.sqlite.schema import BUCKET
from openems.backend.timedata.sqlite.store import DAY, GRACE, Store
from openems.common.data import DataKind
from openems.common.energy import by_period, rises
from openems.common.resolution import Grid

NOW = 1_800_000_000_000 // DAY * DAY


class StoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.store = self.open()

    def tearDown(self) -> None:
        self.store.close()

    def open(self, now: int = NOW, raw: int = 2, rollup: int = 30) -> Store:
        return Store(self.path, now, retention_days_raw=raw, retention_days_rollup=rollup)

    def write(self, *samples: tuple[int, float], now: int = NOW, kind: DataKind = DataKind.TIMESTAMPED) -> None:
        self.store.apply([("edge0", kind, {time: {"m/P": value}}) for time, value in samples], now)

    def select(self, query: str) -> list[Any]:
        connection = schema.open_for_reading(self.path)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def test_an_open_bucket_is_rolled_up_after_its_end(self) -> None:
        self.write((NOW + 1, 5), (NOW + 2, 7))
        self.store.roll(NOW + BUCKET + GRACE - 1)
        self.assertEqual([], self.select("SELECT * FROM rollup"))
        self.store.roll(NOW + BUCKET + GRACE)
        self.assertEqual([(1, NOW, 2, 6.0, 5, 7, 5, 7, 2, 1, 2)], self.select("SELECT * FROM rollup"))
        self.assertEqual(NOW + BUCKET, self.store.rolled_until)

    def test_the_mark_moves_only_when_all_series_are_done(self) -> None:
        later = NOW + BUCKET + GRACE
        self.store.apply([("edge0", DataKind.TIMESTAMPED, {NOW: {f"m/C{i}": i for i in range(7)}})], NOW)
        before = self.store.rolled_until
        self.assertTrue(self.store.roll(later, limit=3))
        self.assertTrue(self.store.roll(later, limit=3))
        self.assertEqual(before, self.store.rolled_until)
        self.assertFalse(self.store.roll(later, limit=3))
        self.assertEqual(NOW + BUCKET, self.store.rolled_until)
        self.assertEqual([(7,)], self.select("SELECT count(*) FROM rollup"))

    def test_open_buckets_are_found_again_after_a_crash(self) -> None:
        self.write((NOW + 1, 5))
        self.store.close()
        self.store = self.open(NOW + DAY)
        self.assertFalse(self.store.roll(NOW + DAY))
        self.assertEqual([(NOW, 1)], self.select("SELECT time, count FROM rollup"))

    def test_a_late_sample_changes_the_roll_up_at_once(self) -> None:
        late = NOW - DAY
        self.write((late, 5))
        self.write((late + 1, 7))
        self.write((late + 1, 9))
        self.assertEqual([(late, 2, 7.0, 9)], self.select("SELECT time, count, avg, last FROM rollup"))

    def test_retention(self) -> None:
        for days in (1, 3, 31):
            self.write((NOW - days * DAY, days))
        self.assertEqual({"time": 1}, self.store.dropped)
        self.assertEqual([(1,)], self.select("SELECT value FROM number"))
        self.assertEqual([(3,), (1,)], self.select("SELECT last FROM rollup ORDER BY time"))
        self.live(NOW + 2 * DAY)
        self.assertEqual([(0,)], self.select("SELECT value FROM number"))
        self.assertEqual([(3,), (1,)], self.select("SELECT last FROM rollup ORDER BY time"))
        self.live(NOW + 28 * DAY)
        self.assertEqual([(1,), (0,)], self.select("SELECT last FROM rollup ORDER BY time"))

    def live(self, now: int, jump: int = 0) -> None:
        """A sample of that moment; what is due then, while the clock shows ``jump`` ms more."""
        self.write((now, 0), now=now + jump)
        for due in (self.store.roll, self.store.expire):
            while due(now + jump):
                pass

    def test_retention_at_its_borders(self) -> None:
        raw, rollup = NOW + BUCKET - 2 * DAY, NOW + BUCKET - 30 * DAY
        for border in (rollup, raw):
            self.write((border - 1, 1), (border, 2), now=border)
        self.live(NOW + BUCKET)
        self.assertEqual([(raw, 2), (NOW + BUCKET, 0)], self.select("SELECT time, value FROM number"))
        self.assertEqual([2, 1, 2], [last for (last,) in self.select("SELECT last FROM rollup ORDER BY time")][:3])

    def test_a_clock_that_jumps_ahead_deletes_nothing(self) -> None:
        self.store.close()
        self.store = self.open(rollup=3_000)
        self.write((NOW - DAY, 1), (NOW, 2))
        self.live(NOW + 1, jump=400 * DAY)
        self.assertEqual([(1,), (2,), (0,)], self.select("SELECT value FROM number ORDER BY time"))
        self.store.close()
        self.store = self.open(NOW + 400 * DAY, rollup=3_000)
        self.assertFalse(self.store.expire(NOW + 400 * DAY))
        self.assertEqual([(3,)], self.select("SELECT count(*) FROM number"))
        # And when it is right again all goes on: the mark of what is rolled up is far ahead.
        self.live(NOW + 2)
        self.write((NOW + 1000, 7), now=NOW + 1000)
        self.assertEqual([(4, 7)], self.select(f"SELECT count, last FROM rollup WHERE time = {NOW}"))
        self.live(NOW + 3 * DAY)
        self.assertEqual([(NOW + 3 * DAY,)], self.select("SELECT time FROM number"))

    def test_a_file_begun_with_a_wrong_clock(self) -> None:
        self.store.close()
        self.path = self.mktemp()
        self.store = self.open(NOW + 400 * DAY, rollup=3_000)
        self.write((NOW, 1), now=NOW)
        self.assertEqual([], self.select("SELECT * FROM number"))
        self.store.close()
        self.store = self.open(NOW)
        self.write((NOW + BUCKET, 2), now=NOW + BUCKET)
        self.assertEqual([(2,)], self.select("SELECT value FROM number"))
        self.assertEqual([(1,), (2,)], self.select("SELECT last FROM rollup ORDER BY time"))

    def test_old_samples_in_parts(self) -> None:
        old = NOW - 5 * DAY
        first = [(old, 10), (old + 1000, 20)]
        second = [(old + 2000, 30), (old + 3000, 0)]
        for part in (second, first, first, second):
            self.write(*part, kind=DataKind.RESEND)
        row = rollup_row(1, old, first + second)
        self.assertEqual([row], self.select("SELECT * FROM rollup"))
        self.assertEqual(row, joined(rollup_row(1, old, first), rollup_row(1, old, second)))

    def test_a_failed_transaction_forgets_its_new_series(self) -> None:
        self.store._connection.execute("PRAGMA query_only = 1")
        self.assertRaises(sqlite3.OperationalError, self.write, (NOW, 1))
        self.store._connection.execute("PRAGMA query_only = 0")
        self.write((NOW, 1))
        self.assertEqual([("m/P", 1)], self.select("SELECT channel, value FROM series JOIN number ON series = id"))

    def test_a_counter_that_jumps_to_and_fro_hurts_nobody_else(self) -> None:
        """It rises further than 64 bits: in one bucket, in several, live and late."""
        high = 10**18 - 1
        for start in (NOW - DAY, NOW):
            rows = {start + i * 3_000: {"m/E": i % 2 * high, "m/P": i} for i in range(400)}
            self.store.apply([("edge0", DataKind.RESEND, rows)], NOW + DAY // 2)
        self.assertFalse(self.store.roll(NOW + DAY // 2, limit=10**6))
        connection = schema.open_for_reading(self.path)
        with reader.ask(connection) as view:
            answer = view.energy("edge0", Grid([NOW - DAY], NOW + DAY), ["m/E", "m/P"])
        connection.close()
        self.assertEqual(798, answer["m/P"])
        self.assertAlmostEqual(400 * high, float(answer["m/E"] or 0), delta=1e9)

    def test_text_and_number_of_one_channel(self) -> None:
        self.store.apply([("edge0", DataKind.TIMESTAMPED, {NOW: {"m/X": "a"}, NOW + BUCKET: {"m/X": 5}})], NOW)
        connection = schema.open_for_reading(self.path)
        with reader.ask(connection) as view:
            answer = view.means("edge0", Grid([NOW, NOW + BUCKET], NOW + 2 * BUCKET, BUCKET), ["m/X"])
        connection.close()
        self.assertEqual({"m/X": ["a", 5]}, answer)


writes = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(-2 * DAY, 3_000_000), st.integers(0, 20)), min_size=1, max_size=12),
        st.integers(0, 2_000_000),
    ),
    max_size=8,
)
steps = st.sampled_from([60_000, BUCKET, 2 * BUCKET, 7 * 60_000, 3_600_000, DAY])


class Properties(SynchronousTestCase):
    @settings(max_examples=60, deadline=None)
    @given(writes, steps)
    def test_answers_do_not_depend_on_who_gives_them(
        self, batches: list[tuple[list[tuple[int, int]], int]], step: int
    ) -> None:
        """Whatever the order of writing and rolling up, an answer is that of the samples."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "history.db")
            store = Store(path, NOW, retention_days_raw=10, retention_days_rollup=10)
            model: dict[int, int] = {}
            now = NOW
            for samples, pause in batches:
                model.update({NOW + offset: value for offset, value in samples})
                rows: list[Any] = [("edge0", DataKind.RESEND, {NOW + o: {"m/P": value}}) for o, value in samples]
                store.apply(rows, now)
                now += pause
                store.roll(now, limit=2)
            start, end = NOW - DAY, NOW + DAY
            grid = Grid(list(range(start, end, step)), end, step)
            connection = schema.open_for_reading(path)
            with reader.ask(connection) as view:
                means = view.means("edge0", grid, ["m/P"]).get("m/P", [None] * len(grid))
                energies = view.rises("edge0", grid, ["m/P"]).get("m/P", [None] * len(grid))
            connection.close()
            store.close()
            samples_in_order = dict(sorted(model.items()))
            sums: dict[int, list[int]] = {}
            for time, value in samples_in_order.items():
                if start <= time < end:
                    sums.setdefault(grid.index(time), []).append(value)
            for index, mean in enumerate(means):
                if index in sums:
                    self.assertAlmostEqual(sum(sums[index]) / len(sums[index]), mean, places=9)
                elif mean is not None:
                    before = [time for time in samples_in_order if time < grid.edges[index]][-1]
                    after = next(time for time in samples_in_order if time >= grid.edges[index + 1])
                    self.assertLessEqual(after - before, reader.CARRY)
                    self.assertEqual(samples_in_order[before], mean)
            base = [value for time, value in samples_in_order.items() if time < start]
            self.assertEqual(rises(base[-1] if base else None, by_period(samples_in_order, grid)), energies)
