"""Bounds on history queries (core.md 3.9, reality.md R16)."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core.querypool import QueryPool
from openems.common.errors import OpenemsError


class Pool(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[Any] = []
        self.open: dict[Any, Deferred[Any]] = {}

    def pool(self, size: int = 1, queue: int = 10) -> QueryPool:
        return QueryPool(size, queue, reactor=self.clock)

    def run_in(self, pool: QueryPool, user: str, key: Any, timeout: float = 60) -> Deferred[Any]:
        def work() -> Deferred[Any]:
            self.begun.append(key)
            self.open[key] = Deferred()
            return self.open[key]

        return pool.run(user, key, work, timeout)

    def end(self, key: Any) -> None:
        self.open.pop(key).callback(f"result {key}")

    def test_users_take_turns(self) -> None:
        pool = self.pool()
        for number in range(4):
            self.run_in(pool, "a", f"a{number}")
        self.run_in(pool, "b", "b0")
        while self.open:
            self.end(next(iter(self.open)))
        self.assertEqual(self.begun, ["a0", "a1", "b0", "a2", "a3"])

    def test_equal_queries_are_answered_once(self) -> None:
        pool = self.pool()
        one, two = self.run_in(pool, "a", "q"), self.run_in(pool, "b", "q")
        self.assertEqual(self.begun, ["q"])
        self.end("q")
        self.assertEqual((self.successResultOf(one), self.successResultOf(two)), ("result q", "result q"))
        self.run_in(pool, "a", "q")
        self.assertEqual(self.begun, ["q", "q"], "a finished one is no cache")

    def test_too_many(self) -> None:
        pool = self.pool(1, 1)
        self.run_in(pool, "a", 1)
        self.run_in(pool, "a", 2)
        error = self.assertRaises(OpenemsError, self.run_in, pool, "a", 3)
        self.assertEqual((error.code, pool.rejected), (4005, 1))

    def test_one_deadline_for_waiting_and_running(self) -> None:
        pool = self.pool()
        running, waiting = self.run_in(pool, "a", 1, 10), self.run_in(pool, "a", 2, 12)
        self.clock.advance(10)
        self.assertEqual(self.failureResultOf(running, OpenemsError).value.code, 1)
        self.assertEqual(self.begun, [1, 2], "the place of the late one is free")
        self.clock.advance(2)
        self.failureResultOf(waiting, OpenemsError)
        self.assertEqual((pool.running, pool.queued), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_expired_in_the_queue_is_not_begun_and_takes_no_place(self) -> None:
        pool = self.pool(1, 1)
        self.run_in(pool, "a", 1, 100)
        self.failureResultOf_later(pool)
        self.run_in(pool, "a", 3, 100)
        self.end(1)
        self.assertEqual(self.begun, [1, 3])

    def failureResultOf_later(self, pool: QueryPool) -> None:
        late = self.run_in(pool, "a", 2, 5)
        self.clock.advance(5)
        self.failureResultOf(late, OpenemsError)

    def test_a_later_equal_query_has_its_own_deadline(self) -> None:
        pool = self.pool()
        impatient = self.run_in(pool, "a", "q", 2)
        patient = self.run_in(pool, "b", "q", 60)
        self.clock.advance(2)
        self.failureResultOf(impatient, OpenemsError)
        self.assertNoResult(patient)
        self.end("q")
        self.assertEqual(self.successResultOf(patient), "result q")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_long_queue_of_quick_ones(self) -> None:
        """No depth of calls grows with the queue."""
        pool = self.pool(1, 5000)
        self.run_in(pool, "a", "slow")

        async def quick() -> int:
            return 1

        results = [pool.run("a", number, quick, 60) for number in range(5000)]
        self.end("slow")
        self.assertEqual([self.successResultOf(result) for result in results], [1] * 5000)
        self.assertEqual((pool.running, pool.queued, pool.completed), (0, 0, 5001))

    def test_a_failure_reaches_all_and_frees_the_place(self) -> None:
        pool = self.pool()
        one, two = self.run_in(pool, "a", "q"), self.run_in(pool, "b", "q")
        self.open.pop("q").errback(OpenemsError(1, "no"))
        for failed in (one, two):
            self.assertEqual(self.failureResultOf(failed, OpenemsError).value.message, "no")
        self.assertEqual(pool.running, 0)

    def test_nobody_waits_any_more(self) -> None:
        pool = self.pool()
        self.run_in(pool, "a", 1)
        gone = self.run_in(pool, "a", 2)
        gone.cancel()
        self.failureResultOf(gone)
        self.end(1)
        self.assertEqual(self.begun, [1])
        self.assertEqual((pool.running, pool.queued), (0, 0))
