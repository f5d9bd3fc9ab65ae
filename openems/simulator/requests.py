"""How a simulated edge answers the backend (edge.md 4.7, reality.md R2 and R11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Members, Request
from openems.common.role import Role

if TYPE_CHECKING:
    from openems.simulator.edge import SimulatedEdge

#: The least role for a method; all others are open to guests.
ROLES = {
    "updateComponentConfig": Role.OWNER,
    "createComponentConfig": Role.INSTALLER,
    "deleteComponentConfig": Role.INSTALLER,
    "setChannelValue": Role.ADMIN,
}
_METHODS = (
    "componentJsonApi",
    "createComponentConfig",
    "deleteComponentConfig",
    "getEdgeConfig",
    "routes",
    "setChannelValue",
    "subscribeSystemLog",
    "updateComponentConfig",
)


def answer(edge: SimulatedEdge, request: Request) -> Any:
    """The ``result`` of a request of the backend."""
    if request.method != "authenticatedRpc":
        raise _undefined(request.method)
    try:
        members = request.members()
        user = Members(members.object("user"))
        name = f"{user.string('id')}: {user.string('name')}"
        role = Role.parse(user.string("role"))
        inner = members.request()
    except OpenemsError:
        raise generic("No response") from None
    required = ROLES.get(inner.method, Role.GUEST)
    if not role.is_at_least(required):
        raise OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, inner.method, role.name)
    if inner.method not in _METHODS:
        raise _undefined(inner.method)
    try:
        members = inner.members()
        if inner.method == "componentJsonApi":
            nested = members.request(id_optional=True)
            component_id = members.string("componentId")
    except OpenemsError:
        raise generic("No response") from None
    if inner.method == "componentJsonApi":
        return {"payload": _success(nested.id, _component(edge, component_id, nested))}
    return {"payload": _success(inner.id, _own(edge, inner, name))}


def _own(edge: SimulatedEdge, request: Request, user: str) -> Any:
    members = request.members()
    try:
        if request.method == "getEdgeConfig":
            return edge.configuration.json()
        if request.method == "routes":
            return {"version": 1, "endpoints": [_endpoint(method) for method in ("authenticatedRpc", *_METHODS)]}
        if request.method == "subscribeSystemLog":
            edge.log_subscribed = members.boolean("subscribe")
            return {"payload": _success(request.id, {})}
        if request.method == "setChannelValue":
            edge.set_channel_value(members.string("componentId"), members.string("channelId"), members.any("value"))
            return {}
        change: tuple[Any, ...]
        if request.method == "updateComponentConfig":
            change = (edge.configuration.update, members.string("componentId"), members.array("properties"), user)
        elif request.method == "createComponentConfig":
            change = (edge.configuration.create, members.string("factoryPid"), members.array("properties"), user)
        else:
            change = (edge.configuration.delete, members.string("componentId"))
    except OpenemsError as error:
        if error.code == errors.EDGE_NO_COMPONENT_WITH_ID or error.code == errors.GENERIC:
            raise
        raise generic("No response") from None
    edge.change_configuration(*change)
    return {}


def _component(edge: SimulatedEdge, component_id: str, request: Request) -> Any:
    if component_id not in edge.configuration:
        raise _unknown_component(component_id)
    method = request.method
    if component_id == "_componentManager":
        if method == "getEdgeConfig":
            return edge.configuration.json()
        if method in ("getChannelsOfComponent", "getStateChannelsOfComponent"):
            wanted = request.members().string("componentId")
            states = method == "getStateChannelsOfComponent"
            names = [name for name in edge.channels(wanted) if not states or name == "State"]
            return {"channels": [{"id": name, **_channel(wanted, name)} for name in names]}
        if method == "getChannel":
            members = request.members()
            wanted, name = members.string("componentId"), members.string("channelId")
            edge.must_have_channel(wanted, name)
            return {"channel": {"id": name, **_channel(wanted, name)}}
    elif component_id == "_host" and method == "getSystemUpdateState":
        return {"unknown": {}}
    elif component_id == "_appManager" and method in ("getApps", "getAppInstances"):
        return {"apps" if method == "getApps" else "instances": []}
    raise _undefined(method)


def _channel(component_id: str, name: str) -> dict[str, Any]:
    unit = "Wh" if name.endswith("Energy") else "W" if name.endswith("Power") else "%" if name.endswith("Soc") else ""
    return {
        "accessMode": "RO",
        "persistencePriority": "HIGH",
        "text": "",
        "type": "LONG" if name.endswith("Energy") else "INTEGER",
        "unit": f"{unit}_Σ" if unit == "Wh" else unit,
        "category": "STATE" if name == "State" else "OPENEMS_TYPE",
        **({"level": "INFO"} if name == "State" else {}),
    }


def _endpoint(method: str) -> dict[str, Any]:
    return {"method": method, "tags": [], "guards": [], "parent": [], "request": {}, "response": {}}


def _success(request_id: str, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def _undefined(method: str) -> OpenemsError:
    return generic(f'Endpoint with method "{method}" is not defined!')


def _unknown_component(component_id: str) -> OpenemsError:
    return generic(f"Component with id '{component_id}' was not found")
