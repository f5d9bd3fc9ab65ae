"""The endpoint over an edge manager with its neighbours in memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor as _reactor

from openems.backend.core.querypool import QueryPool
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.metrics.exposition import TEXT, pieces
from openems.backend.metrics.prometheus import Prometheus
from openems.backend.metrics.requests import Requests
from tests.backend.edge.world import World

reactor: Any = _reactor


class MetricsWorld(World):
    """``more`` are arguments of :class:`Prometheus`. ``failed`` is what is not ready."""

    def __init__(self, *, timedata: Iterable[Any] = (), clock: Any = None, **more: Any) -> None:
        super().__init__()
        self.requests = Requests()
        self.manager._observe = self.requests.of_edges
        self.manager.requests.observe_result = self.requests.result_observer("edge")
        self.failed: dict[str, str] = {}
        self.pool = QueryPool(20, 1000, reactor=self.clock, observe=self.requests.of_pool("coreJsonRpcRequestHandler0"))
        self.history = TimedataManager(list(timedata))
        options: dict[str, Any] = {"parts": [self.manager], **more}
        self.metrics = Prometheus(
            reactor=clock or self.clock,
            now=self.now,
            version="1.2.3",
            metadata=self.metadata,
            edge_manager=self.manager,
            timedata_manager=self.history,
            query_pool=self.pool,
            requests=self.requests,
            ready=lambda: self.failed,
            **options,
        )
        self.manager.metrics_consumers.append(self.metrics.applications)

    def text(self) -> str:
        return b"".join(pieces(self.metrics.collect(), TEXT)).decode()

    def values(self) -> dict[tuple[str, ...], float]:
        """(sample name, label values in the order of their names) -> value."""
        return {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }
