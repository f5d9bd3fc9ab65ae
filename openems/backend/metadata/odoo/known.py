"""What is known of a user, and how answers about users are read (metadata-odoo.md 11.2). Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from openems.backend.metadata.odoo.replies import OdooError, text_of
from openems.backend.models import User
from openems.common.jsonrpc import loads
from openems.common.role import Language, Role


class Known(msgspec.Struct):
    """``default``: the role for edges that are not in ``roles``; None: none."""

    user: User
    odoo_id: int
    at: float
    roles: dict[str, Role] = {}
    default: Role | None = None
    #: Whether ``roles`` are all.
    complete: bool = False


def parse_user(external_id: str, value: Any, now: float) -> Known:
    """The member ``user`` of an answer. What can be done without is taken leniently (quirk Q14). Raises OdooError."""
    if not isinstance(value, dict):
        raise OdooError("Odoo does not tell who the user is")
    odoo_id, login = value.get("id"), text_of(value.get("login"))
    if isinstance(odoo_id, str) and odoo_id.isdigit():
        odoo_id = int(odoo_id)
    if not isinstance(odoo_id, int) or isinstance(odoo_id, bool) or not login:
        raise OdooError("Odoo does not tell who the user is")
    multiple = value.get("has_multiple_edges")
    roles = value.get("roles")
    default = text_of(value.get("default_role"))
    user = User(
        id=login,
        user_id=external_id,
        name=text_of(value.get("name")) or login,
        email=login,
        language=Language.parse(text_of(value.get("language"))),
        global_role=Role.parse(text_of(value.get("global_role"))),
        has_multiple_edges=multiple is True or multiple == "true",
        settings=settings_of(value.get("settings")),
    )
    known = Known(user, odoo_id, now)
    if isinstance(roles, dict) and "default_role" in value:
        known.roles = {edge_id: Role.parse(text_of(role)) for edge_id, role in roles.items()}
        known.default = None if default is None else Role.parse(default)
        known.complete = True
    elif "default_role" in value:
        known.default = None if default is None else Role.parse(default)
    return known


def settings_of(value: Any) -> dict[str, Any]:
    """A JSON text of an object; anything else is none."""
    try:
        value = loads(value) if isinstance(value, str) else value
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
