"""What is asked of Keycloak: the token endpoint, its logout, and the administration of users (auth.md 4).

Ways to fail: :class:`Denied` (these credentials are not good), :class:`Unavailable` (nobody can tell now),
:class:`Conflict` and :class:`Rejected` (a user cannot be made). A client that Keycloak does not accept is a fault of
the configuration: unavailable, with a line in the log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from twisted.logger import Logger

from openems.backend.authentication.keycloak.breaker import Breaker
from openems.backend.authentication.keycloak.keyset import Key, read_keys
from openems.backend.authentication.keycloak.settings import Oem, Realm
from openems.http.exchange import Exchange, ExchangeError, Reply, form_body

MAX_JWKS = 256 * 1024
JWKS_TIMEOUT = 5.0
LOGOUT_TIMEOUT = 5.0
#: Seconds before its end at which an administration token is replaced.
ADMIN_MARGIN = 30.0
#: Seconds between two lines about a client that Keycloak does not accept.
COMPLAIN = 60.0
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_CODE = re.compile(r"[A-Za-z0-9_-]{1,60}")
#: OAuth errors that say that the credentials are bad, and not we or the server.
_DENIALS = frozenset({"invalid_grant", "invalid_request", "access_denied"})


class Denied(Exception):
    """The argument is Keycloak's error code, no text of it."""


class Unavailable(Exception):
    pass


class Conflict(Exception):
    """A user with that email or name exists."""


class Rejected(Exception):
    """The data of a user to be created break a rule; the text names the rule."""


class TokenReply(msgspec.Struct, frozen=True):
    access_token: str
    refresh_token: str = ""
    id_token: str = ""
    expires_in: float = 0.0

    def __repr__(self) -> str:
        return "TokenReply(...)"


