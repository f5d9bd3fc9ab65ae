"""Logins by Keycloak: the three authentication services of one realm (auth.md 1 to 9, component Authentication.OAuth).

Which error a login gets: :mod:`.answers`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.authentication.attempts import Attempts
from openems.backend.authentication.keycloak.answers import Answers
from openems.backend.authentication.keycloak.checks import Checks
from openems.backend.authentication.keycloak.client import Denied, KeycloakClient, TokenReply, Unavailable
from openems.backend.authentication.keycloak.flow import Flow, NotConnectable
from openems.backend.authentication.keycloak.inputs import MAX_OEM, is_plain
from openems.backend.authentication.keycloak.jwks import MIN_INTERVAL, REFRESH, Jwks
from openems.backend.authentication.keycloak.pace import Pace
from openems.backend.authentication.keycloak.passwords import Passwords
from openems.backend.authentication.keycloak.pending import PendingLogins
from openems.backend.authentication.keycloak.registration import ROLES, Registration
from openems.backend.authentication.keycloak.settings import Oem, Realm
from openems.backend.authentication.keycloak.stored import StoredSessions
from openems.backend.authentication.keycloak.tokens import Claims, NotBelieved, Tokens
from openems.backend.authentication.keycloak.usersessions import UserSessions
from openems.backend.interfaces import (
    IAuthUserAuthorizationCodeFlowService,
    IAuthUserPasswordAuthenticationService,
    IAuthUserRegistrationService,
    IDebugLoggable,
    ILoginSessions,
    IPasswordChecks,
)
from openems.backend.models import Authenticated, Checked, OAuthStart, OAuthTokens
from openems.common.errors import generic, short
from openems.http.concurrency import Concurrency
from openems.http.exchange import TIMEOUT, Exchange
from openems.websocket.proxies import host_of

ID = "auth0"
NAME = "Authentication.OAuth"
MAX_CONCURRENT = 50
MAX_QUEUE = 200


@implementer(
    IAuthUserPasswordAuthenticationService,
    IAuthUserAuthorizationCodeFlowService,
    IAuthUserRegistrationService,
    ILoginSessions,
    IPasswordChecks,
    IDebugLoggable,
)
class Keycloak:
    """``start`` fetches the signing keys in the background; ``stop`` ends what is under way. ``now()`` is epoch
    seconds, ``agent`` an IAgent for tests."""

    _log = Logger()

    def __init__(
        self,
        realm: Realm,
        oems: Sequence[Oem],
        metadata: Any,
        *,
        reactor: Any,
        now: Callable[[], float],
        user_registry: Any = None,
        attempts: Attempts | None = None,
        agent: Any = None,
        max_concurrent: int = MAX_CONCURRENT,
        max_queue: int = MAX_QUEUE,
        timeout: float = TIMEOUT,
        allow_plain_http: bool = False,
        algorithms: Sequence[str] = ("RS256",),
        audience: str = "",
        keys_refresh: float = REFRESH,
        keys_interval: float = MIN_INTERVAL,
        registration_roles: Sequence[str] = ROLES,
        neutral_registration: bool = False,
        stored: StoredSessions | None = None,
        debug: bool = False,
        observe: Callable[[str, str, float], None] | None = None,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.realm = realm
        self._reactor = reactor
        self._now = now
        self._answers = Answers(reactor)
        self._oems = {oem.oem: oem for oem in oems}
        account = next((oem for oem in oems if oem.service_account), None)
        self._exchange = Exchange(
            reactor=reactor,
            concurrency=Concurrency(max_concurrent, max_queue),
            agent=agent,
            timeout=timeout,
            allow_plain_http=allow_plain_http,
            debug=debug,
            observe=observe,
        )
        # Keys do not wait behind logins that wait for keys.
        self._key_exchange = Exchange(
            reactor=reactor,
            concurrency=Concurrency(1, 1),
            agent=agent,
            allow_plain_http=allow_plain_http,
            debug=debug,
            observe=observe,
        )
        self._client = KeycloakClient(realm, self._exchange, reactor=reactor, service_account=account)
        keys_client = KeycloakClient(realm, self._key_exchange, reactor=reactor, service_account=None)
        allowed = frozenset(algorithms)
        self._jwks = Jwks(
            lambda: keys_client.keys(allowed), reactor=reactor, refresh=keys_refresh, min_interval=keys_interval
        )
        self._pace = Pace(reactor)
        self._tokens = Tokens(
            realm.issuer,
            self._jwks,
            now=now,
            clients=[oem.client_id for oem in oems],
            algorithms=algorithms,
            audience=audience,
            pace=self._pace,
        )
        self._pending = PendingLogins(random_bytes)
        self._flow = Flow(self._client, self._tokens, self._pending, self._oems, reactor=reactor)
        self._passwords = Passwords(
            self._client, Attempts() if attempts is None else attempts, reactor=reactor, random_bytes=random_bytes
        )  # fmt: skip
        self._checks = Checks(self._client, self._tokens, self._passwords, line=self._answers.line)
        self._registration = Registration(
            self._client, metadata, user_registry, roles=registration_roles, neutral=neutral_registration
        )
        self._users = UserSessions(
            self._client,
            self._tokens,
            self._oems,
            None if stored is None or account is None else stored,
            now=now,
            forget=self._forget,
            line=self._answers.line,
        )
        self._store_problem = ""

    def start(self) -> None:
        self._store_problem = self._users.start()
        if self._store_problem:
            self._log.error("{name}: {problem}", name=NAME, problem=self._store_problem)
        self._jwks.start()
        self._flow.start()

    async def stop(self) -> None:
        self._jwks.stop()
        self._flow.stop()
        self._passwords.stop()
        self._checks.stop()
        self._registration.stop()
        self._pace.stop()
        self._users.stop()
        self._answers.stop()
        await self._exchange.close()
        await self._key_exchange.close()

    # IAuthUserPasswordAuthenticationService

    async def authenticate_with_password(self, username: str, password: str, remote: str) -> Authenticated:
        account = self._service_account()

        async def log_in() -> tuple[TokenReply, Claims]:
            reply = await self._passwords.log_in(account, username, password, host_of(remote))
            try:
                return reply, await self._tokens.access_token(reply.access_token, trusted=True)
            except NotBelieved:
                # Nobody will use the session that was opened.
                self._passwords.forget(reply.access_token)
                await self._users.end(account, reply.refresh_token)
                raise

        reply, claims = await self._answers.get("authenticateWithPassword", log_in)
        if self._users.table.is_ended(claims.session_id, self._now()):
            # Remembered across its logout: ask anew.
            self._passwords.forget(reply.access_token)
            reply, claims = await self._answers.get("authenticateWithPassword", log_in)
        token = self._users.opened_by_password(reply.access_token, claims, account.oem, reply.refresh_token)
        return Authenticated(claims.subject, claims.email, token)

    async def authenticate_with_token(self, token: str) -> Authenticated:
        subject, email = await self._answers.get("authenticateWithToken", lambda: self._users.by_token(token))
        return Authenticated(subject, email, token)

    async def logout(self, token: str) -> None:
        """Ends the session at Keycloak, whichever way it was begun; a token of others is none of our business."""
        try:
            await self._users.logout(token)
        except Unavailable as e:
            self._answers.line("logout: {reason}", reason=str(e))

    def _service_account(self) -> Oem:
        if self._client.service_account is None:
            raise generic("No OEM config found for service account")
        return self._client.service_account

    # IPasswordChecks

    async def check_password(self, username: str, password: str, remote: str) -> Checked:
        account, address = self._service_account(), host_of(remote)
        claims = await self._answers.get(
            "authenticateWithPassword", lambda: self._checks.check(account, username, password, address)
        )
        return Checked(claims.subject, lambda: self._users.is_enabled(claims.subject))

    # IAuthUserAuthorizationCodeFlowService

    async def initiate_connect(self, oem: str | None, redirect_uri: str | None, remote: str) -> OAuthStart:
        try:
            return self._flow.begin(oem, redirect_uri, host_of(remote))
        except NotConnectable as e:
            self._answers.line("login of OEM {oem!r}: {reason}", oem=short(oem or "", 50), reason=str(e))
            raise generic("Unable to initiate connection") from None

    async def token_by_code(self, oem: str, identifier: str, code: str) -> OAuthTokens:
        reply, claims = await self._answers.get("getTokenByCode", lambda: self._flow.by_code(oem, identifier, code))
        self._users.table.revived(claims.session_id)
        return self._opened(oem, reply, claims)

    async def token_by_refresh_token(self, oem: str, refresh_token: str) -> OAuthTokens:
        if not oem.strip():
            raise generic("No OEM provided")
        settings = self._oems.get(oem)
        if settings is None:
            raise generic(f"No OEM config found for {oem if is_plain(oem, MAX_OEM) else ''}")

        async def refresh() -> tuple[TokenReply, Claims]:
            reply, claims = await self._flow.by_refresh_token(settings, refresh_token)
            if self._users.table.is_ended(claims.session_id, self._now()):
                raise Denied("session ended")
            return reply, claims

        return self._opened(oem, *await self._answers.get("getTokenByRefreshToken", refresh))

    def _forget(self, access_token: str) -> None:
        self._passwords.forget(access_token)
        self._flow.forget(access_token)

    def _opened(self, oem: str, reply: TokenReply, claims: Claims) -> OAuthTokens:
        self._users.table.opened(reply.access_token, oem, reply.refresh_token)
        return OAuthTokens(reply.access_token, reply.refresh_token, claims.subject)

    # IAuthUserRegistrationService

    async def register_user(self, record: dict[str, Any]) -> None:
        await self._registration.register(record)

    async def register_user_if_not_exist(self, record: dict[str, Any]) -> None:
        await self._registration.register_if_not_exist(record)

    # ILoginSessions

    async def still_valid(self, token: str | None, user_id: str) -> bool:
        try:
            return await self._users.still_valid(token or "")
        except Unavailable:
            return True

    def connection_closed(self, token: str) -> None:
        self._users.table.take(token)

    # IDebugLoggable

    def debug_log(self) -> str | None:
        concurrency = self._exchange.concurrency
        return (
            f"[{ID}] [monitor] Pool: {concurrency.active}/{concurrency.limit}, Pending: {concurrency.waiting}, "
            f"Completed: {concurrency.completed}, Active: {concurrency.active}, Keys: {self._jwks.size}"
        )

    def debug_metrics(self) -> Mapping[str, int | float]:
        concurrency = self._exchange.concurrency
        return {
            f"{ID}/PoolSize": concurrency.active,
            f"{ID}/MaxPoolSize": concurrency.limit,
            f"{ID}/Active": concurrency.active,
            f"{ID}/Pending": concurrency.waiting,
            f"{ID}/Completed": concurrency.completed,
            f"{ID}/Rejected": concurrency.rejected,
            f"{ID}/NotConnected": self._client.breaker.refused,
            f"{ID}/Failed": self._exchange.failures,
            f"{ID}/Refused": self._answers.refused,
            f"{ID}/Unavailable": self._answers.unavailable,
            f"{ID}/Verified": self._tokens.verified,
            f"{ID}/NotBelieved": self._tokens.refused,
            f"{ID}/Keys": self._jwks.size,
            f"{ID}/KeyFetches": self._jwks.fetches,
            f"{ID}/KeyFetchFailures": self._jwks.failures,
            f"{ID}/PendingLogins": len(self._pending),
            f"{ID}/DroppedLogins": self._pending.dropped,
            f"{ID}/ChecksEnded": self._checks.ended,
            f"{ID}/ChecksLeft": self._checks.left,
            f"{ID}/Sessions": len(self._users.table),
            f"{ID}/SharedRefreshes": self._flow.coalesced,
            f"{ID}/Registered": self._registration.registered,
            f"{ID}/Undone": self._registration.undone,
            f"{ID}/LeftOver": self._registration.left_over,
        }

    def problems(self) -> list[str]:
        """For the health page; empty when logins work as far as is known."""
        found = [self._client.problem] if self._client.problem else []
        if self._store_problem:
            found.append(self._store_problem)
        if self._jwks.problem:
            found.append(f"signing keys: {self._jwks.problem}")
        return found
