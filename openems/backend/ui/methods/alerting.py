"""Who wants to be told of which edge (ui.md 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw

from openems.backend.models import User
from openems.backend.roles import assert_user_role
from openems.backend.ui import parameters
from openems.common.errors import generic
from openems.common.jsonrpc import EMPTY, Request
from openems.common.role import Role

if TYPE_CHECKING:
    from openems.backend.ui.session import Session


async def get_user_alerting_configs(session: Session, user: User, request: Request) -> Any:
    edge_id = request.members().string("edgeId")
    role = assert_user_role(session.server.metadata, user, edge_id, Role.GUEST, request.method)
    settings = await session.server.metadata.get_user_alerting_settings(edge_id)
    own = {"userLogin": user.id, "offlineEdgeDelay": 0, "faultEdgeDelay": 0, "warningEdgeDelay": 0}
    others = []
    for entry in settings:
        if entry.user_login == user.id:
            own = parameters.alerting_json(entry)
        elif role is Role.ADMIN:
            others.append(parameters.alerting_json(entry))
    return {"currentUserSettings": own, "otherUsersSettings": others}


async def set_user_alerting_configs(session: Session, user: User, request: Request) -> Raw:
    members = request.members()
    edge_id = members.string("edgeId")
    settings = parameters.alerting_settings(members)
    role = assert_user_role(session.server.metadata, user, edge_id, Role.GUEST, request.method)
    if role is not Role.ADMIN and any(entry.user_login != user.id for entry in settings):
        raise generic(f"Not allowed to update/set alerting information for other users as user [{user.id}]")
    await session.server.metadata.set_user_alerting_settings(user, edge_id, settings)
    return EMPTY
