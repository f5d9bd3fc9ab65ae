"""Signatures are verified a few in each turn of the reactor; equal work is done once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.authentication.keycloak.pace import Pace
from openems.backend.authentication.keycloak.shared import MAX_KEPT, Shared


class OneTurn(Clock):
    """As a reactor: what is called for now in a turn comes in the next one."""

    def turn(self) -> None:
        for call in self.getDelayedCalls():
            self.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)


class Turns(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = OneTurn()
        self.pace = Pace(self.clock, 0.01)
        self.done: list[int] = []

    async def work(self, number: int) -> None:
        await self.pace.turn()
        self.pace.spent(0.004)
        self.done.append(number)

    def test_a_few_in_each_turn(self) -> None:
        for number in range(8):
            Deferred.fromCoroutine(self.work(number))
        self.assertEqual(self.done, [0, 1, 2])
        self.clock.turn()
        self.assertEqual(self.done, [0, 1, 2, 3, 4, 5])
        self.clock.turn()
        self.assertEqual(self.done, list(range(8)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_gives_up(self) -> None:
        waiting = [Deferred.fromCoroutine(self.work(number)) for number in range(5)]
        waiting[3].cancel()
        self.failureResultOf(waiting[3], CancelledError)
        self.clock.turn()
        self.assertEqual(self.done, [0, 1, 2, 4])

    def test_stop(self) -> None:
        waiting = [Deferred.fromCoroutine(self.work(number)) for number in range(5)]
        self.pace.stop()
        for outcome in waiting[3:]:
            self.failureResultOf(outcome, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Once(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[Deferred[str]] = []
        self.shared: Shared[str] = Shared(self.clock, lambda _: 10.0, failures=(ValueError,), keep_failures=5.0)

    async def work(self) -> str:
        waiting: Deferred[str] = Deferred()
        self.begun.append(waiting)
        return await waiting

    def ask(self, key: bytes = b"k") -> Deferred[Any]:
        return Deferred.fromCoroutine(self.shared.result(key, self.work))

    def test_results_are_kept(self) -> None:
        outcomes = [self.ask(), self.ask(), self.ask(b"other")]
        self.assertEqual(len(self.begun), 2)
        self.begun[0].callback("r")
        self.assertEqual([self.successResultOf(o) for o in outcomes[:2]], ["r", "r"])
        self.assertEqual(self.successResultOf(self.ask()), "r")
        self.clock.advance(10)
        self.assertNoResult(self.ask())
        self.assertEqual(len(self.begun), 3)

    def test_failures_of_some_kinds_are(self) -> None:
        for kind, kept in ((ValueError, True), (KeyError, False)):
            outcomes = [self.ask(kind.__name__.encode()) for _ in range(2)]
            self.begun[-1].errback(kind("x"))
            for outcome in outcomes:
                self.failureResultOf(outcome, kind)
            again = self.ask(kind.__name__.encode())
            if kept:
                self.failureResultOf(again, kind)
            else:
                self.assertNoResult(again)

    def test_bounded(self) -> None:
        for number in range(MAX_KEPT + 10):
            self.ask(str(number).encode())
            self.begun[-1].callback("r")
        self.assertEqual(len(self.shared), MAX_KEPT)

    def test_stop(self) -> None:
        outcome = self.ask()
        self.shared.stop()
        self.failureResultOf(outcome, CancelledError)
