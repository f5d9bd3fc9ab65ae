"""Edges of the user (ui.md 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openems.backend.models import User
from openems.backend.roles import assert_user_role
from openems.backend.ui import parameters
from openems.common import errors
from openems.common.errors import generic
from openems.common.jsonrpc import EMPTY, Request
from openems.common.role import Role

if TYPE_CHECKING:
    from openems.backend.ui.session import Session


async def get_edges(session: Session, user: User, request: Request) -> Any:
    page = parameters.page_request(request.members())
    return {"edges": await session.server.metadata.get_page(user, page)}


async def get_edge(session: Session, user: User, request: Request) -> Any:
    edge_id = request.members().string("edgeId")
    edge = await session.server.metadata.get_edge_metadata(user, edge_id)
    if edge is None:
        raise generic(f"Unable to find edge with id [{errors.short(edge_id, 100)}]")
    return {"edge": edge}


async def get_ems_type(session: Session, user: User, request: Request) -> Any:
    edge_id = request.members().string("edgeId")
    assert_user_role(session.server.metadata, user, edge_id, Role.GUEST, request.method)
    ems_type = await session.server.metadata.get_ems_type(edge_id)
    return EMPTY if ems_type is None else {"emsType": ems_type}
