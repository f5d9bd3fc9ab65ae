"""Builds the metrics of all that was built."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from openems.application import VERSION
from openems.backend.mail.smtp import SmtpMailer
from openems.backend.metrics.jobs import Jobs
from openems.backend.metrics.mails import Mails
from openems.backend.metrics.pools import Pools, pools_of
from openems.backend.metrics.prometheus import Prometheus
from openems.backend.metrics.servers import ServerPool

if TYPE_CHECKING:
    from openems.application.backend import Backend


def metrics_of(backend: Backend, parts: list[Any], *, reactor: Any, now: Callable[[], int]) -> Prometheus | None:
    """``parts``: whatever may have something to tell."""
    section = backend.configuration.metrics_prometheus
    if section is None or backend.requests is None:
        return None
    backend.edge_manager.requests.observe_result = backend.requests.result_observer("edge")
    metrics = Prometheus(
        reactor=reactor,
        now=now,
        version=VERSION,
        metadata=backend.metadata,
        edge_manager=backend.edge_manager,
        timedata_manager=backend.timedata_manager,
        query_pool=backend.handler.pool,
        requests=backend.requests,
        ready=backend.not_ready,
        parts=[part for part in parts if hasattr(part, "debug_metrics")],
        ui=backend.ui,
        tokens=[section.bearer_token, section.next_bearer_token],
        open_health=section.open_health,
    )
    backend.edge_manager.metrics_consumers.append(metrics.applications)
    metrics.add("pools", Pools(pools_of(parts)).collect)
    metrics.add("jobs", Jobs(parts).collect)
    if isinstance(backend.mailer, SmtpMailer):
        metrics.add("mails", Mails(backend.mailer).collect)
    metrics.servers.add_b2b(list(backend.b2b.websockets.values()), backend.b2b.rest)
    for server in backend.b2b.websockets.values():
        metrics.components.parts.insert(0, ServerPool(server))
    return metrics
