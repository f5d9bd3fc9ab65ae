from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metadata import throttle
from openems.backend.metadata.throttle import FORGET, Throttle


class TestThrottle(SynchronousTestCase):
    def test_t031_twenty_wrong_tries_get_slower(self) -> None:
        table = Throttle()
        delays = [table.begin("x", "1.2.3.4", now) for now in range(20)]
        self.assertEqual(delays[:6], [0, 0, 0, 0.5, 1, 2])
        self.assertEqual(delays, sorted(delays))
        self.assertEqual(delays[-1], 30)

    def test_one_address_many_names(self) -> None:
        table = Throttle()
        delays = [table.begin(f"user{n}", "1.2.3.4", 0) for n in range(20)]
        self.assertEqual(delays[9:12], [0, 0.5, 1])

    def test_nobody_is_locked_out_by_strangers(self) -> None:
        table = Throttle()
        for n in range(1000):
            table.begin("mia", f"10.0.{n >> 8}.{n & 255}", 0)
        self.assertEqual(table.begin("mia", "192.0.2.1", 0), 5)
        self.assertEqual(table.begin("ben", "192.0.2.1", 0), 0)

    def test_success_takes_back(self) -> None:
        table = Throttle()
        for _ in range(100):
            table.begin("mia", "1.2.3.4", 0)
            table.succeeded("mia", "1.2.3.4")
        self.assertEqual(table.begin("mia", "1.2.3.4", 0), 0)

    def test_what_nobody_could_tell_counts_for_nothing(self) -> None:
        """Neither as wrong, nor to take back wrong ones."""
        table = Throttle()
        for _ in range(3):
            table.begin("mia", "1.2.3.4", 0)
        for _ in range(100):
            self.assertEqual(table.begin("mia", "1.2.3.4", 0), 0.5)
            table.unverified("mia", "1.2.3.4")
        self.assertEqual(table.begin("mia", "1.2.3.4", 0), 0.5)

    def test_own_account_buys_no_attempts_on_others(self) -> None:
        table = Throttle()
        for n in range(20):
            table.begin(f"victim{n}", "1.2.3.4", 0)
            table.begin("own", "1.2.3.4", 0)
            table.succeeded("own", "1.2.3.4")
        self.assertEqual(table.begin("other", "1.2.3.4", 0), 30)

    def test_forgotten(self) -> None:
        table = Throttle()
        for _ in range(20):
            table.begin("mia", "1.2.3.4", 0)
        self.assertEqual(table.begin("mia", "1.2.3.4", FORGET + 1), 0)

    def test_repetition(self) -> None:
        table = Throttle()
        table.refused(b"x", 100)
        self.assertTrue(table.is_repetition(b"x", 102))
        self.assertFalse(table.is_repetition(b"x", 102.1))
        self.assertFalse(table.is_repetition(b"y", 100))

    def test_bounded(self) -> None:
        self.patch(throttle, "MAX_ENTRIES", 10)
        table = Throttle()
        for n in range(1000):
            table.begin(f"u{n}", f"a{n}", n)
            table.refused(b"%d" % n, n)
        self.assertEqual(table.size, 40)

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(0, 2000)), max_size=60))
    def test_delays_are_bounded(self, attempts: list[tuple[str, str, float]]) -> None:
        table = Throttle()
        now = 0.0
        for login, address, later in attempts:
            now += later
            self.assertTrue(0 <= table.begin(login, address, now) <= 30)
