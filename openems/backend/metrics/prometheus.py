"""Metrics.Prometheus: the metrics of the whole process on a port of their own (metrics.md 2, 15 to 18).

Nothing is pushed here and nothing is kept up to date: the parts count for themselves, with plain numbers, and are asked
when somebody scrapes. A collector that fails costs its own metrics and is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import Metric
from twisted.logger import Logger

from openems.backend.metrics import timedata
from openems.backend.metrics.components import Applications, Components
from openems.backend.metrics.families import PREFIX, counter, gauge
from openems.backend.metrics.fleet import Fleet
from openems.backend.metrics.process import GcPauses, LogCounter, Process, ReactorLag
from openems.backend.metrics.requests import Requests
from openems.backend.metrics.servers import Servers
from openems.backend.metrics.ticks import ReactorTicks
from openems.backend.metrics.web import MetricsPages, Tokens, site

ID = "Metrics.Prometheus"
#: Seconds; a reactor that was later than this at its last look is not healthy.
TOO_LATE = 5.0


class Prometheus:
    """``ready()`` tells what is not ready, name -> why. ``parts``: whatever has ``debug_metrics``."""

    _log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        now: Callable[[], int],
        version: str,
        metadata: Any,
        edge_manager: Any,
        timedata_manager: Any,
        query_pool: Any,
        requests: Requests,
        ready: Callable[[], dict[str, str]],
        parts: Iterable[Any] = (),
        servers: Mapping[str, Any] | None = None,
        ui: Any = None,
        tokens: Sequence[str] = (),
        open_health: bool = False,
    ) -> None:
        self.requests = requests
        self.servers = Servers({"edge": edge_manager.edges_server, "edgeapp": edge_manager.applications_server}, ui)
        if ui is not None:
            self.servers.add("ui", ui.websocket)
        for name, server in (servers or {}).items():
            self.servers.add(name, server)
        self.lag = ReactorLag(reactor)
        self._ticks = ReactorTicks(reactor)
        self._pauses = GcPauses()
        self._log_counter = LogCounter()
        self.applications = Applications(edge_manager.application_ids)
        history = timedata.Timedata(timedata_manager, query_pool)
        self.components = Components(
            [*parts, self.lag],
            self.applications,
            lambda component, name: component in history.providers and timedata.claims(name),
        )
        self.errors: dict[str, int] = {}
        self._collectors: dict[str, Callable[[], Iterator[Metric]]] = {}
        for name, collect in (
            ("components", self.components.collect),
            ("fleet", Fleet(edge_manager, metadata, requests, now=now).collect),
            ("requests", requests.collect),
            ("servers", self.servers.collect),
            ("timedata", history.collect),
            ("reactor", self.lag.collect),
            ("ticks", self._ticks.collect),
            ("gc", self._pauses.collect),
            ("log", self._log_counter.collect),
            ("process", Process(version).collect),
        ):
            self.add(name, collect)
        self.pages = MetricsPages(
            self.collect,
            reactor=reactor,
            tokens=Tokens(tokens),
            ready=ready,
            healthy=lambda: self.lag.last < TOO_LATE,
            open_health=open_health,
        )
        self._reactor = reactor
        self._port: Any = None

    def add(self, name: str, collect: Callable[[], Iterator[Metric]]) -> None:
        """One more collector; its families must be nobody else's."""
        self._collectors[name] = collect
        self.errors[name] = 0

    def start(self, port: int, interface: str = "") -> int:
        """Open the port; returns the one that was bound. Raises CannotListenError."""
        self._port = self._reactor.listenTCP(port, site(self.pages), interface=interface)
        self.lag.start()
        self._ticks.start()
        self._pauses.start()
        self._log_counter.start()
        bound: int = self._port.getHost().port
        self._log.info("{id}: /metrics on port {port}", id=ID, port=bound)
        return bound

    async def stop(self) -> None:
        if self._port is not None:
            port, self._port = self._port, None
            self.lag.stop()
            self._ticks.stop()
            self._pauses.stop()
            self._log_counter.stop()
            await port.stopListening()

    def collect(self) -> Iterator[Metric]:
        """All families, one after the other."""
        for name, collect in self._collectors.items():
            try:
                yield from collect()
            except Exception:
                self.errors[name] += 1
                if self.errors[name] & (self.errors[name] - 1) == 0:  # 1, 2, 4, 8, ...
                    self._log.failure("{id}: collector {name} failed", id=ID, name=name)
        yield from self._own()

    def _own(self) -> Iterator[Metric]:
        errors = {(name,): count for name, count in self.errors.items()}
        errors[("debug_metrics",)] = self.components.errors
        yield counter(f"{PREFIX}metric_collector_errors", "Failures while collecting.", errors, ("collector",))
        yield gauge(f"{PREFIX}metric_dropped_series", "Numbers left out of the last scrape.", self.components.dropped)
        yield counter(f"{PREFIX}metric_scrapes", "Scrapes answered.", self.pages.scrapes)
        yield counter(f"{PREFIX}metric_scrapes_refused", "Scrapes without the right token.", self.pages.refused)
        yield gauge(
            f"{PREFIX}metric_scrape_reactor_seconds",
            "What the last scrape took of the reactor's time.",
            self.pages.reactor_seconds,
        )
        yield gauge(
            f"{PREFIX}metric_scrape_longest_block_seconds",
            "The longest piece of that without a pause.",
            self.pages.longest_block,
        )
