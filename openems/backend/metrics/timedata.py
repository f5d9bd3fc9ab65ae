"""History: what was written, what waits, what was lost, how long queries take (metrics.md 17).

A provider tells its numbers as every component does; those that providers have in common get the names that dashboards
want, whichever database is behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric

from openems.backend.core.timedatamanager import QUERIES
from openems.backend.metrics.families import PREFIX, Labels, counter, gauge, histogram, snake

_SPOOL_AGE = "timedata_spool_oldest_age_seconds"
#: Name of a provider's number -> (metric, whether it only rises, what it is).
_KNOWN = {
    "Rows": ("timedata_write_points", True, "Values written."),
    "Batches": ("timedata_write_batches", True, "Batches written."),
    "Failures": ("timedata_write_errors", True, "Batches that could not be written."),
    "Retries": ("timedata_write_retries", True, "Batches that were tried again."),
    "Waiting": ("timedata_write_queue_points", False, "Values that wait to be written."),
    "WaitingOnDisk": ("timedata_spool_points", False, "Values on disk that wait for the database."),
    "DiskBytes": ("timedata_spool_bytes", False, "Bytes on disk that wait for the database."),
    "Files": ("timedata_spool_files", False, "Files of values that wait for the database."),
    "OldestWaitingSeconds": (_SPOOL_AGE, False, "Age of the oldest value that waits."),
}
_DROPPED = "Dropped"
_ABOUT_DROPPED = "Values that were lost."
_QUEUE_FULL = "queue_full"


def claims(name: str) -> bool:
    """Whether a provider's number has its own name here."""
    return name in _KNOWN or (name.startswith(_DROPPED) and len(name) > len(_DROPPED))


class Timedata:
    """``manager``: TimedataManager; ``pool``: the QueryPool of the core."""

    def __init__(self, manager: Any, pool: Any) -> None:
        self.manager = manager
        self._pool = pool

    @property
    def providers(self) -> frozenset[str]:
        return frozenset(provider.id for provider in self.manager.providers)

    def collect(self) -> Iterator[Metric]:
        rising: dict[str, dict[Labels, float]] = {metric: {} for metric, rises, _ in _KNOWN.values() if rises}
        level: dict[str, dict[Labels, float]] = {metric: {} for metric, rises, _ in _KNOWN.values() if not rises}
        # One without a spool has nothing that waits there.
        level[_SPOOL_AGE].update({(provider,): 0 for provider in sorted(self.providers)})
        # Rates must work from the first loss on.
        dropped: dict[Labels, float] = {(provider, "other"): 0 for provider in sorted(self.providers)}
        refused: dict[Labels, float] = {(_QUEUE_FULL,): self._pool.rejected}
        for provider in self.manager.providers:
            for name, value in _numbers(provider).items():
                if name in _KNOWN:
                    metric, rises, _ = _KNOWN[name]
                    (rising if rises else level)[metric][(provider.id,)] = value
                elif claims(name):
                    dropped[(provider.id, snake(name[len(_DROPPED) :]))] = value
                elif name == "QueriesRefused":
                    refused[("provider",)] = refused.get(("provider",), 0) + value
        yield from self._writes()
        for metric, rises, about in _KNOWN.values():
            if rises:
                yield counter(PREFIX + metric, about, rising[metric], ("provider",))
            else:
                yield gauge(PREFIX + metric, about, level[metric], ("provider",))
        yield counter(f"{PREFIX}timedata_dropped_points", _ABOUT_DROPPED, dropped, ("provider", "reason"))
        failures = {(provider,): self.manager.write_failures.get(provider, 0) for provider in sorted(self.providers)}
        yield counter(
            f"{PREFIX}timedata_write_exceptions", "Notifications a provider choked on.", failures, ("provider",)
        )
        yield from self._queries(refused)

    def _writes(self) -> Iterator[Metric]:
        """Of providers that write; of those that wrote nothing yet no time, so that its age means something."""
        writes = {(p.id,): p.writes for p in self.manager.providers if getattr(p, "writes", None) is not None}
        yield histogram(
            f"{PREFIX}timedata_write_batch_duration_seconds",
            "How long batches took that the database took.",
            sorted((labels, each.durations) for labels, each in writes.items()),
            ("provider",),
        )
        yield gauge(
            f"{PREFIX}timedata_last_write_success_timestamp_seconds",
            "When the database last took a batch.",
            {labels: each.last / 1000 for labels, each in writes.items() if each.last is not None},
            ("provider",),
        )

    def _queries(self, refused: Mapping[Labels, float]) -> Iterator[Metric]:
        yield gauge(
            f"{PREFIX}timedata_query_queue_capacity", "Queries that may wait; thread_pool_queue do.", self._pool.queue
        )
        yield counter(f"{PREFIX}timedata_queries_rejected", "Queries refused at once.", refused, ("reason",))
        queries: dict[Labels, float] = {
            (provider, query, result): 0
            for provider in sorted(self.providers)
            for query in QUERIES
            for result in ("ok", "error")
        }
        queries.update(self.manager.queries)
        yield counter(f"{PREFIX}timedata_queries", "Queries of providers.", queries, ("provider", "query", "result"))
        yield histogram(
            f"{PREFIX}timedata_query_duration_seconds",
            "How long providers took to answer.",
            sorted(self.manager.query_seconds.items()),
            ("provider", "query"),
        )


def _numbers(provider: Any) -> dict[str, float]:
    """One that fails is counted where all components are asked."""
    try:
        told: Mapping[str, Any] = provider.debug_metrics()
    except Exception:
        return {}
    return {key.partition("/")[2]: value for key, value in told.items() if isinstance(value, int | float)}
