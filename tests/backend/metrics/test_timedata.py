"""History in metrics (metrics.md 17)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.core.querypool import QueryPool
from openems.backend.core.timedatamanager import CannotServe, TimedataManager
from openems.backend.metrics.timedata import Timedata
from openems.backend.timedata.writes import Writes
from openems.common.errors import OpenemsError, generic
from tests.backend.metrics.test_process import values

FROM, TO = datetime(2026, 4, 5, tzinfo=UTC), datetime(2026, 4, 6, tzinfo=UTC)


def written() -> Writes:
    """One batch, in 0.2 seconds, at 1,700,000,000."""
    times = iter((0.3,))
    writes = Writes(lambda: next(times), lambda: 1_700_000_000_000)
    writes.done(0.1)
    return writes


class Provider:
    def __init__(self, id: str, numbers: Mapping[str, Any], answer: Any = None, writes: Writes | None = None) -> None:
        self.id = id
        self.writes = writes
        self.numbers = numbers
        self.answer = answer

    def debug_metrics(self) -> Mapping[str, Any]:
        return {f"{self.id}/{name}": value for name, value in self.numbers.items()}

    async def query_historic_energy(self, *arguments: Any) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, Deferred):
            await self.answer
        return {"_sum/A": 5}


class TestTimedata(SynchronousTestCase):
    def collector(self, *providers: Provider) -> Timedata:
        self.manager = TimedataManager(providers)
        self.pool = QueryPool(1, 0, reactor=Clock())
        return Timedata(self.manager, self.pool)

    def ask(self) -> Any:
        asked = self.manager.query_historic_energy("edge0", FROM, TO, ["_sum/A"])
        return Deferred.fromCoroutine(asked)  # type: ignore[arg-type]

    def test_what_providers_have_in_common(self) -> None:
        numbers = {"Rows": 10, "Waiting": 3, "DroppedFull": 2, "OldestWaitingSeconds": 7.5, "QueriesRefused": 4, "X": 1}
        got = values(self.collector(Provider("timedata0", numbers), Provider("timedata1", {})).collect())
        self.assertEqual(got[("timedata_write_points_total", "timedata0")], 10)
        self.assertEqual(got[("timedata_write_queue_points", "timedata0")], 3)
        self.assertEqual(got[("timedata_dropped_points_total", "timedata0", "full")], 2)
        self.assertEqual(got[("timedata_dropped_points_total", "timedata1", "other")], 0)
        self.assertEqual(got[("timedata_spool_oldest_age_seconds", "timedata0")], 7.5)
        self.assertEqual(got[("timedata_spool_oldest_age_seconds", "timedata1")], 0)
        self.assertEqual(got[("timedata_queries_rejected_total", "provider")], 4)
        self.assertNotIn(("timedata_write_points_total", "timedata1"), got)

    def test_writes(self) -> None:
        never = Writes(lambda: 0.0, lambda: 0)
        writing = (Provider("timedata0", {}, writes=written()), Provider("timedata1", {}, writes=never))
        got = values(self.collector(*writing, Provider("archive", {})).collect())
        last = "timedata_last_write_success_timestamp_seconds"
        self.assertEqual(got[(last, "timedata0")], 1_700_000_000)
        self.assertEqual([key for key in got if key[0] == last], [(last, "timedata0")])
        duration = "timedata_write_batch_duration_seconds"
        self.assertEqual(got[(f"{duration}_bucket", "0.1", "timedata0")], 0)
        self.assertEqual(got[(f"{duration}_bucket", "0.25", "timedata0")], 1)
        self.assertEqual(got[(f"{duration}_count", "timedata1")], 0)
        self.assertNotIn((f"{duration}_count", "archive"), got)

    def test_queries(self) -> None:
        collector = self.collector(
            Provider("timedata0", {}, CannotServe("not mine")),
            Provider("timedata1", {}, generic("broken")),
            Provider("timedata2", {}),
        )
        self.assertEqual(self.successResultOf(self.ask()), {"_sum/A": 5})
        got = values(collector.collect())
        self.assertEqual(got[("timedata_queries_total", "timedata0", "energy", "unserved")], 1)
        self.assertEqual(got[("timedata_queries_total", "timedata1", "energy", "error")], 1)
        self.assertEqual(got[("timedata_queries_total", "timedata2", "energy", "ok")], 1)
        self.assertEqual(got[("timedata_queries_total", "timedata2", "data", "ok")], 0)
        self.assertEqual(got[("timedata_query_duration_seconds_count", "timedata2", "energy")], 1)

    def test_cancelled(self) -> None:
        collector = self.collector(Provider("timedata0", {}, Deferred()))
        asked = self.ask()
        asked.cancel()
        self.failureResultOf(asked)
        self.assertEqual(values(collector.collect())[("timedata_queries_total", "timedata0", "energy", "cancelled")], 1)

    def test_refused_at_once(self) -> None:
        collector = self.collector()
        running: Deferred[None] = Deferred()

        async def work() -> None:
            await running

        first = self.pool.run("user0", 1, work, 60)
        self.assertRaises(OpenemsError, self.pool.run, "user0", 2, work, 60)
        self.assertEqual(values(collector.collect())[("timedata_queries_rejected_total", "queue_full")], 1)
        running.callback(None)
        self.successResultOf(first)


class TestPool(SynchronousTestCase):
    """Names, waits and times of the pool of queries (core.md 5.2, metrics.md 22, 22)."""

    def test_active_and_sum_tasks(self) -> None:
        clock = Clock()
        seen: list[tuple[str, float, float]] = []
        pool = QueryPool(1, 10, reactor=clock, observe=lambda *told: seen.append(told))
        gates: list[Deferred[None]] = [Deferred(), Deferred()]

        async def work(number: int) -> None:
            await gates[number]

        first = pool.run("user0", 1, lambda: work(0), 60, "a")
        second = pool.run("user0", 2, lambda: work(1), 60, "b")
        self.assertEqual((dict(pool.active), dict(pool.total)), ({"a": 1}, {"a": 1}))
        clock.advance(2)
        gates[0].callback(None)
        clock.advance(3)
        gates[1].callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual((pool.active["a"], pool.active["b"], dict(pool.total)), (0, 0, {"a": 1, "b": 1}))
        self.assertEqual(seen, [("a", 0, 2), ("b", 2, 3)])

    def test_22_22_cancelled_ones_do_not_stay_active(self) -> None:
        clock = Clock()
        pool = QueryPool(1, 10, reactor=clock)

        async def work() -> None:
            await Deferred()

        asked = pool.run("user0", 1, work, 5, "a")
        clock.advance(5)
        self.failureResultOf(asked, OpenemsError)
        self.assertEqual(pool.active["a"], 0)
