"""What Odoo answers, as values and errors (metadata-odoo.md 7.2, 7.3, 8). Pure.

Texts for clients are short: Odoo's tracebacks and the request never get into them (its quirk Q17).
"""

from __future__ import annotations

import re
import xmlrpc.client
from collections.abc import Iterable
from typing import Any
from xml.parsers.expat import ExpatError

import msgspec

from openems.common import errors
from openems.common.errors import OpenemsError, short

#: Odoo refuses every login from our address for a while after some failed ones; its text says so.
COOL_DOWN = "Too many login failures"
#: The code of an XML-RPC fault for a wrong user or password.
ACCESS_DENIED = 3
#: Its answer when the work was done and only the result could not be sent.
MARSHAL = "cannot marshal None unless allow_none is enabled"
UNAVAILABLE = "Odoo is not available at the moment"
MAX_TEXT = 300
_SESSION = re.compile(r"[A-Za-z0-9_.-]{6,128}\Z")


class OdooError(OpenemsError):
    """Odoo did not do it; code 1 with a text for the user."""

    def __init__(self, text: str) -> None:
        super().__init__(errors.GENERIC, text)


class OdooUnavailable(OdooError):
    """It could not be asked, or did not answer in time. ``reason`` is for logs. ``sent``: it may have done it."""

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        super().__init__(UNAVAILABLE)
        self.reason = reason
        self.sent = sent


class SessionExpired(OdooError):
    def __init__(self) -> None:
        super().__init__("The session at Odoo has ended")


class RouteMissing(OdooError):
    """How an addon shows that it is too old."""

    def __init__(self, route: str) -> None:
        super().__init__(f"The addon in Odoo is too old: it has no {route}")
        self.route = route


class Said(OdooError):
    """What the addon itself has to say."""


class Refused(OpenemsError):
    """Wrong login or password: 1003."""

    def __init__(self) -> None:
        super().__init__(errors.COMMON_AUTHENTICATION_FAILED)


class Fault(OdooError):
    """An XML-RPC fault. ``text``: all that Odoo said."""

    def __init__(self, prefix: str, code: Any, text: str) -> None:
        super().__init__(f"{prefix}: {last_line(text)} [{code}]")
        self.fault_code = code
        self.text = text


class NoReply(OdooError):
    """Something else than Odoo answered."""


class _Error(msgspec.Struct):
    code: int
    message: str
    data: dict[str, Any]


def result_of(reply: dict[str, Any], route: str) -> Any:
    """The ``result``; ``{}`` where Odoo left it out. Raises the error that is in the reply."""
    if "error" not in reply:
        value = reply.get("result", {})
        return {} if value is None else value
    try:
        error = msgspec.convert(reply["error"], _Error)
    except msgspec.ValidationError:
        raise OdooError(f"Odoo sent an error of an unknown form for {route}") from None
    name, message = text_of(error.data.get("name")) or "", text_of(error.data.get("message")) or ""
    if name == "odoo.exceptions.AccessDenied":
        if message.startswith(COOL_DOWN):
            raise OdooUnavailable("Odoo refuses all logins of this machine for a minute", sent=False)
        raise Refused()
    if name == "odoo.http.SessionExpiredException" or error.code == 100:
        raise SessionExpired()
    if error.code == 404:
        raise RouteMissing(route)
    if name.endswith("UserNotFoundOpenemsException"):
        raise Refused()
    if name.endswith("OpenemsException"):
        raise Said(short(message, MAX_TEXT))
    # The second one: all of Odoo's own sessions there are in use.
    if name.startswith(("psycopg2.", "odoo.sql_db.")):
        raise OdooUnavailable(f"Odoo has no database: {last_line(message)}")
    raise OdooError(f"Odoo failed in {route}: {last_line(message) or name or error.message}")


def session_id(cookies: Iterable[str], body: Any = None) -> str | None:
    """Out of the values of all Set-Cookie headers, else ``session_id`` of the login's result, as older versions.

    >>> session_id(["frontend_lang=en_US; Path=/", "session_id=abc123;Path=/; HttpOnly"])
    'abc123'
    """
    for cookie in cookies:
        name, equals, value = cookie.partition(";")[0].partition("=")
        value = value.strip().strip('"')
        if equals and name.strip() == "session_id" and _SESSION.match(value):
            return value
    told = text_of(body.get("session_id")) if isinstance(body, dict) else None
    return told if told is not None and _SESSION.match(told) else None


def is_session_id(token: str) -> bool:
    """Whether it may be sent as a cookie."""
    return _SESSION.match(token) is not None


def last_line(text: str) -> str:
    """The last line of a traceback, without the exception's name."""
    lines = [line for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1].strip()
    kind, colon, rest = line.partition(": ")
    if colon and re.fullmatch(r"[A-Za-z_.]+", kind):
        line = rest
    return short(line, MAX_TEXT)


# XML-RPC (8). The standard library's codec: nil both ways, integers of 32 bit.


def encode_call(parameters: tuple[Any, ...], method: str = "execute_kw") -> bytes:
    """Raises OdooError for what XML-RPC cannot carry."""
    try:
        return xmlrpc.client.dumps(parameters, method, allow_none=True).encode("utf-8", "strict")
    except (OverflowError, TypeError, UnicodeEncodeError) as e:
        raise OdooError(f"A value cannot be sent to Odoo: {short(str(e), 100)}") from None


def decode_reply(body: bytes, prefix: str) -> Any:
    """The value. Raises :class:`Fault`, or :class:`NoReply`."""
    try:
        values, _ = xmlrpc.client.loads(body)
    except xmlrpc.client.Fault as e:
        raise Fault(prefix, e.faultCode, str(e.faultString)) from None
    except (ExpatError, xmlrpc.client.Error, ValueError, TypeError, LookupError, ArithmeticError):
        raise NoReply(f"{prefix}: Odoo sent no XML-RPC reply") from None
    if len(values) != 1:
        raise NoReply(f"{prefix}: Odoo sent no XML-RPC reply")
    return values[0]


# Values (8, 10): false is what Odoo says for "not set".


def text_of(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def many2one(value: Any) -> int | None:
    """The id of ``[id, display name]``.

    >>> many2one([1, "id"]), many2one(["foo", "bar"]), many2one(False)
    (1, None, None)
    """
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return value if isinstance(value, int) and not isinstance(value, bool) else None
