"""Which way to log in by password and by token: of the metadata in use, of an identity provider, or both (auth.md 1).

A token belongs to whoever gave it: a JWT to the identity provider, anything else to metadata. Of a password they are
asked in the configured order; the first that takes it wins. Who cannot tell now is passed over; if nobody takes it, his
answer is the one that is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from zope.interface import implementer

from openems.backend.interfaces import IAuthUserPasswordAuthenticationService, IPasswordChecks
from openems.backend.models import Authenticated, Checked
from openems.common import errors
from openems.common.errors import OpenemsError

METADATA = "metadata"
OAUTH = "oauth"

T = TypeVar("T")


async def _always_valid() -> bool:
    return True


async def check_password(service: Any, username: str, password: str, remote: str) -> Checked:
    """By any password service; those of metadata open no sessions elsewhere, and metadata itself tells who is gone."""
    if IPasswordChecks.providedBy(service):
        checked: Checked = await service.check_password(username, password, remote)
        return checked
    authenticated = await service.authenticate_with_password(username, password, remote)
    return Checked(authenticated.user_id, _always_valid)


@implementer(IAuthUserPasswordAuthenticationService, IPasswordChecks)
class PasswordChoice:
    """``passwords``: name -> service, in the order they are asked; none: no password is taken. ``tokens``: name ->
    service."""

    def __init__(self, passwords: Mapping[str, Any], tokens: Mapping[str, Any]) -> None:
        self._passwords = dict(passwords)
        self._tokens = dict(tokens)

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        return await self._first(lambda service: service.authenticate_with_password(username, password, remote))

    async def check_password(self, username: str, password: str, remote: str) -> Checked:
        return await self._first(lambda service: check_password(service, username, password, remote))

    async def _first(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        first: OpenemsError | None = None
        for service in self._passwords.values():
            try:
                return await ask(service)
            except OpenemsError as e:
                # A refusal says less than any other answer: another one may have taken the password.
                if first is None or first.code == errors.COMMON_AUTHENTICATION_FAILED:
                    first = e
        raise first or OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, "authenticateWithPassword")

    async def authenticate_with_token(self, token: str) -> Authenticated:
        service = self._of(token)
        if service is None:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        authenticated: Authenticated = await service.authenticate_with_token(token)
        return authenticated

    async def logout(self, token: str) -> None:
        service = self._of(token)
        if service is not None:
            await service.logout(token)

    def _of(self, token: str) -> Any:
        return self._tokens.get(OAUTH if token.count(".") == 2 else METADATA)


def choose(order: Sequence[str], metadata: Any, oauth: Any, *, oauth_passwords: bool = True) -> Any:
    """The password service of a configuration. Tokens of ``oauth`` are taken in any case, its passwords if it is in the
    ``order`` and can (``oauth_passwords``). None if there is no service at all."""
    metadata = metadata if METADATA in order else None
    if oauth is None:
        return metadata
    tokens = {OAUTH: oauth}
    if metadata is not None:
        tokens[METADATA] = metadata
    passwords = {name: tokens[name] for name in order if name in tokens and (name != OAUTH or oauth_passwords)}
    if passwords == {OAUTH: oauth} and metadata is None:
        return oauth
    return PasswordChoice(passwords, tokens)
