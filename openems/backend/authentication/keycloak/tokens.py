"""Which tokens are believed (auth.md 6, S7 to S10).

In this order, the cheap things first: size and shape; header (algorithm from the list, nothing that names a key of the
token's own choice); issuer; the key by its kid, which must be bound to that algorithm; the signature; the claims.

A token that was believed is remembered until it expires or the key set changes, so that one that is shown again costs
no second verification.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode
from collections import OrderedDict
from collections.abc import Callable, Collection
from time import perf_counter
from typing import Any

import jwt
import msgspec

from openems.backend.authentication.keycloak.jwks import Jwks
from openems.backend.authentication.keycloak.keyset import Key
from openems.backend.authentication.keycloak.pace import Pace
from openems.common.errors import short

MAX_TOKEN = 16 * 1024
LEEWAY = 30
MAX_REMEMBERED = 10_000
#: Header members that would have the verifier take a key from the token, or do what it does not know.
_FORBIDDEN = ("crit", "jwk", "jku", "x5c", "x5u", "x5t", "x5t#S256", "b64", "zip")
SERVICE_ACCOUNT = "service-account-"
#: Signatures only: the claims are checked here, by our clock.
_JWS = jwt.PyJWS()


class NotBelieved(Exception):
    """The reason is for the log and holds nothing of the token but names of claims and its issuer."""


class Claims(msgspec.Struct, frozen=True):
    """What is used of an access token; times in epoch seconds."""

    subject: str
    client_id: str
    session_id: str
    expires: int
    email: str = ""


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str


class Tokens:
    """``now()`` is epoch seconds. ``clients`` are the client ids that users log in by; ``audience``, if given, must be
    in an access token's ``aud``."""

    def __init__(
        self,
        issuer: str,
        jwks: Jwks,
        *,
        now: Callable[[], float],
        clients: Collection[str],
        algorithms: Collection[str] = ("RS256",),
        audience: str = "",
        leeway: int = LEEWAY,
        pace: Pace | None = None,
    ) -> None:
        self.issuer = issuer
        self.verified = 0
        self.refused = 0
        self._jwks = jwks
        self._now = now
        self._clients = frozenset(clients)
        self._algorithms = frozenset(algorithms)
        self._audience = audience
        self._leeway = leeway
        self._pace = pace
        self._remembered: OrderedDict[bytes, Claims] = OrderedDict()
        self._generation = jwks.generation

    async def access_token(self, token: str, *, trusted: bool = False) -> Claims:
        """The claims of an access token of a user. ``trusted``: the issuer gave it to us a moment ago.

        Raises :class:`NotBelieved`, :class:`~openems.backend.authentication.keycloak.jwks.KeysUnavailable`.
        """
        digest = self._digest(token)
        known = self._recall(digest)
        if known is not None:
            return known
        try:
            claims = self._user_claims(await self._verified(token, trusted))
        except NotBelieved:
            self.refused += 1
            raise
        self._forget_older_keys()
        self._remembered[digest] = claims
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return claims

    async def id_token(self, token: str, *, client_id: str, nonce: str, subject: str) -> None:
        """The ID token that came with an access token for ``subject`` (S3). Raises as :meth:`access_token`."""
        try:
            claims = await self._verified(token, True)
            if claims.get("typ", "ID") != "ID":
                raise NotBelieved("typ of the ID token")
            audience = claims.get("aud")
            if audience != client_id and audience != [client_id]:
                raise NotBelieved("aud of the ID token")
            if claims.get("azp", client_id) != client_id:
                raise NotBelieved("azp of the ID token")
            if claims.get("sub") != subject:
                raise NotBelieved("sub of the ID token")
            given = claims.get("nonce")
            if not isinstance(given, str) or not _equal(given, nonce):
                raise NotBelieved("nonce")
        except NotBelieved:
            self.refused += 1
            raise

    def _forget_older_keys(self) -> None:
        if self._generation != self._jwks.generation:
            self._generation = self._jwks.generation
            self._remembered.clear()

    def _recall(self, digest: bytes) -> Claims | None:
        self._forget_older_keys()
        known = self._remembered.get(digest)
        if known is None:
            return None
        if self._now() >= known.expires + self._leeway:
            del self._remembered[digest]
            return None
        return known

    @staticmethod
    def _digest(token: str) -> bytes:
        return hashlib.blake2b(token[: MAX_TOKEN + 1].encode("utf-8", "surrogatepass"), digest_size=32).digest()

    async def _verified(self, token: str, trusted: bool) -> dict[str, Any]:
        """The claims common to all tokens have been checked."""
        header = self._header(token)
        key = self._jwks.known(header.kid)
        if key is None:
            key = await self._jwks.key(header.kid, trusted=trusted)
        if key is None:
            raise NotBelieved("unknown kid")
        if self._pace is not None:
            await self._pace.turn()
        begun = perf_counter()
        try:
            claims = _signed(token, key, header.alg)
        finally:
            if self._pace is not None:
                self._pace.spent(perf_counter() - begun)
        self.verified += 1
        self._check_issuer(claims)
        self._check_times(claims)
        return claims

    def _header(self, token: str) -> _Header:
        """What can be refused without a key. The issuer is looked at before the signature, and again after it."""
        if len(token) > MAX_TOKEN or not token.isascii():
            raise NotBelieved("size or characters")
        parts = token.split(".")
        if len(parts) != 3:
            raise NotBelieved("not three parts")
        header = _decoded(parts[0], "header")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise NotBelieved("alg")
        if any(name in header for name in _FORBIDDEN):
            raise NotBelieved("header names a key or an extension")
        if not isinstance(kid, str) or not kid:
            raise NotBelieved("no kid")
        self._check_issuer(_decoded(parts[1], "payload"))
        return _Header(algorithm, kid)

    def _check_issuer(self, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self.issuer:
            # Both, because this is what goes wrong where Keycloak has an address inside and another outside.
            raise NotBelieved(f"iss is {short(str(claims.get('iss')), 100)!r}, not {self.issuer!r}")

    def _check_times(self, claims: dict[str, Any]) -> None:
        now, leeway = self._now(), self._leeway
        times = [_time(claims.get("exp")), _time(claims.get("iat")), _time(claims.get("nbf", 0))]
        if None in times:
            raise NotBelieved("exp, iat or nbf missing or no time")
        expires, issued, not_before = (time or 0.0 for time in times)
        if now >= expires + leeway:
            raise NotBelieved("expired")
        if issued > now + leeway or not_before > now + leeway:
            raise NotBelieved("not valid yet")

    def _user_claims(self, claims: dict[str, Any]) -> Claims:
        subject, client_id, session_id = claims.get("sub"), claims.get("azp"), claims.get("sid")
        if claims.get("typ") != "Bearer":
            raise NotBelieved("typ")
        if not isinstance(client_id, str) or client_id not in self._clients:
            raise NotBelieved("azp")
        if not isinstance(subject, str) or not subject:
            raise NotBelieved("no sub")
        # A service account has no session: it is no user (odoo-keycloak-verified.md 2.2).
        name = claims.get("preferred_username")
        if not isinstance(session_id, str) or not session_id or str(name).startswith(SERVICE_ACCOUNT):
            raise NotBelieved("no session of a user")
        if self._audience:
            audience = claims.get("aud")
            if audience != self._audience and not (isinstance(audience, list) and self._audience in audience):
                raise NotBelieved("aud")
        email = claims.get("email")
        return Claims(subject, client_id, session_id, int(claims["exp"]), email if isinstance(email, str) else "")


def _signed(token: str, key: Key, algorithm: str) -> dict[str, Any]:
    """The payload, after the signature was verified with an algorithm that the key is for."""
    if algorithm not in key.algorithms:
        raise NotBelieved("alg is not the key's")
    try:
        payload = _JWS.decode(token, key.key, algorithms=[algorithm])
        claims = msgspec.json.decode(payload)
    except (jwt.exceptions.PyJWTError, msgspec.DecodeError, ValueError, TypeError, RecursionError) as e:
        raise NotBelieved(type(e).__name__) from None
    if not isinstance(claims, dict):
        raise NotBelieved("payload")
    return claims


def _decoded(part: str, what: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        raise NotBelieved(what) from None
    if not isinstance(value, dict):
        raise NotBelieved(what)
    return value


def session_of(token: str) -> tuple[str, str]:
    """Session id and subject of a token that was believed before; empty where there are none."""
    parts = token.split(".")
    if len(parts) != 3:
        return "", ""
    try:
        claims = _decoded(parts[1], "payload")
    except NotBelieved:
        return "", ""
    session_id, subject = claims.get("sid"), claims.get("sub")
    return (session_id, subject) if isinstance(session_id, str) and isinstance(subject, str) else ("", "")


def _time(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
    return value if number else None


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))
