"""Builds where UIs come in."""

from __future__ import annotations

from typing import Any

from openems.application.config import Configuration
from openems.backend.authentication.attempts import Attempts
from openems.backend.authentication.keycloak.service import Keycloak
from openems.backend.core.jsonrpcrequesthandler import JsonRpcRequestHandler
from openems.backend.edge.manager import EdgeManager
from openems.backend.events import EventBus
from openems.backend.metrics.requests import Requests
from openems.backend.ui.server import ID, UiWebsocket
from openems.websocket.proxies import TrustedProxies


def ui_of(
    configuration: Configuration,
    metadata: Any,
    edge_manager: EdgeManager,
    handler: JsonRpcRequestHandler,
    events: EventBus,
    *,
    reactor: Any,
    passwords: Any,
    keycloak: Keycloak | None,
    registration: Any,
    attempts: Attempts,
    proxies: TrustedProxies,
    requests: Requests | None,
) -> UiWebsocket | None:
    section = configuration.ui_websocket
    if section is None:
        return None
    ui = UiWebsocket(
        metadata,
        edge_manager,
        handler,
        reactor=reactor,
        password=passwords,
        code_flow=keycloak,
        registration=registration,
        attempts=attempts,
        origins=section.origins,
        revalidation=section.revalidation,
        max_session_age=section.max_session_age,
        events=events,
        request_limit=section.request_limit,
        max_message_size=configuration.backend.max_message_size,
        proxies=proxies,
    )
    if requests is not None:
        ui.observe = requests.observer(ID)
        ui.observe_result = requests.result_observer("ui")
    edge_manager.ui = ui
    return ui
