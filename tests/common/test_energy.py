from __future__ import annotations

import datetime
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.common.energy import Stretch, by_period, difference, normalise, rises, stretch, total
from openems.common.resolution import Grid, Resolution, Unit, midnight, milliseconds, periods

UTC = datetime.UTC
BERLIN = ZoneInfo("Europe/Berlin")


def deltas(*values: float | None, base: float | None = None) -> list[float | None]:
    return rises(base, [None if value is None else Stretch(value, value, None) for value in values])


class RisesTests(SynchronousTestCase):
    def test_vectors_timescaledb_13_6(self) -> None:
        self.assertEqual([None, None, 30, 10], deltas(100, None, 130, 140))
        self.assertEqual([None, 1, 1, 2], deltas(5, 6, 7, 9))
        self.assertEqual([None, None, 30], deltas(None, 100, 130))
        self.assertEqual([None, None, 10], deltas(100, 20, 30))

    def test_vectors_timedata_15_last_minus_first(self) -> None:
        self.assertEqual([10] * 5, deltas(10, 20, 30, 40, 50, base=0))
        self.assertEqual([None, None, 4], deltas(5, None, 9))
        self.assertEqual([None, None, 1], deltas(5, 3, 4))

    def test_t061_sum_of_the_rises(self) -> None:
        part = stretch([1000, 1040, 0, 25])
        self.assertEqual(Stretch(1000, 25, 65), part)
        self.assertEqual(65, total(None, [part]))
        self.assertEqual(65, total(1000, [part]))
        self.assertEqual(75, total(990, [part]))

    def test_a_first_sample_is_no_energy(self) -> None:
        self.assertIsNone(total(None, [stretch([5000])]))
        self.assertIsNone(total(None, []))
        self.assertEqual(0, total(5000, [stretch([5000])]))

    def test_difference(self) -> None:
        self.assertEqual((40, 0, None), (difference(0, 40), difference(5, 5), difference(6, 5)))

    def test_t063_hours_of_both_clock_changes(self) -> None:
        for text, count in (("2026-03-29", 23), ("2026-10-25", 25)):
            begin = midnight(datetime.date.fromisoformat(text), BERLIN)
            end = midnight(begin.date() + datetime.timedelta(days=1), BERLIN)
            grid = periods(begin, end, Resolution(1, Unit.HOURS))
            samples = {time: time // 60_000 for time in range(grid.start, grid.end, 60_000)}
            result = rises(grid.start // 60_000 - 1, by_period(samples, grid))
            self.assertEqual([60] * count, result)


class NormaliseTests(SynchronousTestCase):
    def test_timedata_15_days(self) -> None:
        begin = datetime.datetime(2020, 1, 1, tzinfo=UTC)
        grid = periods(begin, begin + datetime.timedelta(days=5), Resolution(1, Unit.DAYS))
        rows = {milliseconds(begin + datetime.timedelta(days=d)): {"a/B": v} for d, v in ((0, 10), (2, 30), (4, 50))}
        self.assertEqual({"a/B": [10, None, 30, None, 50]}, normalise(rows, ["a/B"], grid))
        self.assertEqual({"a/B": [None] * 5}, normalise({}, ["a/B"], grid))

    def test_timedata_15_manager(self) -> None:
        begin = datetime.datetime(2020, 1, 1, tzinfo=UTC)
        grid = periods(begin, begin + datetime.timedelta(minutes=10), Resolution(5, Unit.MINUTES))
        self.assertEqual({"c/1": [50, None]}, normalise({grid.start: {"c/1": 50}}, ["c/1"], grid))

    def test_the_first_row_inside_a_period_counts(self) -> None:
        grid = Grid([0, 10], 20, 10)
        rows = {-1: {"a/B": 1}, 3: {"a/B": 2}, 4: {"a/B": 3}, 20: {"a/B": 4}}
        self.assertEqual({"a/B": [2, None], "a/C": [None, None]}, normalise(rows, ["a/B", "a/C"], grid))


#: A counter with gaps and restarts: (minutes since the sample before, value)
counters = st.lists(st.tuples(st.integers(1, 3000), st.integers(0, 100_000)), max_size=60)
spans = st.tuples(
    st.sampled_from(["Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "America/New_York"]),
    st.sampled_from(["2026-03-27", "2026-10-23", "2026-04-03", "2026-10-01", "2026-03-06", "2026-10-30"]),
    st.integers(1, 40),
    st.sampled_from([Resolution(1, Unit.HOURS), Resolution(1, Unit.DAYS), Resolution(1, Unit.MONTHS)]),
)


class Properties(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(counters, spans, st.booleans())
    def test_periods_add_up_to_the_span(
        self, counter: list[tuple[int, int]], span: tuple[str, str, int, Resolution], growing: bool
    ) -> None:
        name, first, days, resolution = span
        begin = midnight(datetime.date.fromisoformat(first), ZoneInfo(name))
        end = midnight(begin.date() + datetime.timedelta(days=days), ZoneInfo(name))
        grid = periods(begin, end, resolution)
        time, level, samples = grid.start - 86_400_000, 0, {}
        for minutes, value in counter:
            time += minutes * 60_000
            level = level + value if growing else value
            samples[time] = level
        before = [value for time, value in samples.items() if time < grid.start]
        base = before[-1] if before else None
        whole = Grid([grid.start], grid.end)
        energies = rises(base, by_period(samples, grid))
        span_energy = total(base, by_period(samples, whole))
        known = [value for value in energies if value is not None]
        self.assertEqual(span_energy, sum(known) if known else None)
        self.assertTrue(all(value >= 0 for value in known))
        inside = [value for time, value in samples.items() if grid.start <= time < grid.end]
        if growing and base is not None and inside:
            self.assertEqual(inside[-1] - base, span_energy)

    @given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.data())
    def test_stretches_join_in_any_grouping(self, values: list[int], data: st.DataObject) -> None:
        cuts = sorted(data.draw(st.lists(st.integers(1, len(values)), max_size=4)))
        joined: Stretch | None = None
        for one, other in zip([0, *cuts], [*cuts, len(values)], strict=True):
            part = stretch(values[one:other])
            if part is not None:
                joined = part if joined is None else joined.then(part)
        self.assertEqual(stretch(values), joined)
