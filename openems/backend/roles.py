"""Who may do what on which edge (wire.md 4.5)."""

from __future__ import annotations

from typing import Any

from openems.backend.models import User
from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.role import Role


def assert_user_role(metadata: Any, user: User, edge_id: str, required: Role, resource: str) -> Role:
    """The user's role for the edge. 1005 if he has none, 1002 if it is too low; ``resource`` names the method."""
    return assert_role(metadata.get_user_role(user, edge_id), user, required, resource)


def assert_role(role: Role | None, user: User, required: Role, resource: str) -> Role:
    """``role`` is what the user has for the edge."""
    if role is None:
        raise OpenemsError(errors.COMMON_ROLE_UNDEFINED, resource, user.id)
    if not role.is_at_least(required):
        raise OpenemsError(errors.COMMON_ROLE_ACCESS_DENIED, resource, role.name)
    return role
