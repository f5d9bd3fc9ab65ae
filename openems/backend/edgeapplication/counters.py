"""What an edge application counts of itself, and how a scraper sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PREFIX = "openems_edge_application_"


class Status(msgspec.Struct):
    """The state of one edge application at one moment; also what a child process tells its parent."""

    id: str = ""
    #: The manager is connected; it sent a list of keys; the port for edges is open.
    connected: bool = False
    informed: bool = False
    listening: bool = False
    port: int = 0
    #: Why the port is not open.
    trouble: str = ""
    known_edges: int = 0
    #: Edges with a connection; all connections, also those that are not authenticated.
    edges: int = 0
    connections: int = 0
    messages_up: int = 0
    messages_down: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    waiting_messages: int = 0
    waiting_bytes: int = 0
    dropped_messages: int = 0
    dropped_bytes: int = 0
    #: Messages of edges that were no valid message, or longer than the manager takes.
    invalid_messages: int = 0
    refused_edges: int = 0
    replaced_edges: int = 0
    #: Edges that are not read from because the manager is slow, and how often one was stopped.
    paused_edges: int = 0
    pauses: int = 0
    #: Times that the manager was reached again after it was lost.
    reconnects: int = 0


_GAUGES = {
    "connected": ("manager_connected", "1 while the manager is connected."),
    "listening": ("listening", "1 while the port for edges is open."),
    "known_edges": ("known_edges", "Edges that the manager told of."),
    "edges": ("connected_edges", "Edges that are connected."),
    "connections": ("connections", "Connections of edges, also those that are not authenticated."),
    "waiting_messages": ("waiting_messages", "Messages that wait for the manager."),
    "waiting_bytes": ("waiting_bytes", "Bytes that wait for the manager."),
    "paused_edges": ("paused_edges", "Edges that are not read from because the manager is slow."),
}
_COUNTERS = {
    "dropped_messages": ("dropped_messages", "Messages lost because too much waited for the manager."),
    "dropped_bytes": ("dropped_bytes", "Bytes lost because too much waited for the manager."),
    "invalid_messages": ("invalid_messages", "Messages of edges that were no valid message or too long."),
    "refused_edges": ("refused_edges", "Connections without apikey or with an unknown one."),
    "replaced_edges": ("replaced_edges", "Connections ended by a newer one of the same edge."),
    "pauses": ("pauses", "Times that an edge was not read from because the manager was slow."),
    "reconnects": ("manager_reconnects", "Times that the manager was reached again."),
}


class StatusCollector(Collector):
    """Makes Prometheus metrics of a status when they are asked for: counting costs an addition, nothing else."""

    def __init__(self, status: Any) -> None:
        """``status``: callable that gives a :class:`Status`."""
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status: Status = self._status()
        for field, (name, text) in _GAUGES.items():
            yield GaugeMetricFamily(PREFIX + name, text, value=float(getattr(status, field)))
        for field, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(PREFIX + name, text, value=float(getattr(status, field)))
        for unit in ("messages", "bytes"):
            family = CounterMetricFamily(
                PREFIX + unit, f"{unit.capitalize()} passed on, by direction.", labels=["direction"]
            )
            for direction in ("up", "down"):
                family.add_metric([direction], float(getattr(status, f"{unit}_{direction}")))
            yield family


def registry(status: Any, version: str) -> CollectorRegistry:
    """Everything a scraper gets: ours, ``process_*`` and ``openems_version_info``."""
    made = CollectorRegistry(auto_describe=False)
    made.register(StatusCollector(status))
    ProcessCollector(registry=made)
    made.register(_Version(version))
    return made


class _Version(Collector):
    def __init__(self, version: str) -> None:
        self._version = version

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily("openems_version_info", "Version of OpenEMS.", labels=["version"])
        family.add_metric([self._version], 1.0)
        yield family
