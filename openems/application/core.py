"""Builds what answers requests, whichever way they came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from openems.application.config import Configuration
from openems.backend.core.jsonrpcrequesthandler import ID, JsonRpcRequestHandler
from openems.backend.core.timedatamanager import TimedataManager
from openems.backend.edge.manager import EdgeManager
from openems.backend.events import EventBus
from openems.backend.metrics.requests import Requests


def timedata_manager_of(configuration: Configuration, metadata: Any, providers: list[Any]) -> TimedataManager:
    return TimedataManager(
        providers,
        configuration.core_timedatamanager.ids,
        is_edge=lambda edge_id: metadata.get_edge(edge_id) is not None,
    )


def handler_of(
    configuration: Configuration,
    metadata: Any,
    edge_manager: EdgeManager,
    timedata_manager: TimedataManager,
    events: EventBus,
    *,
    reactor: Any,
    now: Callable[[], int],
    app_center: Any,
    requests: Requests | None,
) -> JsonRpcRequestHandler:
    section = configuration.core_jsonrpcrequesthandler
    return JsonRpcRequestHandler(
        metadata,
        edge_manager,
        timedata_manager,
        reactor=reactor,
        now=now,
        app_center=app_center,
        pool_size=section.query_thread_pool_size,
        max_queue_size=section.query_thread_pool_max_queue_size,
        events=events,
        observe=None if requests is None else requests.of_pool(ID),
    )
