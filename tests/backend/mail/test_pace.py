from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.mail.pace import MINUTE, Pace


class Paces(SynchronousTestCase):
    def test_so_many_a_minute(self) -> None:
        pace = Pace(per_minute=3, parallel=2)
        for at in (0, 10, 20):
            self.assertLessEqual(pace.free_at(at), at)
            pace.begins(at)
        self.assertEqual(pace.free_at(30), MINUTE)
        self.assertLessEqual(pace.free_at(MINUTE), MINUTE)
        pace.begins(MINUTE)
        self.assertEqual(pace.free_at(MINUTE + 1), MINUTE + 10)

    def test_a_server_that_is_away(self) -> None:
        pace = Pace(per_minute=1000, parallel=4)
        self.assertEqual(pace.at_once, 4)
        now = 1
        waits = []
        logged = 0
        for _ in range(13):
            logged += pace.fails(now, "away")
            waits.append((pace.free_at(now) - now) // MINUTE)
            now = pace.free_at(now)
        self.assertEqual(waits, [1, 2] + [5] * 11)
        self.assertEqual((logged, pace.at_once), (2, 1))
        self.assertTrue(pace.is_failing(now))
        self.assertTrue(pace.answers())
        self.assertFalse(pace.answers())
        self.assertEqual((pace.free_at(now), pace.at_once, pace.problem, pace.is_failing(now)), (now, 4, None, False))
