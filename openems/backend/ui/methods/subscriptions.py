"""What a session is told of edges: subscribeEdges, and edgeRpc with the subscriptions in it (ui.md 7, 10, 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw

from openems.backend.models import User
from openems.backend.roles import assert_user_role
from openems.backend.ui import parameters
from openems.common import errors, jsonrpc
from openems.common.channel import check_address
from openems.common.errors import generic
from openems.common.jsonrpc import EMPTY, Request, Success
from openems.common.role import Role

if TYPE_CHECKING:
    from openems.backend.ui.session import Session


MAX_EDGES = 1_000
MAX_CHANNELS = 2_000


async def edge_rpc(session: Session, user: User, request: Request) -> Any:
    members = request.members()
    edge_id = members.string("edgeId")
    payload = members.request()
    if payload.method == "subscribeChannels":
        assert_user_role(session.server.metadata, user, edge_id, Role.GUEST, "edgeRpc")
        result: Any = _subscribe_channels(session, edge_id, payload)
    elif payload.method == "subscribeSystemLog":
        assert_user_role(session.server.metadata, user, edge_id, Role.GUEST, "edgeRpc")
        role = assert_user_role(session.server.metadata, user, edge_id, Role.OWNER, payload.method)
        result = await _subscribe_system_log(session, user, edge_id, role, payload)
    elif payload.method == "simulation":
        assert_user_role(session.server.metadata, user, edge_id, Role.GUEST, "edgeRpc")
        if session.server.simulation is None:
            raise generic("simulation unavailable")
        result = await session.server.simulation.handle_request(edge_id, user, payload)
    else:
        return await session.ask_core(user, request)
    return {"payload": Raw(Success(payload.id, jsonrpc.raw(result)).encode())}


def _subscribe_channels(session: Session, edge_id: str, payload: Request) -> Raw:
    """The set replaces the old one; ``count`` is read but every request wins, in order of arrival (ui.md 19, 23).
    Addresses need not exist nor be well formed."""
    members = payload.members()
    members.integer("count")
    channels = members.strings("channels")
    if len(channels) > MAX_CHANNELS:
        raise generic(f"More than {MAX_CHANNELS} channels for one Edge")
    for channel in channels:
        if len(channel) > parameters.MAX_TEXT:
            check_address(channel)
    if channels and edge_id not in session.watcher.channels and len(session.watcher.channels) >= MAX_EDGES:
        raise generic(f"Channels of more than {MAX_EDGES} Edges")
    session.server.subscriptions.set_channels(session.watcher, edge_id, channels)
    return EMPTY


async def _subscribe_system_log(session: Session, user: User, edge_id: str, role: Role, payload: Request) -> Raw:
    """Remembered also where the edge is offline (ui.md 10.4): the edge side asks it when it connects."""
    if payload.members().boolean("subscribe"):
        if edge_id not in session.system_logs and len(session.system_logs) >= MAX_EDGES:
            raise generic(f"System logs of more than {MAX_EDGES} Edges")
        session.system_logs.add(edge_id)
    else:
        session.system_logs.discard(edge_id)
    return await session.server.edge_manager.subscribe_system_log(edge_id, user, role, session.id, payload)


async def subscribe_edges(session: Session, user: User, request: Request) -> Raw:
    edges = [_primitive_text(element) for element in request.members().array("edges")]
    if len(edges) > MAX_EDGES:
        raise generic(f"More than {MAX_EDGES} Edges")
    for edge_id in edges:
        assert_user_role(session.server.metadata, user, edge_id, Role.GUEST, request.method)
    session.server.subscriptions.set_edges(session.watcher, frozenset(edges))
    return EMPTY


def _primitive_text(element: Any) -> str:
    """Numbers become their text, as Java reads this list (wire.md 6.3)."""
    if isinstance(element, str):
        return element
    if isinstance(element, bool | int | float):
        return errors.json_text(element)
    raise generic(f"Not an Edge id: {errors.short(errors.json_text(element), 100)}")
