"""Tokens of third-party services for edges (auth.md 10, S24; components OAuthRegistry.Client).

Nothing is stored or checked here: the edge keeps its tokens, the backend lends its client's secret for the exchange.
Which edges may use a provider, and which scopes they may ask for, can be limited.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger
from zope.interface import implementer

from openems.backend.interfaces import IDebugLoggable, IOAuthRegistry
from openems.common import errors
from openems.common.errors import OpenemsError, generic, short
from openems.http.concurrency import Concurrency
from openems.http.exchange import TIMEOUT, Exchange, ExchangeError

#: Token requests of one edge: so many at once, and so many a minute.
BURST = 10
PER_MINUTE = 10.0
MAX_EDGES = 10_000
MAX_CONCURRENT = 20
MAX_QUEUE = 200
MAX_SCOPES = 50
MAX_SCOPE = 200
MAX_CODE = 4096
MAX_TOKEN = 16 * 1024
MAX_IDENTIFIER = 100
#: Log lines about failing requests in a minute.
LINES = 60


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One configured client. ``edges`` and ``scopes`` limit who may use it and for what; empty: no limit."""

    identifier: str
    authentication_url: str
    token_url: str
    client_id: str
    client_secret: str
    redirect_uri: str
    issuer_url: str = ""
    edges: Sequence[str] = ()
    scopes: Sequence[str] = ()

    def __repr__(self) -> str:
        return f"Provider(identifier={self.identifier!r}, client_id={self.client_id!r})"


