from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench import b2b


class BenchTest(SynchronousTestCase):
    def test_rest(self) -> None:
        figures = b2b.rest(0.3, 1)
        self.assertGreater(figures["ratio"], 0.1)
        self.assertEqual(figures["values"], 200)

    def test_websocket_encodes_equal_ones_once(self) -> None:
        figures = b2b.websocket(2.5, 5)
        self.assertLessEqual(figures["equal"]["encoded"], 2)
        self.assertEqual(figures["equal"]["pushes"], 5 * figures["equal"]["encoded"])
        self.assertEqual(figures["different"]["pushes"], figures["different"]["encoded"])
