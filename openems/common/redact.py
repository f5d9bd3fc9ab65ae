"""The one place that knows what is secret (auth.md S12): whatever is to be logged, shown or put into an error text and
may hold parts of a message, a form or a header goes through here."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any

HIDDEN = "HIDDEN"
#: Shorter secrets are not looked for in texts: they would hide every second word.
SHORTEST = 3
#: How deep a value is looked at; deeper parts are hidden as a whole.
DEPTH = 20
#: Letters and digits of names whose values are secret, at any depth.
_SECRET = frozenset(
    {
        "accesstoken", "apikey", "assertion", "authorization", "bearertoken", "clientsecret", "code", "codechallenge",
        "codeverifier", "confirmpassword", "cookie", "credentials", "idtoken", "idtokenhint", "newpassword", "nonce",
        "password", "passwd", "refreshtoken", "secret", "setcookie", "setuppassword", "token", "userpassword",
    }
)  # fmt: skip
_ENDS = ("password", "secret", "token", "apikey")
_PUNCTUATION = re.compile(r"[^a-z0-9]")
#: Compact JWS and tokens of our own, whole or cut; then what stands behind a secret's name in a form, query, header or
#: JSON text.
_JWT = re.compile(r"(?:eyJ|kc1\.)[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,4}")
_NAMED = re.compile(
    r"(?i)\b(access_?token|refresh_?token|id_?token(?:_hint)?|client_?secret|code_?verifier|code|password|"
    r"confirm_?password|setup_?password|api_?key|secret|token|nonce)(\"?\s*[=:]\s*)(\"(?:[^\"\\]|\\.)*\"?|[^\s&,;}\])]+)"
)
_HEADER = re.compile(r"(?i)\b(authorization|cookie|set-cookie)(\"?\s*[:=]\s*\"?)([^\r\n\"]+)")


def is_secret(name: str) -> bool:
    """Whether values under this name are secret, however it is spelled.

    >>> is_secret("code_verifier"), is_secret("codeVerifier"), is_secret("username")
    (True, True, False)
    """
    plain = _PUNCTUATION.sub("", name.lower())
    return plain in _SECRET or plain.endswith(_ENDS)


def redacted(value: Any, depth: int = DEPTH) -> Any:
    """A copy of a JSON value (or of the pairs of a form) without its secrets.

    >>> redacted({"user": {"email": "mia", "password": "x"}, "tokens": [{"token": "y"}]})
    {'user': {'email': 'mia', 'password': 'HIDDEN'}, 'tokens': [{'token': 'HIDDEN'}]}
    """
    if depth <= 0:
        return HIDDEN
    if isinstance(value, dict):
        return {
            name: HIDDEN if isinstance(name, str) and is_secret(name) else redacted(inner, depth - 1)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner, depth - 1) for inner in value]
    if isinstance(value, bytes):
        return redacted_text(value.decode(errors="replace"))
    if isinstance(value, str):
        return redacted_text(value)
    return value


def redacted_text(text: str, limit: int = 500) -> str:
    """A text of unknown kind, cut, without what looks like a secret.

    >>> redacted_text("grant_type=password&password=x+y&username=mia")
    'grant_type=password&password=HIDDEN&username=mia'
    """
    # Cut first, so that a peer's megabytes cost nothing; a token that is cut is still recognised.
    text = text[: limit * 4]
    text = _JWT.sub(HIDDEN, text)
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    text = _NAMED.sub(rf"\1\2{HIDDEN}", text)
    return text if len(text) <= limit else text[:limit] + "..."


def hide(text: str, secrets: Iterable[str]) -> str:
    """Without these, wherever they stand.

    >>> hide("no such code: abcd", ["abcd", ""])
    'no such code: HIDDEN'
    """
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    return text


def fingerprint(secret: str) -> str:
    """Eight hexadecimal digits: tells two secrets apart in a log, and nothing about them."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()[:8]
