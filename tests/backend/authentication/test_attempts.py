"""Limits of attempts (auth.md S13): pure, on a clock of numbers."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.authentication.attempts import (
    ADDRESS,
    AT_ONCE,
    AT_ONCE_AFTER_FAILURES,
    MAX_ENTRIES,
    PAIR,
    Attempts,
    Spacing,
)


class Counted(SynchronousTestCase):
    def setUp(self) -> None:
        self.attempts = Attempts()

    def fail_(self, now: float, address: str = "a", name: str = "mia") -> bool:
        granted = self.attempts.begin(address, name, now)
        if granted:
            self.attempts.failed(address, name, now)
        return granted

    def test_waits_double(self) -> None:
        now, waits = 0.0, []
        for _ in range(PAIR.free + 8):
            begun = now
            while not self.fail_(now):
                now += 1.0
            waits.append(now - begun)
        self.assertEqual(waits, [0.0] * PAIR.free + [6.0, 12.0, 24.0, 48.0, 96.0, 192.0, 300.0, 300.0])

    def test_a_right_password_forgives_the_wrong_ones_of_that_user(self) -> None:
        for _ in range(3):
            for number in range(PAIR.free - 1):
                self.assertTrue(self.fail_(float(number)))
            self.assertTrue(self.attempts.begin("a", "mia", 4.0))
            self.attempts.succeeded("a", "mia")

    def test_an_address_is_not_forgiven_by_one_right_password(self) -> None:
        for number in range(ADDRESS.free):
            self.assertTrue(self.fail_(0.0, name=f"u{number}"))
        self.assertFalse(self.attempts.begin("a", "another", 0.0))
        self.assertTrue(self.attempts.begin("a", "another", 7.0))
        self.attempts.succeeded("a", "another")
        self.assertTrue(self.fail_(7.0, name="u"))
        self.assertFalse(self.attempts.begin("a", "another", 8.0))

    def test_others_are_not_concerned(self) -> None:
        for _ in range(100):
            self.fail_(0.0)
        self.assertTrue(self.attempts.begin("b", "mia", 0.0))

    def test_an_office_logs_in_at_once(self) -> None:
        granted = sum(self.attempts.begin("a", f"u{number}", 0.0) for number in range(AT_ONCE + 50))
        self.assertEqual(granted, AT_ONCE)
        for number in range(AT_ONCE):
            self.attempts.succeeded("a", f"u{number}")
        self.assertEqual(self.attempts.size, 0)

    def test_not_many_at_once_after_failures(self) -> None:
        for number in range(ADDRESS.free):
            self.fail_(0.0, name=f"u{number}")
        granted = sum(self.attempts.begin("a", "", 10.0) for _ in range(50))
        self.assertEqual(granted, AT_ONCE_AFTER_FAILURES)

    def test_what_nobody_could_judge_does_not_count(self) -> None:
        for _ in range(200):
            self.assertTrue(self.attempts.begin("a", "mia", 0.0))
            self.attempts.void("a", "mia")

    def test_forgotten_after_a_while(self) -> None:
        for _ in range(PAIR.free):
            self.fail_(0.0)
        self.assertTrue(self.fail_(1000.0))
        self.assertTrue(self.fail_(1000.0))

    def test_bounded(self) -> None:
        for number in range(MAX_ENTRIES + 500):
            self.fail_(0.0, address=f"a{number}")
        self.assertLessEqual(self.attempts.size, 2 * MAX_ENTRIES)

    @settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["", "x", "y"]), st.integers(0, 2), st.floats(0, 50)))
    )
    def test_nothing_is_left_under_way(self, steps: list[tuple[str, str, int, float]]) -> None:
        attempts, now = Attempts(), 0.0
        for address, name, outcome, seconds in steps:
            now += seconds
            if attempts.begin(address, name, now):
                if outcome == 0:
                    attempts.succeeded(address, name)
                elif outcome == 1:
                    attempts.failed(address, name, now)
                else:
                    attempts.void(address, name)
        self.assertEqual(dict(attempts._under_way), {})


class Spaced(SynchronousTestCase):
    def test_apart(self) -> None:
        spacing = Spacing(1.2)
        self.assertEqual(spacing.wait("mia", 0.0), 0.0)
        spacing.failed("mia", 5.0)
        self.assertAlmostEqual(spacing.wait("mia", 5.2), 1.0)
        self.assertEqual(spacing.wait("jan", 5.2), 0.0)
        self.assertEqual(spacing.wait("mia", 7.0), 0.0)
