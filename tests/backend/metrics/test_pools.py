"""Sessions of databases (metrics.md 17)."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openems.backend.metrics.pools import Pools, pools_of
from openems.postgres.pool import Pool
from tests.backend.metrics.test_process import values


def pool(name: str = "metadata0") -> Pool:
    return Pool(name, host="127.0.0.1", user="u", database="d", size=3, reactor=Clock())


class Part:
    def __init__(self, **more: Any) -> None:
        self.__dict__.update(more)


class PoolsTest(SynchronousTestCase):
    def test_of_components(self) -> None:
        one, two, three = pool("a"), pool("b"), pool("c")
        parts = [Part(pool=one), Part(pool="what else has that name"), None, Part(pool=two, write_pool=three)]
        self.assertEqual(pools_of(parts), [one, two, three])

    def test_numbers(self) -> None:
        one = pool()
        one._idle.append(object())  # type: ignore[arg-type]
        one._busy |= {object(), object()}  # type: ignore[arg-type]
        one.waits.observe(0.2)
        one.failed, one.timed_out, one.refused = 7, 3, 2
        got = values(Pools([one, pool("timedata0 queries")]).collect())
        self.assertEqual(got[("db_pool_connections", "metadata0", "idle")], 1)
        self.assertEqual(got[("db_pool_connections", "metadata0", "busy")], 2)
        self.assertEqual(got[("db_pool_max_connections", "metadata0")], 3)
        self.assertEqual(got[("db_pool_connections", "timedata0_queries", "busy")], 0)
        self.assertEqual(got[("db_pool_waiting", "metadata0")], 0)
        self.assertEqual(got[("db_pool_wait_seconds_bucket", "0.1", "metadata0")], 0)
        self.assertEqual(got[("db_pool_wait_seconds_bucket", "0.25", "metadata0")], 1)
        failures = [
            got[("db_pool_failures_total", "metadata0", reason)] for reason in ("timeout", "queue_full", "other")
        ]
        self.assertEqual(failures, [3, 2, 2])