class KeycloakClient:
    _log = Logger()

    def __init__(self, realm: Realm, exchange: Exchange, *, reactor: Any, service_account: Oem | None) -> None:
        self.realm = realm
        self.service_account = service_account
        #: What is wrong with the configuration, for the health page.
        self.problem = ""
        self.breaker = Breaker()
        self._exchange = exchange
        self._reactor = reactor
        self._admin_token: tuple[str, float] | None = None
        self._complained: float | None = None

    # Tokens

    async def by_code(self, oem: Oem, code: str, redirect_uri: str, code_verifier: str) -> TokenReply:
        form = {"code": code, "redirect_uri": redirect_uri, "code_verifier": code_verifier, "scope": "openid"}
        return await self._token("authorization_code", oem, form)

    async def by_refresh_token(self, oem: Oem, refresh_token: str) -> TokenReply:
        form = {"refresh_token": refresh_token, "redirect_uri": oem.redirect_uri, "scope": "openid"}
        return await self._token("refresh_token", oem, form)

    async def by_password(self, oem: Oem, username: str, password: str) -> TokenReply:
        return await self._token("password", oem, {"username": username, "password": password})

    async def _token(self, grant: str, oem: Oem, fields: Mapping[str, str]) -> TokenReply:
        form = {
            "grant_type": grant,
            "client_id": oem.client_id,
            "client_secret": oem.client_secret,
            **fields,
        }
        reply = await self._ask(
            "POST", self.realm.token_url, form=form, path=f"{urlsplit(self.realm.token_url).path}_{grant}"
        )
        if reply.status in (400, 401):
            error = _error_code(reply)
            if error in _DENIALS:
                raise Denied(error)
            self._complain(f"client {oem.client_id!r} of OEM {oem.oem!r} is not accepted: {error or reply.status}")
            raise Unavailable(error)
        if reply.status != 200:
            raise Unavailable(f"status {reply.status}")
        self.problem = ""
        try:
            body = reply.object()
        except ExchangeError as e:
            raise Unavailable(str(e)) from None
        token, lifetime = body.get("access_token"), body.get("expires_in", 0)
        if not isinstance(token, str) or not token:
            raise Denied("no access_token in the reply")
        return TokenReply(
            token,
            _text(body.get("refresh_token")),
            _text(body.get("id_token")),
            float(lifetime) if isinstance(lifetime, int | float) else 0.0,
        )

    async def logout(self, oem: Oem, refresh_token: str) -> None:
        """Ends the session at Keycloak. 204 is the only answer that means it is ended."""
        form = {"client_id": oem.client_id, "client_secret": oem.client_secret, "refresh_token": refresh_token}
        reply = await self._ask("POST", self.realm.logout_url, form=form, timeout=LOGOUT_TIMEOUT)
        if reply.status != 204:
            raise Denied(_error_code(reply) or f"status {reply.status}")

    async def keys(self, allowed: frozenset[str]) -> Mapping[str, Key]:
        reply = await self._exchange.request("GET", self.realm.certs_url, max_body=MAX_JWKS, timeout=JWKS_TIMEOUT)
        if reply.status != 200:
            raise ExchangeError("status", reply.where, str(reply.status))
        return read_keys(reply.json(), allowed)

    # Administration, with the service account

    async def create_user(self, user: Mapping[str, Any]) -> str:
        """The new user's id. Raises :class:`Conflict`, :class:`Rejected`, :class:`Unavailable`."""
        reply = await self._administer("POST", ("users",), user)
        if reply.status == 409:
            raise Conflict()
        if reply.status == 400:
            raise Rejected(_rule(reply))
        if reply.status != 201:
            raise Unavailable(f"creating a user: status {reply.status}")
        user_id = reply.headers.get("location", "").rpartition("/")[2]
        if not _UUID.fullmatch(user_id):
            raise Unavailable("Failed to create user: No Location header found in response")
        return user_id

    async def delete_user(self, user_id: str) -> None:
        reply = await self._administer("DELETE", ("users", user_id))
        if reply.status not in (204, 404):
            raise Unavailable(f"deleting a user: status {reply.status}")

    async def find_user(self, email: str) -> str | None:
        """The id of the user with this email."""
        query = {"email": email, "exact": "true", "max": "2", "briefRepresentation": "true"}
        reply = await self._administer("GET", ("users",), query=query)
        try:
            users = reply.json() if reply.status == 200 else None
        except ExchangeError as e:
            raise Unavailable(str(e)) from None
        if not isinstance(users, list):
            raise Unavailable(f"searching a user: status {reply.status}")
        ids = [user.get("id") for user in users if isinstance(user, dict)]
        return ids[0] if len(ids) == 1 and isinstance(ids[0], str) and _UUID.fullmatch(ids[0]) else None

    async def is_enabled(self, user_id: str) -> bool:
        """False also for a user that does not exist any more."""
        reply = await self._administer("GET", ("users", user_id))
        if reply.status == 404:
            return False
        if reply.status != 200:
            raise Unavailable(f"asking for a user: status {reply.status}")
        try:
            return reply.object().get("enabled") is True
        except ExchangeError as e:
            raise Unavailable(str(e)) from None

    async def end_session(self, session_id: str) -> None:
        reply = await self._administer("DELETE", ("sessions", session_id), timeout=LOGOUT_TIMEOUT)
        if reply.status not in (204, 404):
            raise Denied(f"status {reply.status}")

    async def _administer(
        self,
        method: str,
        path: tuple[str, ...],
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Reply:
        url = self.realm.admin_url(*path) + (f"?{form_body(query).decode()}" if query else "")
        template = "/".join((f"/admin/realms/{self.realm.realm}", path[0], *("{id}" for _ in path[1:])))
        for attempt in (1, 2):
            headers = {"Authorization": f"Bearer {await self._administration_token()}"}
            reply = await self._ask(method, url, json=body, headers=headers, path=template, timeout=timeout)
            if reply.status == 401 and attempt == 1:
                # Refused before anything was done: the token ended early (keys rotated, session removed).
                self._admin_token = None
                continue
            break
        if reply.status in (401, 403):
            self._complain(f"the service account may not {method} {template}: it needs the role manage-users")
            raise Unavailable(f"status {reply.status}")
        return reply

    async def _administration_token(self) -> str:
        account = self.service_account
        if account is None:
            raise Unavailable("no OEM is the service account")
        now = self._reactor.seconds()
        if self._admin_token is not None and now < self._admin_token[1]:
            return self._admin_token[0]
        reply = await self._token("client_credentials", account, {})
        self._admin_token = reply.access_token, now + reply.expires_in - ADMIN_MARGIN
        return reply.access_token

    async def _ask(self, method: str, url: str, **options: Any) -> Reply:
        breaker = self.breaker
        if not breaker.admits(self._reactor.seconds()):
            raise Unavailable("it could not be connected to a moment ago")
        try:
            reply = await self._exchange.request(method, url, **options)
        except ExchangeError as e:
            if e.kind == "connection":
                breaker.failed(self._reactor.seconds())
            else:
                breaker.given_up()
            raise Unavailable(str(e)) from None
        except BaseException:
            breaker.given_up()
            raise
        breaker.connected()
        return reply

    def _complain(self, text: str) -> None:
        self.problem = text
        now = self._reactor.seconds()
        if self._complained is None or now - self._complained >= COMPLAIN:
            self._complained = now
            self._log.error("Keycloak: {text}", text=text)


def _error_code(reply: Reply) -> str:
    """The ``error`` member, if it looks like one; descriptions may repeat what was sent."""
    try:
        code = reply.object().get("error")
    except ExchangeError:
        return ""
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""


def _rule(reply: Reply) -> str:
    """Which rule a new user breaks: codes and field names, nothing of the values."""
    try:
        body = reply.object()
    except ExchangeError:
        return "Http 400 Bad Request"
    found: list[str] = []
    errors = body.get("errors")
    entries: list[Any] = errors if isinstance(errors, list) else [body]
    for entry in entries[:5]:
        if not isinstance(entry, dict):
            continue
        code = entry.get("errorMessage") or entry.get("error")
        if isinstance(code, str) and _CODE.fullmatch(code):
            field = entry.get("field")
            named = isinstance(field, str) and _CODE.fullmatch(field)
            found.append(f"{field}: {code}" if named else code)
    return "Http 400 Bad Request" + (f" ({', '.join(found)})" if found else "")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