@implementer(IOAuthRegistry, IDebugLoggable)
class OAuthRegistry:
    _log = Logger()

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        reactor: Any,
        agent: Any = None,
        timeout: float = TIMEOUT,
        per_minute: float = PER_MINUTE,
        allow_plain_http: bool = False,
        observe: Any = None,
    ) -> None:
        self.limited = 0
        self.refused = 0
        self.failed = 0
        self._reactor = reactor
        self._per_minute = per_minute
        self._providers = {provider.identifier: provider for provider in providers}
        # One for each provider, so that a slow one holds up nobody else.
        self._exchanges = {
            provider.identifier: Exchange(
                reactor=reactor,
                concurrency=Concurrency(MAX_CONCURRENT, MAX_QUEUE),
                agent=agent,
                timeout=timeout,
                allow_plain_http=allow_plain_http,
                observe=observe,
            )
            for provider in providers
        }
        self._calls: Counter[str] = Counter(
            {"getInitMetadata": 0, "fetchTokensFromCode": 0, "fetchTokensFromRefreshToken": 0}
        )
        #: Edge -> permits, and when they were counted.
        self._permits: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lines: list[float] = []

    async def stop(self) -> None:
        for exchange in self._exchanges.values():
            await exchange.close()

    def get_init_metadata(self, edge_id: str, identifier: str) -> dict[str, str]:
        """Without the secret. Code 1 for an unknown identifier and for an edge that may not use it."""
        self._calls["getInitMetadata"] += 1
        provider = self._provider(edge_id, identifier)
        return {
            "authenticationUrl": provider.authentication_url,
            "clientId": provider.client_id,
            "redirectUrl": provider.redirect_uri,
        }

    async def fetch_tokens_from_code(
        self, edge_id: str, identifier: str, code: str, scopes: list[str], code_verifier: str | None
    ) -> dict[str, str]:
        self._calls["fetchTokensFromCode"] += 1
        provider = self._provider(edge_id, identifier)
        form = {"grant_type": "authorization_code", "code": _checked("code", code, MAX_CODE)}
        if code_verifier is not None:
            form["code_verifier"] = _checked("codeVerifier", code_verifier, MAX_CODE)
        return await self._fetch(edge_id, provider, form, scopes, None)

    async def fetch_tokens_from_refresh_token(
        self, edge_id: str, identifier: str, refresh_token: str, scopes: list[str]
    ) -> dict[str, str]:
        self._calls["fetchTokensFromRefreshToken"] += 1
        provider = self._provider(edge_id, identifier)
        form = {"grant_type": "refresh_token", "refresh_token": _checked("refreshToken", refresh_token, MAX_TOKEN)}
        return await self._fetch(edge_id, provider, form, scopes, refresh_token)

    def _provider(self, edge_id: str, identifier: str) -> Provider:
        provider = self._providers.get(identifier)
        # The same answer: an edge has no business knowing what others use.
        if provider is None or (provider.edges and edge_id not in provider.edges):
            self.refused += 1
            raise generic(f"Unable to find OAuth client with identifier '{short(identifier, MAX_IDENTIFIER)}'")
        return provider

    async def _fetch(
        self, edge_id: str, provider: Provider, form: dict[str, str], scopes: list[str], kept: str | None
    ) -> dict[str, str]:
        """``kept``: the refresh token that stays good where the reply brings no new one."""
        if len(scopes) > MAX_SCOPES:
            raise generic(f"More than {MAX_SCOPES} scopes")
        scopes = [_checked("scopes", scope, MAX_SCOPE) for scope in scopes]
        if provider.scopes and not set(scopes) <= set(provider.scopes):
            self.refused += 1
            raise generic("A scope is not allowed for this OAuth client")
        if not self._take(edge_id):
            self.limited += 1
            raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
        form = {
            "client_id": provider.client_id,
            "client_secret": provider.client_secret,
            "redirect_uri": provider.redirect_uri,
            "scope": " ".join(scopes),
            **form,
        }
        try:
            reply = await self._exchanges[provider.identifier].request(
                "POST", provider.token_url, form=form, path=f"/oauthregistry/{provider.identifier}"
            )
            if reply.status >= 400:
                self._failed(edge_id, f"{reply.where}: {reply.status_text}")
                raise generic(reply.status_text)
            body = reply.object()
        except ExchangeError as e:
            self._failed(edge_id, str(e))
            raise generic(f"The OAuth provider gave no usable answer: {e.kind}") from None
        access_token, refresh_token = body.get("access_token"), body.get("refresh_token", kept)
        if not isinstance(access_token, str) or not access_token:
            self._failed(edge_id, f"{provider.identifier}: reply without access_token")
            raise generic("Member [access_token] was not part of the provider's reply")
        if not isinstance(refresh_token, str) or not refresh_token:
            self._failed(edge_id, f"{provider.identifier}: reply without refresh_token")
            raise generic("Member [refresh_token] was not part of the provider's reply")
        return {"accessToken": access_token, "refreshToken": refresh_token}

    def _take(self, edge_id: str) -> bool:
        now = self._reactor.seconds()
        permits, at = self._permits.pop(edge_id, (float(BURST), now))
        permits = min(float(BURST), permits + (now - at) * self._per_minute / 60.0)
        granted = permits >= 1.0
        self._permits[edge_id] = permits - 1.0 if granted else permits, now
        if len(self._permits) > MAX_EDGES:
            self._permits.popitem(last=False)
        return granted

    def _failed(self, edge_id: str, reason: str) -> None:
        self.failed += 1
        now = self._reactor.seconds()
        while self._lines and now - self._lines[0] > 60.0:
            self._lines.pop(0)
        if len(self._lines) < LINES:
            self._lines.append(now)
            self._log.info("{edge}: OAuth registry: {reason}", edge=edge_id, reason=reason)

    # IDebugLoggable

    def debug_log(self) -> str | None:
        return "[OAuthRegistry] Sum-Tasks: " + ", ".join(f"{name}:{count}" for name, count in self._calls.items())

    def debug_metrics(self) -> Mapping[str, int | float]:
        return {
            "OAuthRegistry/Calls": self._calls.total(),
            "OAuthRegistry/Limited": self.limited,
            "OAuthRegistry/Refused": self.refused,
            "OAuthRegistry/Failed": self.failed,
        }


def _checked(name: str, text: str, limit: int) -> str:
    if not 0 < len(text) <= limit or not text.isascii() or not text.isprintable():
        raise generic(f"Member [{name}] is empty, too long or has a character that is not allowed")
    return text
