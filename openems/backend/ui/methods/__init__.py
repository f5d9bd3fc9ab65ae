"""Methods of a user that the UI's server answers itself, by topic (ui.md 7 to 11): ``await handler(session, user,
request)`` gives the result, or raises OpenemsError. All others go to the core."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from openems.backend.models import User
from openems.backend.ui.methods import alerting, edges, setup, subscriptions, users
from openems.common.jsonrpc import Request

if TYPE_CHECKING:
    from openems.backend.ui.session import Session

Handler = Callable[["Session", User, Request], Awaitable[Any]]

HANDLERS: dict[str, Handler] = {
    "edgeRpc": subscriptions.edge_rpc,
    "subscribeEdges": subscriptions.subscribe_edges,
    "getEdges": edges.get_edges,
    "getEdge": edges.get_edge,
    "getUserInformation": users.get_user_information,
    "setUserInformation": users.set_user_information,
    "updateUserLanguage": users.update_user_language,
    "updateUserSettings": users.update_user_settings,
    "getEmsType": edges.get_ems_type,
    "getUserAlertingConfigs": alerting.get_user_alerting_configs,
    "setUserAlertingConfigs": alerting.set_user_alerting_configs,
    "addEdgeToUser": setup.add_edge_to_user,
    "submitSetupProtocol": setup.submit_setup_protocol,
    "getSetupProtocol": setup.get_setup_protocol,
    "getSetupProtocolData": setup.get_setup_protocol_data,
    "getLatestSetupProtocolCoreInfo": setup.get_latest_setup_protocol_core_info,
    "getProtocolsCoreInfo": setup.get_protocols_core_info,
}
