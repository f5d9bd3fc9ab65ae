"""All history providers behind one (core.md 4).

Each provider is asked, in order, for the channels nobody before it answered. All answer on the same grid
(:func:`openems.common.resolution.periods`), so their columns fit together. A provider that fails is passed over; its
error is only told if nobody has an answer. Writes go to every provider; one that fails does not stop the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, IMetricsConsumer, ITimedataManager
from openems.backend.models import History
from openems.common.channel import component_id
from openems.common.data import BACKEND, DataKind, DataNotification, Value
from openems.common.errors import OpenemsError, generic
from openems.common.histogram import Histogram
from openems.common.resolution import Resolution, periods

#: The kinds of questions, and how a provider deals with one (metrics.md 17). ``unserved``: it is not its business.
QUERIES = ("data", "energy", "energy_per_period", "first_value_before")
RESULTS = ("ok", "error", "unserved", "cancelled")
#: Seconds.
QUERY_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


def _stored(metrics: Mapping[str, int | float]) -> dict[str, Value]:
    """``<component>/<name>`` as channels that any database takes: components have names that are no ids."""
    channels: dict[str, Value] = {}
    for metric, value in metrics.items():
        component, slash, name = metric.partition("/")
        channels[f"{component_id(component)}{slash}{name}"] = value
    return channels


class CannotServe(Exception):
    """A provider cannot answer this, and nobody needs to hear of it (Java's InternalTimedataException)."""


def in_order(providers: Sequence[Any], ids: Sequence[str]) -> list[Any]:
    """Those named in ``ids`` first, in that order; the others by id, then by class (core.md 4.1).

    Raises ValueError for two providers with one id.
    """
    known: dict[str, Any] = {}
    for provider in providers:
        if provider.id in known:
            raise ValueError(f"two history providers have the id {provider.id!r}")
        known[provider.id] = provider
    position = {provider_id: index for index, provider_id in enumerate(ids)}
    return sorted(providers, key=lambda p: (position.get(p.id, len(position)), p.id, type(p).__name__))


@implementer(ITimedataManager, IMetricsConsumer, IDebugLoggable)
class TimedataManager:
    """``is_edge(id)`` tells whether ``backend0`` is a real edge; metrics are not written to it then."""

    _log = Logger()

    def __init__(
        self,
        providers: Sequence[Any],
        ids: Sequence[str] = (),
        *,
        is_edge: Callable[[str], bool] = lambda edge_id: False,
        write_metrics: bool = True,
    ) -> None:
        self.providers = in_order(providers, ids)
        self.write_failures: dict[str, int] = {}
        #: (provider, query, result) -> how many; (provider, query) -> how long.
        self.queries: Counter[tuple[str, str, str]] = Counter()
        self.query_seconds: dict[tuple[str, str], Histogram] = {}
        self._is_edge = is_edge
        self._write_metrics = write_metrics

    # --- writing

    def write(self, edge_id: str, data: DataNotification) -> None:
        for provider in self.providers:
            try:
                provider.write(edge_id, data)
            except Exception:
                failures = self.write_failures.get(provider.id, 0)
                self.write_failures[provider.id] = failures + 1
                if failures % 1000 == 0:
                    self._log.failure(
                        "{id}: write failed for {edge} ({n} times so far)", id=provider.id, edge=edge_id, n=failures + 1
                    )

    def consume_metrics(self, now: int, metrics: Mapping[str, int | float]) -> None:
        if self._write_metrics and metrics and not self._is_edge(BACKEND):
            self.write(BACKEND, DataNotification(DataKind.TIMESTAMPED, {now: _stored(metrics)}))

    # --- asking

    async def query_historic_data(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        return await self._table(
            "data",
            lambda provider, missing: provider.query_historic_data(edge_id, from_date, to_date, missing, resolution),
            periods(from_date, to_date, resolution).starts,
            channels,
            "Unable to query historic data. Result is null",
        )

    async def query_historic_energy_per_period(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str], resolution: Resolution
    ) -> History:
        return await self._table(
            "energy_per_period",
            lambda provider, missing: provider.query_historic_energy_per_period(
                edge_id, from_date, to_date, missing, resolution
            ),
            periods(from_date, to_date, resolution).starts,
            channels,
            "Unable to query historic energy per period. Result is null",
        )

    async def query_historic_energy(
        self, edge_id: str, from_date: datetime, to_date: datetime, channels: Sequence[str]
    ) -> dict[str, Value]:
        return await self._single(
            "energy",
            lambda provider, missing: provider.query_historic_energy(edge_id, from_date, to_date, missing),
            channels,
            # The Java program says this for energy, too (core.md 11, 7).
            "Unable to query historic data. Result is null",
        )

    async def query_first_value_before(self, edge_id: str, date: datetime, channels: Sequence[str]) -> dict[str, Value]:
        return await self._single(
            "first_value_before",
            lambda provider, missing: provider.query_first_value_before(edge_id, date, missing),
            channels,
            "Unable to query first value before. Result is null",
        )

    async def _table(
        self,
        query: str,
        ask: Callable[[Any, list[str]], Awaitable[History]],
        starts: list[int],
        channels: Sequence[str],
        nothing: str,
    ) -> History:
        async def columns(provider: Any, missing: list[str]) -> dict[str, list[Value]]:
            history = await ask(provider, missing)
            return history.data

        data = await self._walk(query, columns, channels, nothing)
        return History(starts, {channel: data.get(channel) or [None] * len(starts) for channel in sorted(channels)})

    async def _single(
        self,
        query: str,
        ask: Callable[[Any, list[str]], Awaitable[dict[str, Value]]],
        channels: Sequence[str],
        nothing: str,
    ) -> dict[str, Value]:
        data = await self._walk(query, ask, channels, nothing)
        return {channel: data.get(channel) for channel in sorted(channels)}

    async def _walk(
        self,
        query: str,
        ask: Callable[[Any, list[str]], Awaitable[dict[str, Any]]],
        channels: Sequence[str],
        nothing: str,
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        missing = sorted(channels)
        first_error: OpenemsError | None = None
        for provider in self.providers:
            if not missing and result:
                break
            try:
                answer = await self._measured(query, provider, ask(provider, missing))
            except CannotServe as e:
                self._log.info("{id}: {reason}", id=provider.id, reason=str(e))
                continue
            except OpenemsError as e:
                self._log.info("{id}: {reason}", id=provider.id, reason=e.message)
                first_error = first_error or e
                continue
            except CancelledError:
                raise  # nobody waits any more: not for the next one either
            except Exception:
                self._log.failure("{id}: query failed", id=provider.id)
                continue
            result.update(answer)
            missing = [channel for channel in missing if channel not in result]
        if not result:
            raise first_error or generic(nothing)
        return result

    async def _measured(self, query: str, provider: Any, asked: Awaitable[Any]) -> Any:
        begun = perf_counter()
        result = "error"
        try:
            answer = await asked
            result = "ok"
            return answer
        except CannotServe:
            result = "unserved"
            raise
        except CancelledError:
            result = "cancelled"
            raise
        finally:
            self.queries[(provider.id, query, result)] += 1
            seconds = self.query_seconds.get((provider.id, query))
            if seconds is None:
                seconds = self.query_seconds[(provider.id, query)] = Histogram(QUERY_BOUNDS)
            seconds.observe(perf_counter() - begun)

    # --- IDebugLoggable

    def debug_log(self) -> str | None:
        lines = [
            line
            for provider in self.providers
            if IDebugLoggable.providedBy(provider) and (line := provider.debug_log()) is not None
        ]
        return "; ".join(lines) or None

    def debug_metrics(self) -> Mapping[str, int | float]:
        metrics: dict[str, int | float] = {}
        for provider in self.providers:
            if IDebugLoggable.providedBy(provider):
                metrics.update(provider.debug_metrics())
        return metrics
