"""The table of OpenEMS errors (wire.md 2) and the one exception that carries them.

Every failure that a peer may see is an :class:`OpenemsError`. Its ``code``, ``message`` and ``data`` are exactly the
members of the ``error`` object on the wire; the templates, typing errors included, are what the Java programs print.
"""

from __future__ import annotations

from typing import Any

import orjson

GENERIC = 1
COMMON_NO_VALID_CHANNEL_ADDRESS = 1000
COMMON_USER_NOT_AUTHENTICATED = 1001
COMMON_ROLE_ACCESS_DENIED = 1002
COMMON_AUTHENTICATION_FAILED = 1003
COMMON_USER_UNDEFINED = 1004
COMMON_ROLE_UNDEFINED = 1005
COMMON_SERVICE_NOT_AVAILABLE = 1006
EDGE_NO_COMPONENT_WITH_ID = 2000
BACKEND_EDGE_NOT_CONNECTED = 3000
BACKEND_NO_UI_WITH_TOKEN = 3002
JSONRPC_ID_NOT_UNIQUE = 4000
JSONRPC_UNHANDLED_METHOD = 4001
JSONRPC_RESPONSE_WITHOUT_REQUEST = 4003
JSONRPC_SEND_FAILED = 4004
JSONRPC_TOO_MANY_REQUESTS = 4005
JSON_HAS_NO_MEMBER = 5000
JSON_NO_INTEGER_MEMBER = 5001
JSON_NO_OBJECT = 5002
JSON_NO_OBJECT_MEMBER = 5003
JSON_NO_PRIMITIVE_MEMBER = 5005
JSON_NO_ARRAY_MEMBER = 5007
JSON_NO_DATE_MEMBER = 5008
JSON_NO_STRING = 5009
JSON_NO_STRING_MEMBER = 5010
JSON_NO_BOOLEAN = 5011
JSON_NO_BOOLEAN_MEMBER = 5012
JSON_PARSE_FAILED = 5016
JSON_NO_ENUM_MEMBER = 5018
JSON_NO_INTEGER = 5019
JSON_NO_LONG_MEMBER = 5026
JSON_NO_UUID_MEMBER = 5033

#: code -> message template; every ``%s`` is one parameter (wire.md 2).
TEMPLATES: dict[int, str] = {
    1: "%s",
    1000: "This [%s] is not a valid channel address",
    1001: "User is not authenticated. [%s]",
    1002: "Access to this resource [%s] is denied for User with Role [%s]",
    1003: "Authentication failed",
    1004: "User [%s] is not defined",
    1005: "Access to this resource [%s] is denied. Role for User [%s] is not defined",
    1006: "This service is currently not available. Please try again later",
    2000: "Unable to find OpenEMS Component with ID [%s]",
    2001: "Found more than one OpenEMS Component with ID [%s]",
    2002: "Unable to apply configuration to Component [%s]: [%s]",
    2003: "Unable to create configuration for Factory [%s]: [%s]",
    2004: "Unable to delete configuration for Component [%s]: [%s]",
    2005: "Channel has no Option [%s]. Existing options: %s",
    3000: "Edge [%s] is not connected",
    3001: "Token for UI connection is missing",
    3002: "No open connection with Token [%s]",
    4000: "A Request with this ID [%s] had already been existing",
    4001: "Unhandled JSON-RPC method [%s]",
    4002: "JSON-RPC Message is not a valid Request, Result or Notification: %s",
    4003: "Got Response without Request: %s",
    4004: "Send failed",
    4005: "Too Many Requests! Request discarded by Rate-Limiter.",
    5000: "JSON [%s] is not a member of [%s]",
    5001: "JSON [%s:%s] is not an Integer",
    5002: "JSON [%s] is not a JSON-Object",
    5003: "JSON [%s] ist not a member of JSON-Object [%s]",
    5004: "JSON [%s] is not a JSON-Primitive",
    5005: "JSON [%s] is not a JSON-Primitive member of JSON-Object [%s]",
    5006: "JSON [%s] is not JSON-Array",
    5007: "JSON [%s:%s] is not JSON-Array",
    5008: "JONS [%s:%s] is not a Date. Error: %s",
    5009: "JSON [%s] is not a String",
    5010: "JSON [%s:%s] is not a String member",
    5011: "JSON [%s] is not a Boolean",
    5012: "JSON [%s:%s] is not a Boolean member",
    5013: "JSON [%s] is not a Number",
    5014: "JSON [%s:%s] is not a Number member",
    5015: "JSON failed to parse [%s]. %s: %s",
    5016: "JSON failed to parse [%s]: %s",
    5018: "JSON [%s:%s] is not an Enum member",
    5019: "JSON [%s] is not an Integer",
    5020: "JSON [%s] is not an IPv4 address",
    5021: "JSON [%s] is not an Enum",
    5022: "JSON [%s] is not a Float",
    5023: "JSON [%s] is not a Short",
    5024: "JSON [%s:%s] is not a Short member",
    5025: "JSON [%s] is not a Short",
    5026: "JSON [%s:%s] is not a Short member",
    5027: "JSON [%s] is not a Short",
    5028: "JSON [%s:%s] is not a Short member",
    5029: "JSON [%s] is not a String Array",
    5030: "JSON [%s:%s] is not a Float member",
    5031: "JSON [%s:%s] is not a IPv4 address member",
    5032: "JSON [%s] is not a UUID",
    5033: "JSON [%s:%s] is not a UUID member",
    6000: "XML [%s] has no member [%s]",
    6001: "XML [%s:%s] is not a element",
    6010: "XML [%s:%s] is not a String member",
    6020: "XML [%s] (Value '%s') is not a Int",
    6021: "XML [%s] (Value '%s') is not a Double",
}


