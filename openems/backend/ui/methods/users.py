"""The user himself (ui.md 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Raw

from openems.backend.models import User
from openems.common.errors import generic
from openems.common.jsonrpc import EMPTY, Request
from openems.common.role import Language

if TYPE_CHECKING:
    from openems.backend.ui.session import Session


MAX_SETTINGS = 64 * 1024


async def get_user_information(session: Session, user: User, request: Request) -> Any:
    return {"user": await session.server.metadata.get_user_information(user)}


async def set_user_information(session: Session, user: User, request: Request) -> Raw:
    information = request.members().object("user")
    await session.server.metadata.set_user_information(user, information)
    return EMPTY


async def update_user_language(session: Session, user: User, request: Request) -> Raw:
    language = Language.parse(request.members().string("language"))
    session.changed(user, await session.server.metadata.update_user_language(user, language))
    return EMPTY


async def update_user_settings(session: Session, user: User, request: Request) -> Raw:
    settings = request.members().object("settings")
    if len(bytes(request.params)) > MAX_SETTINGS:
        raise generic(f"Settings are longer than {MAX_SETTINGS} bytes")
    session.changed(user, await session.server.metadata.update_user_settings(user, settings))
    return EMPTY
