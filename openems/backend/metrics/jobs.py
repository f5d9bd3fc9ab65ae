"""What is done again and again: when it last went well, how long it takes (metrics.md 17)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client.core import Metric

from openems.backend.metrics.families import PREFIX, counter, gauge, histogram
from openems.common.jobs import Job

_LABELS = ("job",)


class Jobs:
    """Those of ``parts``: whatever has some calls them ``jobs``. Each is told apart by its name, which is the code's
    own."""

    def __init__(self, parts: Iterable[Any]) -> None:
        self._parts = [part for part in parts if hasattr(part, "jobs")]

    def collect(self) -> Iterator[Metric]:
        """Of one that never went well there is no time, so that its age means something."""
        jobs: list[Job] = [job for part in self._parts for job in part.jobs]
        yield gauge(
            f"{PREFIX}job_last_success_timestamp_seconds",
            "When it last went well.",
            {(job.name,): job.last_success / 1000 for job in jobs if job.last_success is not None},
            _LABELS,
        )
        yield histogram(
            f"{PREFIX}job_duration_seconds",
            "How long it took when it went well.",
            (((job.name,), job.durations) for job in jobs),
            _LABELS,
        )
        yield counter(
            f"{PREFIX}job_failures", "How often it failed.", {(job.name,): job.failures for job in jobs}, _LABELS
        )
