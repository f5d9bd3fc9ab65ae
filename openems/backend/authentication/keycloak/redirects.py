"""Where a browser may be sent with its code (auth.md S6). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

MAX_URI = 2048


def defaults_for(redirect_uri: str) -> tuple[str, ...]:
    """What is allowed where nothing is listed: the configured address and the stock UI's page below it.

    >>> defaults_for("http://localhost:4200/")
    ('http://localhost:4200/', 'http://localhost:4200/oauthcallback')
    """
    return redirect_uri, redirect_uri.rstrip("/") + "/oauthcallback"


def is_allowed(uri: str, allowed: Iterable[str]) -> bool:
    """Exactly one of the list, and for http(s) without user info and fragment, which a list should not hold.

    >>> is_allowed("http://localhost:4200.evil.example/", ["http://localhost:4200/"])
    False
    """
    if len(uri) > MAX_URI or not uri.isprintable() or " " in uri or "\\" in uri or uri not in allowed:
        return False
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    if "#" in uri or "@" in parts.netloc or not parts.scheme:
        return False
    return parts.scheme not in ("javascript", "data", "vbscript", "file", "blob") and (
        parts.scheme not in ("http", "https") or bool(parts.hostname)
    )
