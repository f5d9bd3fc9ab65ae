from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.b2b.subscriptions import PERIOD, SLOW, Content, Subscriptions
from openems.testing.services import FakeEdgeManager


class Reader:
    def __init__(self) -> None:
        self.waiting = 0
        self.got: list[bytes] = []
        self.on_send: Any = None

    def send(self, text: bytes) -> bool:
        self.got.append(text)
        if self.on_send is not None:
            self.on_send()
        return True


ONE = Content(("edge4",), ("_sum/EssSoc",))
TWO = Content(("edge4", "edge7"), ("_sum/EssSoc", "a/b"))


class SubscriptionsTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.edges = FakeEdgeManager()
        self.edges.connected.add("edge4")
        self.edges.values["_sum/EssSoc"] = 61
        self.subscriptions = Subscriptions(self.edges, reactor=self.clock)

    def seconds(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)

    def test_at_once_and_every_two_seconds(self) -> None:
        """b2b.md 3.5"""
        reader = Reader()
        self.subscriptions.set(reader, TWO)
        expected = (
            b'{"jsonrpc":"2.0","method":"edgesCurrentData","params":'
            b'{"edge4":{"_sum/EssSoc":61,"a/b":null},"edge7":{"_sum/EssSoc":null,"a/b":null}}}'
        )
        self.assertEqual(reader.got, [expected])
        self.seconds(1.9)
        self.assertEqual(len(reader.got), 1)
        self.seconds(0.2)
        self.assertEqual(reader.got, [expected] * 2)
        self.edges.values["_sum/EssSoc"] = 62
        self.seconds(2)
        self.assertEqual(json.loads(reader.got[2])["params"]["edge4"]["_sum/EssSoc"], 62)

    def test_another_takes_its_place(self) -> None:
        reader = Reader()
        self.subscriptions.set(reader, TWO)
        self.seconds(1)
        self.subscriptions.set(reader, ONE)
        self.seconds(4.1)
        self.assertEqual([len(json.loads(text)["params"]) for text in reader.got], [2, 1, 1, 1])

    def test_empty_ends(self) -> None:
        for nothing in (Content((), ("a/b",)), Content(("edge4",), ())):
            reader = Reader()
            self.subscriptions.set(reader, ONE)
            self.subscriptions.set(reader, nothing)
            self.seconds(5)
            self.assertEqual(len(reader.got), 1)
            self.assertEqual((len(self.subscriptions), self.subscriptions.groups), (0, 0))
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_equal_ones_are_encoded_once(self) -> None:
        readers = [Reader() for _ in range(50)]
        for reader in readers:
            self.subscriptions.set(reader, Content(("edge4",), ("_sum/EssSoc",)))
        self.assertEqual(self.subscriptions.encoded, 1)
        self.seconds(2 * PERIOD + 0.1)
        self.assertEqual(self.subscriptions.encoded, 3)
        self.assertEqual(self.subscriptions.pushed, 150)
        self.assertTrue(all(reader.got == readers[0].got for reader in readers))
        self.assertIs(readers[0].got[2], readers[9].got[2])

    def test_who_joins_later_gets_values_at_once(self) -> None:
        first, second = Reader(), Reader()
        self.subscriptions.set(first, ONE)
        self.seconds(1)
        self.edges.values["_sum/EssSoc"] = 62
        self.subscriptions.set(second, ONE)
        self.assertIn(b":62}", second.got[0])
        self.assertEqual(len(first.got), 1)
        self.seconds(1.1)
        self.assertEqual((len(first.got), len(second.got)), (2, 2))
        self.assertEqual(self.subscriptions.groups, 1)

    def test_slow_reader_is_skipped(self) -> None:
        slow, fast = Reader(), Reader()
        for reader in (slow, fast):
            self.subscriptions.set(reader, ONE)
        slow.waiting = SLOW + 1
        self.seconds(2 * PERIOD + 0.1)
        self.assertEqual((len(slow.got), len(fast.got), self.subscriptions.skipped), (1, 3, 2))
        slow.waiting = 0
        self.seconds(PERIOD)
        self.assertEqual((len(slow.got), len(fast.got)), (2, 4))

    def test_nothing_is_encoded_for_slow_readers_alone(self) -> None:
        slow = Reader()
        slow.waiting = SLOW + 1
        self.subscriptions.set(slow, ONE)
        self.seconds(5)
        self.assertEqual((self.subscriptions.encoded, slow.got), (0, []))

    def test_a_failing_run_is_not_the_last(self) -> None:
        """b2b.md 7, 14"""
        reader = Reader()
        self.subscriptions.set(reader, ONE)
        values, self.edges.get_channel_values = self.edges.get_channel_values, None  # type: ignore
        self.seconds(PERIOD + 0.1)
        self.assertEqual((len(reader.got), self.subscriptions.failed), (1, 1))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.edges.get_channel_values = values  # type: ignore
        self.seconds(PERIOD)
        self.assertEqual(len(reader.got), 2)

    def test_sending_ends_the_connection(self) -> None:
        reader, other = Reader(), Reader()
        self.subscriptions.set(reader, ONE)
        self.subscriptions.set(other, ONE)
        reader.on_send = lambda: self.subscriptions.remove(reader)
        other.on_send = lambda: self.subscriptions.remove(other)
        self.seconds(5)
        self.assertEqual((len(reader.got), len(other.got)), (2, 2))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_sending_starts_it_anew(self) -> None:
        reader, other = Reader(), Reader()
        self.subscriptions.set(reader, ONE)

        def again() -> None:
            reader.on_send = None
            self.subscriptions.set(other, ONE)

        reader.on_send = again
        self.seconds(PERIOD + 0.1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.seconds(PERIOD)
        self.assertEqual(len(other.got), 2)

    def test_huge_numbers_and_odd_texts(self) -> None:
        reader = Reader()
        self.edges.values.update({"a/big": 2**70, "a/text": "\u2028"})
        self.subscriptions.set(reader, Content(("edge4",), ("a/big", "a/text")))
        self.assertEqual(json.loads(reader.got[0])["params"]["edge4"], {"a/big": 2**70, "a/text": "\u2028"})
        self.assertIn(b"\\u2028", reader.got[0])
