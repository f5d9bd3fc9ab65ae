"""Logins with Odoo's passwords and sessions (metadata-odoo.md 11.1).

- A login is one request where our addon is installed: Odoo's answer tells the user and his roles.
- Wrong passwords are slowed down here, per login and address, because Odoo counts them for all users together: after
  ten in a row it refuses every login of this machine. Before that happens a login of the administrator is put between.
- A token is a session of Odoo. One that was good a moment ago is not asked for again, and while Odoo is away one that
  was good within :data:`STALE` is taken.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IAuthUserPasswordAuthenticationService
from openems.backend.metadata.gate import MAX_LOGIN, MAX_PASSWORD, Attempt, Gate, Unverified, Wrong
from openems.backend.metadata.odoo.replies import OdooUnavailable, Refused, is_session_id
from openems.backend.metadata.odoo.rpc import OdooRpc, Session
from openems.backend.metadata.odoo.users import Users
from openems.backend.models import Authenticated
from openems.common import errors
from openems.common.digest import keyed
from openems.common.errors import OpenemsError

#: Seconds a password or token that was good is taken without asking again, and a token while Odoo is away.
TRUST = 60.0
STALE = 3_600.0
#: Refused logins in a row after which one that succeeds is put between.
RENEW_AFTER = 5
MAX_REMEMBERED = 20_000


class _Remembered(msgspec.Struct):
    authenticated: Authenticated
    at: float


@implementer(IAuthUserPasswordAuthenticationService)
class OdooLogins:
    """``initialized()``: whether metadata is."""

    _log = Logger()

    def __init__(
        self,
        rpc: OdooRpc,
        users: Users,
        *,
        reactor: Any,
        initialized: Callable[[], bool] = lambda: True,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.gate = Gate(reactor=reactor)
        self.stale = 0
        self._rpc = rpc
        self._users = users
        self._reactor = reactor
        self._initialized = initialized
        self._salt = random_bytes(16)
        self._in_a_row = 0
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        if not username.strip() or not password.strip() or len(username) > MAX_LOGIN or len(password) > MAX_PASSWORD:
            raise self.gate.refusal()
        if not self._initialized():
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        attempt = Attempt(self._salt, username, password, remote)
        remembered = self._good(attempt.key, TRUST)
        if remembered is not None and self._good(keyed(self._salt, remembered.token or ""), STALE) is not None:
            return remembered
        authenticated = await self.gate.verified(attempt, lambda: self._verified(attempt, password))
        self._in_a_row = 0
        self._remember(attempt.key, authenticated)
        return authenticated

    async def _verified(self, attempt: Attempt, password: str) -> Authenticated:
        """Raises :class:`Wrong`, :class:`Unverified`."""
        try:
            return await self._verify(attempt.key, attempt.login, password)
        except Refused:
            self._remembered.pop(attempt.key, None)
            self._count_refused()
            raise Wrong from None
        except OdooUnavailable:
            raise Unverified from None

    async def _verify(self, attempt: bytes, login: str, password: str) -> Authenticated:
        """A client that sends its password each time stays one session of Odoo, where sessions live for months."""
        remembered = self._remembered.get(attempt)
        if remembered is not None:
            await self._rpc.check_password(login, password)
            try:
                return await self.authenticate_with_token(remembered.authenticated.token or "")
            except OpenemsError as e:
                if e.code != errors.COMMON_AUTHENTICATION_FAILED:
                    raise
        return await self._authenticated(await self._rpc.log_in(login, password))

    async def authenticate_with_token(self, token: str) -> Authenticated:
        if not is_session_id(token):
            raise self.gate.refusal()
        if not self._initialized():
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        key = keyed(self._salt, token)
        remembered = self._good(key, TRUST)
        if remembered is not None:
            return remembered
        try:
            return await self._authenticated(await self._rpc.session_info(token))
        except Refused:
            self._remembered.pop(key, None)
            raise self.gate.refusal() from None
        except OdooUnavailable:
            remembered = self._good(key, STALE)
            if remembered is None:
                raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE) from None
            self.stale += 1
            return remembered

    async def logout(self, token: str) -> None:
        """The session ends in Odoo, too. An unknown token is no error."""
        self._remembered.pop(keyed(self._salt, token), None)
        # What is known of the user stays: he may be logged in elsewhere.
        if is_session_id(token):
            await self._rpc.destroy(token)

    async def _authenticated(self, session: Session) -> Authenticated:
        known = await self._users.by_session(session)
        authenticated = Authenticated(user_id=known.user.id, login=known.user.id, token=session.id)
        self._remember(keyed(self._salt, session.id), authenticated)
        return authenticated

    def _remember(self, key: bytes, authenticated: Authenticated) -> None:
        self._remembered.pop(key, None)
        self._remembered[key] = _Remembered(authenticated, self._reactor.seconds())
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _good(self, key: bytes, age: float) -> Authenticated | None:
        remembered = self._remembered.get(key)
        if remembered is None or self._reactor.seconds() - remembered.at > age:
            return None
        return remembered.authenticated

    def _count_refused(self) -> None:
        self._in_a_row += 1
        if self._in_a_row % RENEW_AFTER == 0:
            done = Deferred.fromCoroutine(self._rpc.renew())
            done.addErrback(lambda failure: failure.trap(OpenemsError, CancelledError))
