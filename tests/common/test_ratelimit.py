from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.common.ratelimit import PerPeer, TokenBucket


class TokenBucketTest(SynchronousTestCase):
    def test_t9_after_idling_a_second_of_permits_and_one_on_credit(self) -> None:
        """ui.md 20 T9"""
        bucket = TokenBucket(20.0, now=0.0)
        self.assertEqual(sum(bucket.take(2.0) for _ in range(30)), 21)

    def test_starts_full(self) -> None:
        """ui.md 19, 29"""
        bucket = TokenBucket(20.0, now=0.0)
        self.assertEqual(sum(bucket.take(0.0) for _ in range(30)), 21)

    def test_idling_longer_saves_no_more(self) -> None:
        bucket = TokenBucket(20.0, now=0.0)
        self.assertEqual(sum(bucket.take(3_600.0) for _ in range(100)), 21)

    def test_debt_is_paid_before_the_next_grant(self) -> None:
        bucket = TokenBucket(20.0, now=0.0)
        while bucket.take(0.0):
            pass
        self.assertFalse(bucket.take(0.049))
        self.assertTrue(bucket.take(0.051))
        self.assertFalse(bucket.take(0.052))

    def test_rate_must_be_positive(self) -> None:
        self.assertRaises(ValueError, TokenBucket, 0.0, now=0.0)

    @given(st.lists(st.floats(0, 0.2), max_size=300), st.integers(1, 50))
    def test_never_more_than_rate_and_burst(self, steps: list[float], rate: int) -> None:
        bucket = TokenBucket(float(rate), now=0.0)
        now = 0.0
        granted = 0
        for step in steps:
            now += step
            granted += bucket.take(now)
        self.assertLessEqual(granted, rate + 1 + now * rate + 1e-6)

    @given(st.integers(1, 50))
    def test_steady_use_at_the_rate_is_never_refused(self, rate: int) -> None:
        bucket = TokenBucket(float(rate), now=0.0)
        self.assertTrue(all(bucket.take(i * 1.001 / rate) for i in range(200)))


class PerPeerTest(SynchronousTestCase):
    def test_peers_do_not_share(self) -> None:
        limits = PerPeer(1.0, burst=2)
        self.assertEqual([limits.take("a", 0.0) for _ in range(4)], [True, True, True, False])
        self.assertTrue(limits.take("b", 0.0))

    def test_bounded(self) -> None:
        limits = PerPeer(1.0, burst=2, max_peers=10)
        for i in range(100):
            limits.take(str(i), 0.0)
        self.assertEqual(len(limits), 10)
