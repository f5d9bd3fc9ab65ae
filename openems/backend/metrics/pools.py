"""Sessions of databases: how many there are, how long who asks waits for one (metrics.md 17)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.core import Metric

from openems.backend.metrics.families import PREFIX, clean_label, counter, gauge, histogram

if TYPE_CHECKING:
    from openems.postgres.pool import Pool

#: Where components have theirs.
_ATTRIBUTES = ("pool", "write_pool")


def pools_of(parts: Iterable[Any]) -> list[Pool]:
    """Those of these components."""
    try:
        from openems.postgres.pool import Pool
    except ImportError:
        # No driver is installed, so there is none.
        return []
    found = (getattr(part, attribute, None) for part in parts for attribute in _ATTRIBUTES)
    return [pool for pool in found if isinstance(pool, Pool)]


class Pools:
    """Each is told apart by its name, which is the configuration's."""

    def __init__(self, pools: Iterable[Pool]) -> None:
        self._pools = {clean_label(pool.name): pool for pool in pools}

    def collect(self) -> Iterator[Metric]:
        pools = self._pools.items()
        one = ("pool",)
        sessions = {(name, state): n for name, p in pools for state, n in (("idle", p.idle), ("busy", p.busy))}
        yield gauge(f"{PREFIX}db_pool_connections", "Sessions of a database.", sessions, (*one, "state"))
        yield gauge(
            f"{PREFIX}db_pool_max_connections",
            "Sessions there may be.",
            {(name,): pool.size for name, pool in pools},
            one,
        )
        yield gauge(
            f"{PREFIX}db_pool_waiting",
            "Callers that wait for a session.",
            {(name,): pool.waiting for name, pool in pools},
            one,
        )
        yield histogram(
            f"{PREFIX}db_pool_wait_seconds",
            "How long callers waited for a session.",
            (((name,), pool.waits) for name, pool in pools),
            one,
        )
        failures = {
            (name, reason): count
            for name, pool in pools
            for reason, count in (
                ("timeout", pool.timed_out),
                ("queue_full", pool.refused),
                ("other", max(0, pool.failed - pool.timed_out - pool.refused)),
            )
        }
        yield counter(
            f"{PREFIX}db_pool_failures",
            "Questions that the database did not answer.",
            failures,
            (*one, "reason"),
        )
