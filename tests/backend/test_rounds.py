from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openems.backend.rounds import ROUND, Rounds


class TestRounds(SynchronousTestCase):
    def test_everybody_once_in_a_round(self) -> None:
        people = list(range(1000))
        rounds = Rounds(lambda: people, at_least=1)
        seen = [someone for second in range(int(ROUND)) for someone in rounds.tick(float(second))]
        self.assertEqual(seen, people)
        self.assertEqual(rounds.tick(ROUND - 0.5), [])
        self.assertEqual(rounds.tick(ROUND)[0], 0)

    def test_restart(self) -> None:
        rounds = Rounds(lambda: range(4), at_least=3)
        self.assertEqual(rounds.tick(0.0), [0, 1, 2])
        rounds.restart()
        self.assertEqual([rounds.tick(1.0), rounds.tick(2.0), rounds.tick(3.0)], [[0, 1, 2], [3], []])
