"""Histograms: bounds, and that nothing ever falls."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.common.histogram import JAVA_BOUNDS, Histogram, Sampled


class TestHistogram(SynchronousTestCase):
    def test_23_2_a_value_on_a_bound_belongs_to_it(self) -> None:
        histogram = Histogram(JAVA_BOUNDS)
        histogram.observe(2.5)
        self.assertEqual(dict(histogram.cumulative())["1.0"], 0)
        self.assertEqual(dict(histogram.cumulative())["2.5"], 1)

    def test_5_bounds_are_printed_as_java_does(self) -> None:
        self.assertEqual(
            [bound for bound, _ in Histogram().cumulative()],
            ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"],
        )

    def test_above_all_bounds(self) -> None:
        histogram = Histogram((1.0,))
        histogram.observe(7.0)
        self.assertEqual(histogram.cumulative(), [("1.0", 0), ("+Inf", 1)])
        self.assertEqual((histogram.count, histogram.sum), (1, 7.0))

    def test_add(self) -> None:
        one, other = Histogram((1.0,)), Histogram((1.0,))
        one.observe(0.5)
        other.observe(2.0, 3)
        one.add(other)
        self.assertEqual((one.counts, one.sum), ([1, 3], 6.5))


class TestSampled(SynchronousTestCase):
    def test_a_sample_stands_for_what_follows(self) -> None:
        sampled = Sampled((1.0,))
        sampled.observe(0.5, 1)
        self.assertEqual(sampled.histogram(10).counts, [10, 0])
        sampled.observe(5.0, 18)
        self.assertEqual(sampled.histogram(18).counts, [17, 1])
        self.assertEqual(sampled.histogram(20).sum, 17 * 0.5 + 3 * 5.0)

    def test_nothing_seen(self) -> None:
        self.assertEqual(Sampled((1.0,)).histogram(5).counts, [0, 0])

    @given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 40)), max_size=30))
    def test_never_falls_and_counts_exactly(self, samples: list[tuple[float, int]]) -> None:
        sampled, count = Sampled((1.0, 5.0)), 0
        before = sampled.histogram(0)
        for value, following in samples:
            sampled.observe(value, count + 1)
            for count in range(count + 1, count + following + 1):  # noqa: B020
                now = sampled.histogram(count)
                self.assertEqual(now.count, count)
                self.assertTrue(all(a <= b for a, b in zip(before.counts, now.counts, strict=True)))
                self.assertGreaterEqual(now.sum, before.sum - 1e-9)
                before = now
