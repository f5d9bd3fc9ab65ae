"""Logins by browser, and by what a browser kept of them (auth.md 4.1, 4.2, 5; S1 to S6, S19)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.task import LoopingCall

from openems.backend.authentication.keycloak.client import Denied, KeycloakClient, TokenReply
from openems.backend.authentication.keycloak.inputs import MAX_CODE, MAX_IDENTIFIER, is_plain, is_token
from openems.backend.authentication.keycloak.pending import Pending, PendingLogins, code_challenge
from openems.backend.authentication.keycloak.redirects import is_allowed
from openems.backend.authentication.keycloak.settings import Oem
from openems.backend.authentication.keycloak.shared import Shared
from openems.backend.authentication.keycloak.tokens import Claims, Tokens
from openems.backend.models import OAuthStart
from openems.http.exchange import encoded

#: Seconds for which the result of a refresh is given to others who send the same token.
KEEP_REFRESH = 10.0
EXPIRE = 30.0


class NotConnectable(Exception):
    """A login by browser cannot be begun so; the reason is for the log."""


class Flow:
    """All replies are checked before they are handed on."""

    def __init__(
        self,
        client: KeycloakClient,
        tokens: Tokens,
        pending: PendingLogins,
        oems: Mapping[str, Oem],
        *,
        reactor: Any,
    ) -> None:
        self._client = client
        self._tokens = tokens
        self._pending = pending
        self._oems = oems
        self._reactor = reactor
        self._refreshes: Shared[tuple[TokenReply, Claims]] = Shared(reactor, lambda _: KEEP_REFRESH)
        self._expiry = LoopingCall(self._expire)
        self._expiry.clock = reactor

    def start(self) -> None:
        if not self._expiry.running:
            self._expiry.start(EXPIRE, now=False)

    def stop(self) -> None:
        if self._expiry.running:
            self._expiry.stop()
        self._refreshes.stop()

    @property
    def coalesced(self) -> int:
        """Refreshes that were answered by another's."""
        return self._refreshes.shared

    @property
    def pending(self) -> int:
        return len(self._pending)

    def begin(self, oem: str | None, redirect_uri: str | None, address: str) -> OAuthStart:
        """Raises :class:`NotConnectable`."""
        settings = self._oems.get(oem or "")
        if settings is None:
            raise NotConnectable("no such OEM")
        chosen = settings.redirect_uri if redirect_uri is None else redirect_uri
        if redirect_uri is not None and not is_allowed(redirect_uri, settings.allowed_redirects):
            raise NotConnectable("redirectUri is not in the OEM's list")
        identifier, state, pending = self._pending.add(settings.oem, chosen, address, self._reactor.seconds())
        return OAuthStart(identifier, state, self._login_url(settings, state, pending))

    def _login_url(self, oem: Oem, state: str, pending: Pending) -> str:
        parameters = {
            "scope": "openid",
            "response_type": "code",
            "state": state,
            "nonce": pending.nonce,
            "code_challenge_method": "S256",
            "redirect_uri": pending.redirect_uri,
            "client_id": oem.client_id,
            "code_challenge": code_challenge(pending.code_verifier),
        }
        url = self._client.realm.login_url
        separator = "&" if urlsplit(url).query else "?"
        return url + separator + "&".join(f"{name}={encoded(value)}" for name, value in parameters.items())

    async def by_code(self, oem: str, identifier: str, code: str) -> tuple[TokenReply, Claims]:
        """Raises :class:`Denied`, :class:`~.tokens.NotBelieved`, :class:`~.client.Unavailable`,
        :class:`~.jwks.KeysUnavailable`."""
        if not is_plain(identifier, MAX_IDENTIFIER):
            raise Denied("identifier")
        # Whatever comes now, this login cannot be tried a second time.
        pending = self._pending.take(identifier, self._reactor.seconds())
        if pending is None:
            raise Denied("unknown identifier")
        settings = self._oems.get(oem)
        if settings is None or oem != pending.oem:
            raise Denied("another OEM began this login")
        if not is_token(code) or len(code) > MAX_CODE:
            raise Denied("code")
        reply = await self._client.by_code(settings, code, pending.redirect_uri, pending.code_verifier)
        if not reply.refresh_token or not reply.id_token:
            raise Denied("reply without refresh_token or id_token")
        claims = await self._tokens.access_token(reply.access_token, trusted=True)
        if claims.client_id != settings.client_id:
            raise Denied("azp is another client")
        await self._tokens.id_token(
            reply.id_token, client_id=settings.client_id, nonce=pending.nonce, subject=claims.subject
        )
        return reply, claims

    async def by_refresh_token(self, settings: Oem, refresh_token: str) -> tuple[TokenReply, Claims]:
        """Equal tokens in flight are one request: with rotation a second one would end the session for both. Raises
        as :meth:`by_code`."""
        if not is_token(refresh_token):
            raise Denied("refresh token")

        async def refresh() -> tuple[TokenReply, Claims]:
            reply = await self._client.by_refresh_token(settings, refresh_token)
            if not reply.refresh_token:
                raise Denied("reply without refresh_token")
            claims = await self._tokens.access_token(reply.access_token, trusted=True)
            if claims.client_id != settings.client_id:
                raise Denied("azp is another client")
            return reply, claims

        key = hashlib.sha256(f"{settings.oem}\n{refresh_token}".encode()).digest()
        return await self._refreshes.result(key, refresh)

    def forget(self, access_token: str) -> None:
        """Its session was ended."""
        self._refreshes.forget_where(lambda kept: kept[0].access_token == access_token)

    def _expire(self) -> None:
        self._pending.expire(self._reactor.seconds())
