"""What an edge may ask (edge.md 3.6): the app center, its setup password, tokens of third parties."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError

from openems.common import errors
from openems.common.errors import OpenemsError, generic
from openems.common.jsonrpc import Members, Request
from openems.common.ratelimit import PerPeer
from openems.common.redact import redacted

METHODS = frozenset({"appCenter", "checkSetupPassword", "oauthRegistry"})
OAUTH_METHODS = frozenset({"getInitMetadata", "getTokenByCode", "getTokenByRefreshToken"})


#: Setup passwords that an edge may try in a minute: whoever has its password gets the edge (auth.md S13).
SETUP_PASSWORDS = 10


class EdgeRequests:
    """``app_center``: IAppCenterMetadata or None; ``oauth_registry``: IOAuthRegistry or None."""

    def __init__(
        self, metadata: Any, app_center: Any, oauth_registry: Any, *, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._setup_passwords = PerPeer(SETUP_PASSWORDS / 60, burst=SETUP_PASSWORDS)
        self._metadata = metadata
        self._app_center = app_center
        self._oauth_registry = oauth_registry
        #: Told the method, one of METHODS or ``other``, and one of openems.common.errors.OUTCOMES.
        self.observe_result: Callable[[str, str], None] | None = None

    async def handle(self, edge_id: str, request: Request) -> Any:
        """The ``result``. 4001 for unknown methods, outer and inner."""
        result = "error"
        try:
            answer = await self._handle(edge_id, request)
            result = "ok"
            return answer
        except OpenemsError as e:
            result = errors.outcome(e)
            raise
        except CancelledError:
            result = "cancelled"
            raise
        finally:
            if self.observe_result is not None:
                self.observe_result(request.method if request.method in METHODS else "other", result)

    async def _handle(self, edge_id: str, request: Request) -> Any:
        if request.method == "appCenter":
            from openems.backend.core.appcenter import handle_edge_request

            return await handle_edge_request(self._app_center, edge_id, request)
        if request.method == "checkSetupPassword":
            if not self._setup_passwords.take(edge_id, self._seconds()):
                raise OpenemsError(errors.JSONRPC_TOO_MANY_REQUESTS)
            password = request.members().string("setupPassword")
            if not password or self._metadata.edge_id_for_setup_password(password) != edge_id:
                # The surplus element is what the Java program sends (wire.md 8, 38).
                raise OpenemsError(errors.COMMON_AUTHENTICATION_FAILED, request.method)
            return {}
        if request.method == "oauthRegistry":
            try:
                return await self._oauth(edge_id, request.members().request())
            except OpenemsError as e:
                # Texts about malformed members hold the members, codes and tokens among them.
                raise OpenemsError(e.code, *redacted(list(e.data))) from None
        raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, request.method)

    async def _oauth(self, edge_id: str, request: Request) -> Any:
        if self._oauth_registry is None:
            raise generic("No OAuth registry is configured on this backend")
        if request.method not in OAUTH_METHODS:
            raise OpenemsError(errors.JSONRPC_UNHANDLED_METHOD, request.method)
        members = request.members()
        identifier = _member(members, "identifier")
        if request.method == "getInitMetadata":
            return self._oauth_registry.get_init_metadata(edge_id, identifier)
        if request.method == "getTokenByCode":
            return await self._oauth_registry.fetch_tokens_from_code(
                edge_id,
                identifier,
                _member(members, "code"),
                members.strings("scopes"),
                members.optional_string("codeVerifier"),
            )
        return await self._oauth_registry.fetch_tokens_from_refresh_token(
            edge_id, identifier, _member(members, "refreshToken"), members.strings("scopes")
        )


def _member(members: Members, name: str) -> str:
    """Strict family (wire.md 4.3): code 1 where a member is missing, naming it."""
    value = members.optional_string(name)
    if value is None:
        shown = errors.json_text(redacted(members.as_dict()))
        raise generic(f"Member [{name}] was not part of {errors.short(shown, 100)}")
    return value
