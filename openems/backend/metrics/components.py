"""Numbers of components, ``<component id>/<name>`` -> value, as metrics (metrics.md 7.1, 16; core.md 5.3).

Eight names are Java's: they become its gauges. Every other number becomes a metric of its own,
``openems_backend_component_<name>{component}``: one quantity each, as Prometheus wants it. Names and ids are the code's
own; whatever they are, the number of series is bounded.

They are asked for when somebody scrapes. What edge applications tell of themselves comes by itself, is kept as long as
they are connected, and can be no more than Java's names of :data:`MAX_APPLICATIONS` ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric, UnknownMetricFamily
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IMetricsConsumer
from openems.backend.metrics import alerts, metadata
from openems.backend.metrics.families import PREFIX, clean_label, snake

#: Name -> Java's metric.
JAVA = {
    "Connections": "websocket_connections",
    "Pending": "thread_pool_queue",
    "Active": "thread_pool_active_count",
    "Completed": "thread_pool_completed_tasks",
    "PoolSize": "thread_pool_current_size",
    "MaxPoolSize": "thread_pool_max_size",
    "AlertingMessagesSent": "alerting_messages_sent",
    "AlertingMessagesQueue": "alerting_messages_queue",
}
ABOUT = {
    "websocket_connections": "Open WebSocket connections.",
    "thread_pool_queue": "Work that waits because as much as may be is under way.",
    "thread_pool_active_count": "Work under way.",
    "thread_pool_completed_tasks": "Work that has ended; only rises.",
    "thread_pool_current_size": "Places for work that exist now.",
    "thread_pool_max_size": "Places for work that there may be.",
    "alerting_messages_sent": "Mails handed to the mailer; only rises.",
    "alerting_messages_queue": "Edges with a message that waits.",
}
#: What a component has here -> its name in Java's metrics: edges connected here take the place of an application's.
ALIASES = {"Backend.Edge.Server": "edges0"}
MAX_SERIES = 1_500
MAX_APPLICATIONS = 50


class Components:
    """``parts``: IDebugLoggable or anything else with ``debug_metrics``. One that fails costs its own numbers only and
    is counted in ``errors``. ``claimed(component, name)``: somebody else makes a metric of that number."""

    _log = Logger()

    def __init__(
        self,
        parts: Iterable[Any],
        applications: Applications,
        claimed: Callable[[str, str], bool] = lambda component, name: False,
    ) -> None:
        self.errors = 0
        self.dropped = 0
        self.parts = list(parts)
        self._applications = applications
        self._claimed = claimed

    def numbers(self) -> dict[str, int | float]:
        """All numbers of all parts; what is no number or has no ``/`` is left out."""
        numbers: dict[str, int | float] = {}
        for part in self.parts:
            try:
                told = dict(part.debug_metrics())
            except Exception:
                self.errors += 1
                if self.errors & (self.errors - 1) == 0:  # 1, 2, 4, 8, ...
                    self._log.failure("metrics of {name} failed", name=type(part).__name__)
                continue
            for key, value in told.items():
                if "/" in key and isinstance(value, int | float):
                    numbers[key] = value
        return numbers

    def collect(self) -> Iterator[Metric]:
        numbers = self.numbers()
        java: dict[tuple[str, str], float] = {}
        own: dict[str, dict[str, float]] = {}
        self.dropped = 0
        series = 0
        for key, value in numbers.items():
            component, _, name = key.partition("/")
            metric = JAVA.get(name)
            component = clean_label(ALIASES.get(component, component) if metric else component)
            if metric is not None:
                java[(metric, component)] = java.get((metric, component), 0) + value
            elif any(claims(component, name) for claims in (alerts.claims, metadata.claims, self._claimed)):
                continue
            elif series < MAX_SERIES and snake(name):
                series += 1
                own.setdefault(snake(name), {})[component] = value
            else:
                self.dropped += 1
        taken = {component for _, component in java} - set(ALIASES.values())
        for metric, application, value in self._applications.values(taken):
            java[(metric, application)] = java.get((metric, application), 0) + value
        yield from java_families(java)
        yield from alerts.families(numbers)
        yield from metadata.families(numbers)
        for name, values in sorted(own.items()):
            about = f"{name.replace('_', ' ').capitalize()} of a component."
            family = UnknownMetricFamily(f"{PREFIX}component_{name}", about, labels=("component",))
            for component, value in values.items():
                family.add_metric((component,), value)
            yield family


def java_families(values: Mapping[tuple[str, str], float]) -> Iterator[Metric]:
    """``values``: (metric, component) -> value."""
    families = {metric: GaugeMetricFamily(metric, about, labels=("component",)) for metric, about in ABOUT.items()}
    for (metric, component), value in sorted(values.items()):
        families[metric].add_metric((component,), value)
    yield from families.values()


@implementer(IMetricsConsumer)
class Applications:
    """What edge applications tell in ``connectedEdges``. Their ids are what they call themselves, so only so many get a
    label in the life of this process, and none that a component of ours has; the others are ``other`` together."""

    def __init__(self, connected: Callable[[], Iterable[str]]) -> None:
        self._connected = connected
        self._values: dict[str, dict[str, float]] = {}
        self._labels: dict[str, str] = {}

    def consume_metrics(self, now: int, metrics: Mapping[str, int | float]) -> None:
        for key, value in metrics.items():
            application, _, name = key.rpartition("/")
            if name in JAVA and isinstance(value, int | float):
                values = self._values.get(application)
                if values is None:
                    self._forget_gone()
                    if len(self._values) >= 10 * MAX_APPLICATIONS:
                        return
                    values = self._values[application] = {}
                values[JAVA[name]] = value

    def values(self, taken: Iterable[str]) -> Iterator[tuple[str, str, float]]:
        """(metric, application, value) of those that are connected."""
        self._forget_gone()
        reserved = frozenset(taken)
        for application, values in self._values.items():
            label = self._label(application)
            for metric, value in values.items():
                yield metric, "other" if label in reserved else label, value

    def _forget_gone(self) -> None:
        for application in self._values.keys() - set(self._connected()):
            del self._values[application]

    def _label(self, application: str) -> str:
        label = self._labels.get(application)
        if label is None:
            if len(self._labels) >= MAX_APPLICATIONS:
                return "other"
            label = self._labels[application] = clean_label(application)
        return label
