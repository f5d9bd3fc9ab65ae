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
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IAuthUserPasswordAuthenticationService
from openems.backend.metadata.odoo.replies import OdooUnavailable, Refused, is_session_id
from openems.backend.metadata.odoo.rpc import OdooRpc, Session
from openems.backend.metadata.odoo.users import Users
from openems.backend.metadata.password import MAX_LOGIN, MAX_PASSWORD, MAX_WAITING, MAX_WAITING_FOR_ADDRESS
from openems.backend.metadata.throttle import SUSPECT, Places, Throttle
from openems.backend.models import Authenticated
from openems.common import errors
from openems.common.digest import keyed
from openems.common.errors import OpenemsError
from openems.websocket.proxies import host_of

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
        self.refused = 0
        self.overloaded = 0
        self.stale = 0
        self._rpc = rpc
        self._users = users
        self._reactor = reactor
        self._initialized = initialized
        self._salt = random_bytes(16)
        self._throttle = Throttle()
        self._waiting = Places(MAX_WAITING, MAX_WAITING_FOR_ADDRESS)
        self._in_a_row = 0
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        if not username.strip() or not password.strip() or len(username) > MAX_LOGIN or len(password) > MAX_PASSWORD:
            raise self._refusal()
        if not self._initialized():
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE)
        login, address = username.strip().lower(), host_of(remote)
        attempt = keyed(self._salt, login, address, password)
        remembered = self._good(attempt, TRUST)
        if remembered is not None and self._good(keyed(self._salt, remembered.token or ""), STALE) is not None:
            return remembered
        if self._throttle.is_repetition(attempt, self._reactor.seconds()):
            raise self._refusal()
        full = self._waiting.is_full_for(address)
        delay = 0.0 if full else self._throttle.begin(login, address, self._reactor.seconds())
        if full or not self._waiting.take(address, suspect=delay > SUSPECT):
            self.overloaded += 1
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        try:
            if delay:
                await deferLater(self._reactor, delay)
            authenticated = await self._verify(attempt, login, password)
        except Refused:
            self._remembered.pop(attempt, None)
            self._throttle.refused(attempt, self._reactor.seconds())
            self._count_refused()
            raise self._refusal() from None
        except OdooUnavailable:
            # Nothing is known about the password.
            self._throttle.succeeded(login, address)
            raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE) from None
        finally:
            self._waiting.leave(address, suspect=delay > SUSPECT)
        self._in_a_row = 0
        self._throttle.succeeded(login, address)
        self._remember(attempt, authenticated)
        return authenticated

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
            raise self._refusal()
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
            raise self._refusal() from None
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

    def _refusal(self) -> OpenemsError:
        self.refused += 1
        return OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
