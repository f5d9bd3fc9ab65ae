"""Which way to log in by password and by token: of the metadata in use, of an identity provider, or both (auth.md 1).

A token belongs to whoever gave it: a JWT to the identity provider, anything else to metadata. Of a password they are
asked in the configured order; the first that takes it wins. Who cannot tell now is passed over; if nobody takes it, his
answer is the one that is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zope.interface import implementer

from openems.backend.interfaces import IAuthUserPasswordAuthenticationService, ILoginSessions
from openems.backend.models import Authenticated
from openems.common import errors
from openems.common.errors import OpenemsError

METADATA = "metadata"
OAUTH = "oauth"


@implementer(IAuthUserPasswordAuthenticationService, ILoginSessions)
class PasswordChoice:
    """``services``: name -> service, in the order they are asked; at least one."""

    def __init__(self, services: Mapping[str, Any]) -> None:
        if not services:
            raise ValueError("no service to choose from")
        self._services = dict(services)

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        first: OpenemsError | None = None
        for service in self._services.values():
            try:
                authenticated: Authenticated = await service.authenticate_with_password(username, password, remote)
                return authenticated
            except OpenemsError as e:
                # A refusal says less than any other answer: another one may have taken the password.
                if first is None or first.code == errors.COMMON_AUTHENTICATION_FAILED:
                    first = e
        raise first or OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)

    async def authenticate_with_token(self, token: str) -> Authenticated:
        authenticated: Authenticated = await self._of(token).authenticate_with_token(token)
        return authenticated

    async def logout(self, token: str) -> None:
        await self._of(token).logout(token)

    async def still_valid(self, token: str | None, user_id: str) -> bool:
        for service in self._services.values():
            if ILoginSessions.providedBy(service) and not await service.still_valid(token, user_id):
                return False
        return True

    def connection_closed(self, token: str) -> None:
        for service in self._services.values():
            if ILoginSessions.providedBy(service):
                service.connection_closed(token)

    def _of(self, token: str) -> Any:
        name = OAUTH if token.count(".") == 2 else METADATA
        return self._services.get(name) or next(iter(self._services.values()))


def choose(order: list[str], metadata: Any, oauth: Any) -> Any:
    """The password service of a configuration: of what is there, in this order; None if nothing is."""
    there = {METADATA: metadata, OAUTH: oauth}
    services = {name: there[name] for name in order if there.get(name) is not None}
    if len(services) <= 1:
        return next(iter(services.values()), None)
    return PasswordChoice(services)
