"""Logging in and out (ui.md 5, 6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openems.common import errors
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import EMPTY, Request

if TYPE_CHECKING:
    from openems.backend.ui.session import Session


async def authenticate(session: Session, request: Request) -> Any:
    logins = session.server.logins
    remote = session.connection.remote
    if request.method == "registerUser":
        await logins.register(request.members(), remote)
        return EMPTY
    if request.method == "authenticateWithOAuth":
        payload = _oauth_payload(request)
        if payload.method == "initiateConnect":
            return await logins.oauth_start(payload, remote)
        if payload.method == "getTokenByCode":
            return await session.exclusive(lambda: session.log_in_by_code(payload))
        if payload.method == "getTokenByRefreshToken":
            return await session.exclusive(lambda: session.log_in(logins.oauth_by_refresh_token(payload, remote)))
        raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, payload.method)
    if request.method == "logout":
        return await session.exclusive(session.log_out)
    if request.method == "authenticateWithPassword":
        return await session.exclusive(lambda: session.log_in(logins.with_password(request.members(), remote)))
    return await session.exclusive(lambda: session.log_in(logins.with_token(request.members(), remote)))


def _oauth_payload(request: Request) -> Request:
    """The nested request; errors that would print its secrets are made without them (auth.md 12, S12)."""
    try:
        return request.members().request()
    except OpenemsError as e:
        if e.code == errors.JSON_NO_OBJECT_MEMBER or len(e.data) < 2:
            raise OpenemsError(e.code, *e.data[:1], *["{}"] * (len(e.data) - 1)) from None
        raise OpenemsError(e.code, e.data[0], "{}", *e.data[2:]) from None