class OpenemsError(Exception):
    """A named error: ``code`` of the table above, ``data`` the template's parameters (JSON values).

    >>> OpenemsError(BACKEND_EDGE_NOT_CONNECTED, "edge0").message
    'Edge [edge0] is not connected'
    """

    def __init__(self, code: int, *data: Any) -> None:
        super().__init__(code, *data)
        self.code = code
        self.data: list[Any] = list(data)

    @property
    def message(self) -> str:
        """The template filled with ``data``; surplus parameters stay in ``data`` only (wire.md 1.7)."""
        template = TEMPLATES[self.code]
        wanted = template.count("%s")
        texts = tuple(json_text(value) for value in self.data[:wanted])
        if len(texts) < wanted:
            texts += ("null",) * (wanted - len(texts))
        return template % texts

    def __str__(self) -> str:
        return self.message


def generic(text: str) -> OpenemsError:
    """The unnamed error, code 1, with free text (wire.md 1.8)."""
    return OpenemsError(GENERIC, text)


def from_peer(error: Any) -> OpenemsError:
    """Rebuild a peer's ``error`` object (wire.md 1.5, 1.7): code and data are kept, the text is made anew.

    An unknown code becomes code 1 with the peer's message. Unlike Java this always yields an error, so that a
    pending request is completed whatever the peer sent (wire.md 8, quirk 6).
    """
    if not isinstance(error, dict):
        return generic(f"Peer sent an invalid error: {short(json_text(error), 100)}")
    code = error.get("code")
    if isinstance(code, str) and code.lstrip("-").isdigit():
        code = int(code)
    message = error.get("message")
    data = error.get("data")
    if isinstance(code, int) and not isinstance(code, bool) and code != GENERIC and code in TEMPLATES:
        if isinstance(data, list) and len(data) >= TEMPLATES[code].count("%s"):
            return OpenemsError(code, *data)
    return generic(message if isinstance(message, str) else json_text(message))


def as_openems_error(failure: BaseException) -> OpenemsError:
    """Any exception as what a peer may see: named errors keep their code, the rest is code 1 (wire.md 1.8)."""
    if isinstance(failure, OpenemsError):
        return failure
    return generic(str(failure) or type(failure).__name__)


#: How requests end (metrics.md 15): ``denied`` is a matter of login or role, ``limited`` one of too many.
OUTCOMES = ("ok", "error", "timeout", "denied", "limited", "cancelled")
_DENIED = frozenset(
    {
        COMMON_USER_NOT_AUTHENTICATED,
        COMMON_ROLE_ACCESS_DENIED,
        COMMON_AUTHENTICATION_FAILED,
        COMMON_USER_UNDEFINED,
        COMMON_ROLE_UNDEFINED,
    }
)


def outcome(error: OpenemsError) -> str:
    """One of :data:`OUTCOMES` for a request that ends with this error."""
    if error.code in _DENIED:
        return "denied"
    if error.code == JSONRPC_TOO_MANY_REQUESTS:
        return "limited"
    return "timeout" if error.code == GENERIC and error.message.startswith("No answer ") else "error"


def json_text(value: Any) -> str:
    """``value`` as it stands in an error text: strings bare, everything else compact JSON."""
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError):
        return str(value)


def short(text: str, limit: int) -> str:
    """``text`` cut to ``limit - 3`` characters and ``...`` when longer than that (wire.md 2, "max 100")."""
    return text if len(text) <= limit - 3 else text[: limit - 3] + "..."


def printable(text: str) -> str:
    """A peer's text in a log line: no line break, nothing that a terminal would obey.

    >>> printable("edge0\\x1b[2J\\nok")
    'edge0\\\\x1b[2J\\\\nok'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
