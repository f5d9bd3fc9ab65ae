"""Edges: how many are there, what they send, how long they have been silent (metrics.md 17).

One pass over all edges for each scrape; nothing is kept up to date in between.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import Metric

from openems.backend.metrics.families import PREFIX, counter, gauge, histogram
from openems.backend.metrics.requests import Requests
from openems.common.role import Level

#: Shares of the edges that are online, whose last message is not older than the metric says; it is known to the minute.
SHARES = (0.5, 0.9, 0.99, 1.0)
#: Milliseconds after which such an edge is silent.
SILENT = 900_000
#: What may be left out is counted from the start, so that rates work.
_DROPPED = ("time", "row", "value")
LEVELS = {level: level.name.lower() for level in Level}


class Fleet:
    """``manager``: EdgeManager, ``metadata``: IMetadata; ``now`` gives epoch milliseconds."""

    def __init__(self, manager: Any, metadata: Any, requests: Requests, *, now: Callable[[], int]) -> None:
        self._manager = manager
        self._metadata = metadata
        self._requests = requests
        self._now = now

    def collect(self) -> Iterator[Metric]:
        yield from self._edges()
        yield from self._connections()
        yield from self._data()

    def _edges(self) -> Iterator[Metric]:
        states = {"online": 0, "offline": 0, "never": 0}
        levels = dict.fromkeys((*LEVELS.values(), "unknown"), 0)
        ages = []
        now = self._now()
        edges = self._metadata.edges()
        for edge in edges.values() if hasattr(edges, "values") else edges:
            if edge.online:
                states["online"] += 1
                levels[LEVELS.get(edge.sum_state, "unknown")] += 1
                if edge.lastmessage is not None:
                    ages.append(now - edge.lastmessage)
            else:
                states["never" if edge.lastmessage is None else "offline"] += 1
        yield gauge(f"{PREFIX}edges", "Edges, by whether they are connected.", _single(states), ("state",))
        yield gauge(f"{PREFIX}edges_sum_state", "Edges that are online, by _sum/State.", _single(levels), ("level",))
        ages.sort()
        last = len(ages) - 1
        yield gauge(
            f"{PREFIX}edge_last_message_age_seconds",
            "Time since the last message, to the minute, of the edges that are online.",
            {(f"{q:g}",): max(0, ages[round(q * last)]) / 1000 if ages else 0 for q in SHARES},
            ("share",),
        )
        yield gauge(
            f"{PREFIX}edges_silent",
            "Edges that are online and have sent nothing for a quarter of an hour.",
            len(ages) - bisect_left(ages, SILENT),
        )
        yield gauge(f"{PREFIX}edge_cache_entries", "Current values kept of all edges.", self._manager.cache_entries())
        initialized = int(bool(self._metadata.initialized))
        yield gauge(f"{PREFIX}metadata_initialized", "1 when edges and users are known.", initialized)
        yield gauge(f"{PREFIX}metadata_cache_edges", "Edges that are known.", sum(states.values()))

    def _connections(self) -> Iterator[Metric]:
        counters = self._manager.counters
        yield counter(f"{PREFIX}edge_connects", "Links of edges that began.", _single(counters.connects), ("door",))
        yield counter(
            f"{PREFIX}edge_disconnects", "Links of edges that ended.", _single(counters.disconnects), ("reason",)
        )
        yield counter(
            f"{PREFIX}edge_auth_failures",
            "Connections of edges and of edge applications that were refused.",
            _single(counters.refusals),
            ("reason",),
        )

    def _data(self) -> Iterator[Metric]:
        manager = self._manager
        counters = manager.counters
        values = {
            ("aggregated",): counters.aggregated_values,
            ("resend",): counters.resent_values,
            ("timestamped",): manager.values - counters.aggregated_values - counters.resent_values,
        }
        yield counter(f"{PREFIX}edge_data_points", "Channel values received.", values, ("kind",))
        yield counter(
            f"{PREFIX}edge_dropped_points",
            "Entries of edges' data that were left out.",
            _single({**dict.fromkeys(_DROPPED, 0), **manager.dropped}),
            ("reason",),
        )
        lags = []
        for kind, name in (
            ("timestamped", "timestampedData"),
            ("aggregated", "aggregatedData"),
            ("resend", "resendData"),
        ):
            both = counters.direct[name].lag
            both.add(counters.application[name].lag)
            lags.append(((kind,), both))
        yield histogram(
            f"{PREFIX}edge_data_lag_seconds",
            "Time of receipt minus newest time in the data, of a sample.",
            lags,
            ("kind",),
        )
        yield self._websocket_requests()

    def _websocket_requests(self) -> Metric:
        """Java's metric whole: what observers were told, and the fleet's data notifications."""
        children = dict(self._requests.seconds)
        counters = self._manager.counters
        for method, one in counters.application.items():
            children[("Edge.Manager", f"edgeRpc/{method}")] = one.seconds
        for method, one in counters.direct.items():
            children[("Backend.Edge.Server", method)] = one.seconds
        return histogram(
            "websocket_requests",
            "Duration of requests, notifications and named tasks in seconds.",
            [(labels, children[labels]) for labels in sorted(children)],
            ("component", "method"),
        )


def _single(values: dict[str, int]) -> dict[tuple[str], int]:
    return {(name,): value for name, value in values.items()}
