"""Logins, registration and logout of UI sessions: from parameters to a user and a reply (ui.md 5, 6).

Which error a failing login gets decides what the UI does (ui.md 15.7), so:

- 1003: the credentials are wrong, or the identity provider cannot be asked (auth.md 7.8, S20). The UI says
  "authentication failed" and forgets its cookies. That of a provider that is away counts for no limit of attempts.
- code 1: login is impossible at the moment for another reason (metadata down, too slow). The UI keeps its cookies and
  tries again at the next page load (ui.md 19, 6). 1006: the same of a registration, whose text the UI shows.
- 4001: this server has no such login at all; 4005: too many attempts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from openems.backend.authentication.attempts import Attempts
from openems.backend.authentication.unreachable import LoginServiceUnreachable
from openems.backend.interfaces import (
    IAuthUserAuthorizationCodeFlowService,
    IAuthUserPasswordAuthenticationService,
    IAuthUserRegistrationService,
    ILoginSessions,
    IMetadata,
)
from openems.backend.models import Authenticated, OAuthTokens, User
from openems.backend.ui.parameters import registration_record
from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Members, Request
from openems.common.ratelimit import PerPeer, TokenBucket
from openems.common.role import Role
from openems.websocket.proxies import host_of

#: Seconds until a login, registration or logout that is not through is given up.
TIMEOUT = 30.0
#: Longer tokens are refused unseen.
MAX_TOKEN = 16 * 1024
MAX_PASSWORD = 1024
#: Log lines about refused logins in a second.
LINES = 10.0
MAX_USERNAME = 255
#: Self-registration may ask for these roles only (ui.md 19, 16).
REGISTRATION_ROLES = frozenset({Role.INSTALLER.name, Role.OWNER.name})

UNAVAILABLE = "Login is currently not possible. Please try again later"
OAUTH_UNSUPPORTED = "OAuth authentication is not supported by this OpenEMS instance"

T = TypeVar("T")


class LoggedIn(msgspec.Struct, frozen=True):
    """A finished login: the session's new user and token, and the reply's ``result``."""

    user: User
    token: str | None
    result: dict[str, Any]


class Logins:
    """The three Auth services as the sessions use them. A service that is None is not configured."""

    _log = Logger()

    def __init__(
        self,
        metadata: IMetadata,
        *,
        password: IAuthUserPasswordAuthenticationService | None,
        code_flow: IAuthUserAuthorizationCodeFlowService | None,
        registration: IAuthUserRegistrationService | None,
        reactor: Any,
        attempts: Attempts | None = None,
    ) -> None:
        self._metadata = metadata
        self._password = password
        self._code_flow = code_flow
        self._registration = registration
        self._reactor = reactor
        # Of tokens and codes; passwords are counted by the service, which other listeners use, too.
        self._attempts = Attempts() if attempts is None else attempts
        self._sessions: list[Any] = [
            service
            for service in dict.fromkeys((password, code_flow))
            if service is not None and ILoginSessions.providedBy(service)
        ]
        # A login by browser starts with one initiateConnect, a registration is one request; a whole office may share
        # an address.
        self._starts = PerPeer(20 / 60, burst=20)
        self._registrations = PerPeer(5 / 60, burst=5)
        # Lines about failing logins, of all peers together.
        self._lines = TokenBucket(LINES, now=reactor.seconds())

    async def with_password(self, members: Members, remote: str) -> LoggedIn:
        """authenticateWithPassword. The UI leaves ``username`` out where the field is empty: wrong credentials."""
        service = self._password
        if service is None:
            raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, "authenticateWithPassword")
        password = members.as_dict().get("password")
        if not isinstance(password, str):
            raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "password", "{}")
        username = members.optional_string("username")
        if not username or len(username) > MAX_USERNAME or len(password) > MAX_PASSWORD:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        self._check_initialized()

        async def login() -> LoggedIn:
            authenticated = await service.authenticate_with_password(username, password, remote)
            return self._by_service(await self._user(authenticated), authenticated.token)

        try:
            return await self._within(login(), "authenticateWithPassword", remote)
        except LoginServiceUnreachable:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED) from None

    async def with_token(self, members: Members, remote: str) -> LoggedIn:
        """authenticateWithToken."""
        service = self._password
        if service is None:
            raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, "authenticateWithToken")
        token = members.as_dict().get("token")
        if not isinstance(token, str):
            raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "token", "{}")
        if not token or len(token) > MAX_TOKEN:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        self._check_initialized()

        async def login() -> LoggedIn:
            authenticated = await service.authenticate_with_token(token)
            return self._by_service(await self._user(authenticated), authenticated.token)

        return await self._counted(login, "authenticateWithToken", remote)

    async def oauth_start(self, payload: Request, remote: str) -> dict[str, Any]:
        """authenticateWithOAuth / initiateConnect."""
        service = self._oauth()
        members = payload.members()
        oem, redirect_uri = members.optional_string("oem"), members.optional_string("redirectUri")
        if not self._starts.take(host_of(remote), self._reactor.seconds()):
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        start = await self._within(service.initiate_connect(oem, redirect_uri, remote), payload.method, remote)
        return {"identifier": start.identifier, "state": start.state, "loginUrl": start.login_url}

    async def oauth_by_code(self, payload: Request, remote: str) -> LoggedIn:
        """authenticateWithOAuth / getTokenByCode."""
        service = self._oauth()
        oem, identifier, code = _secret_strings(payload, "oem", "identifier", "code")
        self._check_initialized()

        async def login() -> LoggedIn:
            tokens = await service.token_by_code(oem, identifier, code)
            return self._by_tokens(await self._user(tokens), tokens)

        return await self._counted(login, payload.method, remote)

    async def oauth_by_refresh_token(self, payload: Request, remote: str) -> LoggedIn:
        """authenticateWithOAuth / getTokenByRefreshToken."""
        service = self._oauth()
        oem, refresh_token = _secret_strings(payload, "oem", "refreshToken")
        self._check_initialized()

        async def login() -> LoggedIn:
            tokens = await service.token_by_refresh_token(oem, refresh_token)
            return self._by_tokens(await self._user(tokens), tokens)

        return await self._counted(login, payload.method, remote)

    async def register(self, members: Members, remote: str) -> None:
        """registerUser: open to everyone, so for the roles installer and owner only and limited for each address."""
        user = members.value("user")
        if not isinstance(user, dict):
            raise OpenemsError(errors.JSON_NO_OBJECT_MEMBER, "user", "{}")
        oem = members.as_dict().get("oem")
        if not isinstance(oem, str):
            raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "oem", "{}")
        service = self._registrations_open()
        record = registration_record(user)
        if record["role"] not in REGISTRATION_ROLES:
            raise generic(f"Registration with Role [{record['role']}] is not allowed")
        if not self._registrations.take(host_of(remote), self._reactor.seconds()):
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        await self._registered(service.register_user(record), "registerUser", remote)
        self._log.info("{remote}: registered a user with role {role}", remote=remote, role=record["role"])

    async def register_customer(self, record: dict[str, Any], remote: str) -> None:
        """The customer of a submitted setup protocol; one that exists already is fine (ui.md 9)."""
        service = self._registrations_open()
        await self._registered(service.register_user_if_not_exist(record), "submitSetupProtocol", remote)

    def logout(self, token: str) -> None:
        """Tell whoever may have given the token, without letting anybody wait for it."""
        for service in dict.fromkeys((self._password, *self._sessions)):
            if service is not None:
                self._log_out(service, token)

    def _log_out(self, service: Any, token: str) -> None:
        async def logout() -> None:
            await service.logout(token)

        def failed(failure: Failure) -> None:
            self._log.warn("logout failed: {kind}", kind=type(failure.value).__name__)

        done = Deferred.fromCoroutine(logout())
        done.addTimeout(TIMEOUT, self._reactor)
        done.addErrback(failed)

    async def still_valid(self, token: str | None, user_id: str) -> bool:
        """Whether the identity provider still knows the session and its user."""
        for service in self._sessions:
            work: Awaitable[bool] = service.still_valid(token, user_id)
            try:
                if not await _deferred(work).addTimeout(TIMEOUT, self._reactor):
                    return False
            except TimeoutError:
                # Nobody can tell.
                continue
        return True

    def connection_closed(self, token: str) -> None:
        """Without a logout: nothing of the login needs to be kept for one."""
        for service in self._sessions:
            service.connection_closed(token)

    def _oauth(self) -> IAuthUserAuthorizationCodeFlowService:
        if self._code_flow is None:
            raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, OAUTH_UNSUPPORTED)
        return self._code_flow

    def _registrations_open(self) -> IAuthUserRegistrationService:
        if self._registration is None:
            raise generic("Registration is not available on this server")
        self._check_initialized()
        return self._registration

    def _check_initialized(self) -> None:
        if not self._metadata.initialized:
            raise generic(UNAVAILABLE)

    async def _user(self, login: Authenticated | OAuthTokens) -> User:
        """Who logged in. A session of somebody whom metadata does not know is of no use, and ended."""
        lookup: Any = self._metadata.get_user_by_external_id
        try:
            user: User = await lookup(login.user_id)
        except OpenemsError as e:
            token = login.token if isinstance(login, Authenticated) else login.access_token
            if e.code == errors.COMMON_AUTHENTICATION_FAILED and token is not None:
                self.logout(token)
            raise
        return user

    @staticmethod
    def _by_service(user: User, token: str | None) -> LoggedIn:
        return LoggedIn(user, token, {"token": token, "user": user.json(), "edges": []})

    @staticmethod
    def _by_tokens(user: User, tokens: OAuthTokens) -> LoggedIn:
        result = {"accessToken": tokens.access_token, "refreshToken": tokens.refresh_token, "user": user.json()}
        return LoggedIn(user, tokens.access_token, result)

    async def _counted(self, login: Callable[[], Awaitable[LoggedIn]], what: str, remote: str) -> LoggedIn:
        """Too many wrong tokens from one address: 4005, without asking anybody (auth.md S13)."""
        address = host_of(remote)
        if not self._attempts.begin(address, "", self._reactor.seconds()):
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        wrong = False
        try:
            return await self._within(login(), what, remote)
        except LoginServiceUnreachable:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED) from None
        except OpenemsError as e:
            wrong = e.code == errors.COMMON_AUTHENTICATION_FAILED
            raise
        finally:
            if wrong:
                self._attempts.failed(address, "", self._reactor.seconds())
            else:
                self._attempts.succeeded(address, "")

    async def _registered(self, work: Awaitable[None], what: str, remote: str) -> None:
        """1006 for what is no named refusal: the UI shows the text (auth.md S20)."""
        try:
            await self._within(work, what, remote)
        except OpenemsError as e:
            if e.code == errors.GENERIC and e.data == [UNAVAILABLE]:
                raise OpenemsError(errors.COMMON_SERVICE_NOT_AVAILABLE) from None
            raise

    async def _within(self, work: Awaitable[T], what: str, remote: str) -> T:
        """The result of ``work``; what is no named refusal becomes code 1 (see the head of this module)."""
        try:
            return await _deferred(work).addTimeout(TIMEOUT, self._reactor)
        except (CancelledError, LoginServiceUnreachable):
            raise
        except OpenemsError as e:
            if e.code == errors.COMMON_SERVICE_NOT_AVAILABLE:
                raise generic(UNAVAILABLE) from None
            if self._lines.take(self._reactor.seconds()):
                self._log.info("{remote}: {what} refused: {code}", remote=remote, what=what, code=e.code)
            raise
        except Exception as e:
            # Only the kind: the text of a failing HTTP client may hold the request with its secrets.
            if self._lines.take(self._reactor.seconds()):
                self._log.error("{remote}: {what} failed: {kind}", remote=remote, what=what, kind=type(e).__name__)
            raise generic(UNAVAILABLE) from None


def _secret_strings(payload: Request, *names: str) -> list[str]:
    """Required members, 5010; the error does not repeat the others, which are secrets (auth.md 12, S12)."""
    values = payload.members().as_dict()
    texts = []
    for name in names:
        value = values.get(name)
        if not isinstance(value, str):
            raise OpenemsError(errors.JSON_NO_STRING_MEMBER, name, "{}")
        if len(value) > MAX_TOKEN:
            raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED)
        texts.append(value)
    return texts


def _deferred(work: Awaitable[T]) -> Deferred[T]:
    async def wait() -> T:
        return await work

    return Deferred.fromCoroutine(wait())
