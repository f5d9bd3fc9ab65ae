from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openems.common.digest import keyed


class TestDigest(SynchronousTestCase):
    def test_parts_are_kept_apart(self) -> None:
        self.assertNotEqual(keyed(b"k", "ab", "c"), keyed(b"k", "a", "bc"))
        self.assertNotEqual(keyed(b"k", "a"), keyed(b"l", "a"))
        self.assertEqual(len(keyed(b"k", "\ud800")), 32)
