"""``appCenter`` requests of users and of edges (wire.md 6.12, core.md 3.6)."""

from __future__ import annotations

from typing import Any

from openems.backend.models import User
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Request

#: Guests neither learn nor change which keys an edge has (ui.md 19, 17).
OF_OWNERS = frozenset({"addRegisterKeyHistory", "addUnregisterKeyHistory", "getRegisteredKeys"})


def provider(app_center: Any) -> Any:
    if app_center is None:
        raise generic("No AppCenter Metadata provided.")
    return app_center


async def handle_edge_request(app_center: Any, edge_id: str, request: Request) -> Any:
    """An edge asks; the inner ``result``. 4001 for an unknown inner method."""
    inner = request.members().request()
    apps = provider(app_center)
    members = inner.members()
    if inner.method in ("isKeyApplicable", "getPossibleApps"):
        return await _keys(apps, edge_id, inner)
    if inner.method == "getInstalledApps":
        return {"installedApps": await apps.get_installed_apps(edge_id)}
    if inner.method == "addInstallInstanceHistory":
        await apps.add_install_app_instance_history(
            members.string("key"),
            edge_id,
            members.string("appId"),
            members.uuid("instanceId"),
            members.optional_string("userId"),
        )
        return {}
    if inner.method == "addDeinstallInstanceHistory":
        await apps.add_deinstall_app_instance_history(
            edge_id, members.string("appId"), members.uuid("instanceId"), members.optional_string("userId")
        )
        return {}
    raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, inner.method)


async def handle_user_request(app_center: Any, edge_id: str, user: User, inner: Request) -> Any:
    """A user asks one of openems.common.methods.names.APP_CENTER; the inner ``result``."""
    apps = provider(app_center)
    members = inner.members()
    if inner.method in ("isKeyApplicable", "getPossibleApps"):
        return await _keys(apps, edge_id, inner)
    if inner.method == "addRegisterKeyHistory":
        await apps.add_register_key_history(edge_id, members.optional_string("appId"), members.string("key"), user)
        return {}
    if inner.method == "addUnregisterKeyHistory":
        await apps.add_unregister_key_history(edge_id, members.optional_string("appId"), members.string("key"), user)
        return {}
    if inner.method == "getRegisteredKeys":
        return {"keys": await apps.get_registered_keys(edge_id, members.optional_string("appId"))}
    return {"isAppFree": await apps.is_app_free(user, members.string("appId"))}


async def _keys(apps: Any, edge_id: str, inner: Request) -> Any:
    members = inner.members()
    if inner.method == "getPossibleApps":
        return {"bundles": await apps.get_possible_apps(members.string("key"), edge_id)}
    return await apps.is_key_applicable(members.string("key"), edge_id, members.optional_string("appId"))
