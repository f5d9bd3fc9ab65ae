"""Builds where edges come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openems.application import edgeprocess
from openems.application.config import Configuration
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.edge.keptvalues import KeptValues
from openems.backend.edge.manager import EdgeManager
from openems.backend.edgeapplication.processes import EdgeProcesses
from openems.backend.events import EventBus
from openems.backend.metrics.requests import Requests
from openems.websocket.proxies import TrustedProxies


def edge_manager_of(
    configuration: Configuration,
    metadata: Any,
    timedata_manager: TimedataManager,
    events: EventBus,
    *,
    reactor: Any,
    now: Callable[[], int],
    app_center: Any,
    oauth_registry: Any,
    proxies: TrustedProxies,
    requests: Requests | None,
    state_dir: Path,
) -> EdgeManager:
    return EdgeManager(
        metadata,
        timedata_manager,
        events,
        reactor=reactor,
        now=now,
        app_center=app_center,
        oauth_registry=oauth_registry,
        observe=None if requests is None else requests.of_edges,
        max_message_size=configuration.backend.max_message_size,
        proxies=proxies,
        kept=KeptValues(str(state_dir / "live-values"), reactor=reactor, now=now),
    )


def edge_processes_of(configuration: Configuration, *, reactor: Any) -> EdgeProcesses | None:
    section = configuration.edge
    if section is None or not section.processes:
        return None
    command, environ = edgeprocess.command()
    return EdgeProcesses(
        section.processes,
        command,
        port=configuration.port(section.port),
        interface=configuration.interface(section.interface),
        max_message_size=configuration.backend.max_message_size,
        trusted_proxies=configuration.backend.trusted_proxies,
        environ=environ,
        reactor=reactor,
    )
