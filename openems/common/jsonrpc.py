"""The JSON-RPC dialect of OpenEMS (wire.md 1): four kinds of messages, how they are told apart, how they are written.

``params`` and ``result`` stay undecoded (:class:`msgspec.Raw`), so that what is only passed on keeps its bytes: number
texts, member order and unknown members included. Whoever needs the content opens it with :class:`Members`.

A message that is not valid raises :class:`Malformed`; it gets no reply and costs the peer nothing else (wire.md 1.6).
"""

from __future__ import annotations

import datetime
import json
import re
import uuid
from typing import Any

import msgspec
import orjson
from msgspec import UNSET, Raw, UnsetType

from openems.common import errors
from openems.common.errors import OpenemsError, generic, json_text, short

NIL_ID = "00000000-0000-0000-0000-000000000000"
EMPTY = Raw(b"{}")

_UUID = re.compile(r"([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]+)-([0-9a-f]+)\Z", re.IGNORECASE)
_UUID_WIDTHS = (8, 4, 4, 4, 12)
_INTEGER_TEXT = re.compile(r"[+-]?[0-9]+\Z")


class Malformed(Exception):
    """A text that is no message of the dialect; ``reason`` is the OpenEMS error the Java program would log."""

    def __init__(self, reason: OpenemsError) -> None:
        super().__init__(reason.message)
        self.reason = reason


class Request(msgspec.Struct, frozen=True):
    """``params`` is a JSON object. ``timeout`` in seconds limits the receiver's own work (wire.md 1.4)."""

    method: str
    params: Raw
    id: str
    timeout: int | None = None

    def encode(self) -> bytes:
        tail = f',"timeout":{self.timeout}'.encode() if self.timeout is not None else b""
        return b'{"jsonrpc":"2.0","method":%b,"params":%b,"id":"%b"%b}' % (
            dumps(self.method),
            bytes(self.params),
            self.id.encode(),
            tail,
        )

    def members(self) -> Members:
        return Members(self.params)


class Notification(msgspec.Struct, frozen=True):
    method: str
    params: Raw

    def encode(self) -> bytes:
        return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (dumps(self.method), bytes(self.params))

    def members(self) -> Members:
        return Members(self.params)


class Success(msgspec.Struct, frozen=True):
    id: str
    result: Raw

    def encode(self) -> bytes:
        return b'{"jsonrpc":"2.0","id":"%b","result":%b}' % (self.id.encode(), bytes(self.result))

    def members(self) -> Members:
        return Members(self.result)


class Failed(msgspec.Struct, frozen=True):
    """An error response."""

    id: str
    error: OpenemsError

    def encode(self) -> bytes:
        body = {"code": self.error.code, "message": self.error.message, "data": self.error.data}
        return b'{"jsonrpc":"2.0","id":"%b","error":%b}' % (self.id.encode(), dumps(body))


Message = Request | Notification | Success | Failed


class Envelope(msgspec.Struct):
    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    timeout: Raw | UnsetType = UNSET


decode_envelope = msgspec.json.Decoder(Envelope).decode


def parse(text: bytes | str) -> Message:
    """Classify one text (wire.md 1.2). Raises :class:`Malformed`."""
    data = text.encode() if isinstance(text, str) else text
    try:
        envelope = decode_envelope(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        data = _lenient(data)
        try:
            envelope = decode_envelope(data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
            raise Malformed(OpenemsError(errors.JSON_PARSE_FAILED, str(e), _excerpt(data))) from None
    try:
        return _classify(envelope, data)
    except OpenemsError as e:
        raise Malformed(e) from None
    except ValueError as e:
        # A member that was skipped at first is no JSON after all, as a text with half a surrogate pair.
        raise Malformed(OpenemsError(errors.JSON_PARSE_FAILED, str(e), _excerpt(data))) from None


def request_of(raw: Raw | bytes, *, id_optional: bool = False) -> Request:
    """The complete request nested in a ``payload`` (wire.md 1.5).

    Raises an :class:`OpenemsError` that names what is wrong. ``id_optional``: a missing or invalid id becomes the nil
    UUID, as ``componentJsonApi`` allows.
    """
    members = Members(raw)
    if id_optional:
        text = members.value("id")
        request_id = (canonical_id(text) if isinstance(text, str) else None) or NIL_ID
    else:
        request_id = members.uuid("id")
    return Request(
        members.string("method"), members.raw_object("params"), request_id, _timeout(members.value("timeout"))
    )


def notification_of(raw: Raw | bytes) -> Notification:
    """The notification nested in a ``payload``. Raises :class:`OpenemsError`."""
    members = Members(raw)
    return Notification(members.string("method"), members.raw_object("params"))


def canonical_id(text: str) -> str | None:
    """A UUID in Java's lenient syntax as its canonical lower-case text, or None (wire.md 1.3).

    >>> canonical_id("1-1-1-1-1")
    '00000001-0001-0001-0001-000000000001'
    """
    match = _UUID.match(text)
    if match is None or len(text) > 36:
        return None
    groups = match.groups()
    if any(len(group) > width for group, width in zip(groups, _UUID_WIDTHS, strict=True)):
        return None
    return "-".join(group.rjust(width, "0") for group, width in zip(groups, _UUID_WIDTHS, strict=True)).lower()


def new_id() -> str:
    return str(uuid.uuid4())


def dumps(value: Any) -> bytes:
    """Compact JSON (wire.md 4.1). Raw members and Structs are written as they are; NaN and infinity become null."""
    data = msgspec.json.encode(value)
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data


def raw(value: Any) -> Raw:
    """``value`` as undecoded JSON, ready to be a ``params`` or ``result``."""
    return value if isinstance(value, Raw) else Raw(dumps(value))


def loads(data: bytes | bytearray | memoryview | str | Raw) -> Any:
    """Decode JSON as leniently as the peers need: a bare NaN or Infinity becomes its text (reality.md R3), half a
    surrogate pair a question mark, so that what comes back can be written again.

    Raises ValueError.
    """
    if isinstance(data, Raw):
        data = bytes(data)
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        text = data if isinstance(data, str) else bytes(data).decode("utf-8", "strict")
        try:
            value = json.loads(text, parse_constant=lambda name: name)
            if "\\u" not in text:
                return value
            return json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        except RecursionError:
            raise ValueError("nested too deeply") from None
        except (json.JSONDecodeError, UnicodeError):
            raise
        except ValueError:
            # Python's own text tells a stranger how to set up Python.
            raise ValueError("a number has too many digits") from None


def qualified_method(message: Request | Notification) -> str:
    """``method`` followed by the methods of nested payloads, joined by ``/`` (wire.md 1.10)."""
    names = [message.method]
    try:
        params = loads(message.params)
    except ValueError:
        return message.method
    payload = params.get("payload") if isinstance(params, dict) else None
    while isinstance(payload, dict) and isinstance(payload.get("method"), str):
        names.append(payload["method"])
        inner = payload.get("params")
        payload = inner.get("payload") if isinstance(inner, dict) else None
    return "/".join(names)


_SECRETS = frozenset(
    {
        "password",
        "token",
        "refreshToken",
        "accessToken",
        "code",
        "codeVerifier",
        "setupPassword",
        "apikey",
        "confirmPassword",
        "key",
    }
)


def simplified(message: Request | Notification, limit: int = 200) -> str:
    """The short form for log lines: no ids, secrets at every level replaced by ``HIDDEN`` (wire.md 1.10)."""
    try:
        params = loads(message.params)
    except ValueError:
        params = None
    body: dict[str, Any] = {"method": message.method, "params": _hide(params)}
    if isinstance(message, Request) and message.timeout is not None:
        body["timeout"] = message.timeout
    return short(json_text(body), limit)


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "HIDDEN" if name in _SECRETS and not isinstance(member, dict | list) else _hide(member)
            for name, member in value.items()
            if name not in ("jsonrpc", "id")
        }
    if isinstance(value, list):
        return [_hide(element) for element in value]
    return value


class Members:
    """The members of a JSON object, read by the lenient rules of wire.md 4.2; each reader names its error code.

    >>> Members(b'{"page":"3"}').integer("page")
    3
    """

    def __init__(self, source: Raw | bytes | dict[str, Any]) -> None:
        self._raw = None if isinstance(source, dict) else bytes(source)
        value = source if isinstance(source, dict) else _loads_or_error(self._raw or b"null")
        if not isinstance(value, dict):
            raise OpenemsError(errors.JSON_NO_OBJECT, _excerpt(self._raw or dumps(value)))
        self._values: dict[str, Any] = value

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def as_dict(self) -> dict[str, Any]:
        return self._values

    def value(self, name: str, default: Any = None) -> Any:
        """The decoded member, or ``default`` where it is absent or null."""
        value = self._values.get(name)
        return default if value is None else value

    def any(self, name: str) -> Any:
        """``any!``: present, null allowed; else 5000."""
        if name not in self._values:
            raise OpenemsError(errors.JSON_HAS_NO_MEMBER, name, self._text(100))
        return self._values[name]

    def string(self, name: str) -> str:
        """``str!``; else 5010."""
        value = self._values.get(name)
        if not isinstance(value, str):
            raise OpenemsError(errors.JSON_NO_STRING_MEMBER, name, self._text())
        return value

    def optional_string(self, name: str) -> str | None:
        value = self._values.get(name)
        return value if isinstance(value, str) else None

    def integer(self, name: str, *, bits: int = 32) -> int:
        """``int!`` or, with ``bits=64``, ``long!``: a number (fraction cut off) or a string of digits; else 5001, 5026.

        A number that does not fit is refused, where Java wraps it (wire.md 8, quirk 24).
        """
        number = integer_of(self._values.get(name), bits)
        if number is None:
            code = errors.JSON_NO_INTEGER_MEMBER if bits == 32 else errors.JSON_NO_LONG_MEMBER
            raise OpenemsError(code, name, self._text())
        return number

    def optional_integer(self, name: str) -> int | None:
        return integer_of(self._values.get(name), 32)

    def boolean(self, name: str) -> bool:
        """``bool!``: a boolean or ``true``/``false`` in any case; else 5012."""
        flag = boolean_of(self._values.get(name))
        if flag is None:
            raise OpenemsError(errors.JSON_NO_BOOLEAN_MEMBER, name, self._text())
        return flag

    def optional_boolean(self, name: str) -> bool | None:
        return boolean_of(self._values.get(name))

    def object(self, name: str) -> dict[str, Any]:
        """``obj!``; else 5003."""
        value = self._values.get(name)
        if not isinstance(value, dict):
            raise OpenemsError(errors.JSON_NO_OBJECT_MEMBER, name, self._text(100))
        return value

    def raw_object(self, name: str) -> Raw:
        """``obj!`` with its own bytes, to be passed on; else 5003."""
        value = self.object(name)
        if self._raw is None:
            return raw(value)
        member = _raw_members(self._raw).get(name)
        return raw(value) if member is None else member

    def array(self, name: str) -> list[Any]:
        """``arr!``; else 5007."""
        value = self._values.get(name)
        if not isinstance(value, list):
            raise OpenemsError(errors.JSON_NO_ARRAY_MEMBER, name, self._text())
        return value

    def strings(self, name: str) -> list[str]:
        """``arr!`` of strings; else 5007, an element 5009."""
        elements = self.array(name)
        for element in elements:
            if not isinstance(element, str):
                raise OpenemsError(errors.JSON_NO_STRING, json_text(element))
        return elements

    def primitive(self, name: str) -> str | int | float | bool:
        """``prim!``: string, number or boolean; else 5005."""
        value = self._values.get(name)
        if value is None or isinstance(value, dict | list):
            raise OpenemsError(errors.JSON_NO_PRIMITIVE_MEMBER, name, self._text())
        return value  # type: ignore[no-any-return]

    def uuid(self, name: str) -> str:
        """``uuid!`` in canonical form; else 5033."""
        value = self._values.get(name)
        canonical = canonical_id(value) if isinstance(value, str) else None
        if canonical is None:
            raise OpenemsError(errors.JSON_NO_UUID_MEMBER, name, self._text())
        return canonical

    def request(self, name: str = "payload", *, id_optional: bool = False) -> Request:
        """``req!``: a complete nested request; the codes of its members."""
        return request_of(self.raw_object(name), id_optional=id_optional)

    def date(self, name: str) -> datetime.date:
        """``date!``: ``Y-M-D``; not a string 5010, not three integers 5008, no such day code 1 (wire.md 4.2)."""
        text = self.string(name)
        parts = text.split("-")
        try:
            year, month, day = (int(part) for part in parts[:3])
        except ValueError:
            # Read part by part: what is missing matters only where all before it are numbers.
            wrong = next((part for part in parts[:3] if integer_of(part) is None), None)
            reason = (
                f"Index {len(parts)} out of bounds for length {len(parts)}"
                if wrong is None
                else f'For input string: "{wrong}"'
            )
            raise OpenemsError(errors.JSON_NO_DATE_MEMBER, name, self._text(), reason) from None
        try:
            return datetime.date(year, month, day)
        except (ValueError, OverflowError):
            raise generic(f"Invalid date '{short(text, 40)}'") from None

    def _text(self, limit: int | None = None) -> str:
        return _excerpt(self._raw or dumps(self._values), limit)


def integer_of(value: Any, bits: int = 32) -> int | None:
    """``value`` by the rules of ``int!``, or None."""
    if isinstance(value, str) and _INTEGER_TEXT.match(value) and len(value) <= 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if value != value or value in (float("inf"), float("-inf")):
        return None
    number = int(value)
    return number if -(1 << (bits - 1)) <= number < 1 << (bits - 1) else None


def boolean_of(value: Any) -> bool | None:
    """``value`` by the rules of ``bool!``, or None."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _classify(envelope: Envelope, data: bytes) -> Message:
    # Raw is falsy-safe only by identity: an absent member is UNSET, an explicit null is Raw(b"null").
    if envelope.method is not UNSET and envelope.params is not UNSET:
        method = loads(envelope.method)
        if envelope.id is not UNSET:
            request_id = _request_id(envelope.id, data)
            _check_object(envelope.params, "params", data)
            if not isinstance(method, str):
                raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "method", _excerpt(data, None))
            timeout = None if envelope.timeout is UNSET else _timeout(loads(envelope.timeout))
            return Request(method, envelope.params, request_id, timeout)
        if not isinstance(method, str):
            raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "method", _excerpt(data, None))
        _check_object(envelope.params, "params", data)
        return Notification(method, envelope.params)
    if envelope.result is not UNSET:
        response_id = _response_id(envelope.id, data)
        _check_object(envelope.result, "result", data)
        return Success(response_id, envelope.result)
    if envelope.error is not UNSET:
        return Failed(_response_id(envelope.id, data), errors.from_peer(loads(envelope.error)))
    raise generic(f"JsonrpcMessage is not a valid Request, Result or Notification: {_excerpt(data, 200)}")


def _request_id(member: Raw, data: bytes) -> str:
    value = loads(member)
    canonical = canonical_id(value) if isinstance(value, str) else None
    if canonical is None:
        raise OpenemsError(errors.JSON_NO_UUID_MEMBER, "id", _excerpt(data, None))
    return canonical


def _response_id(member: Raw | UnsetType, data: bytes) -> str:
    value = None if member is UNSET else loads(member)  # type: ignore[arg-type]
    if not isinstance(value, str):
        raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "id", _excerpt(data, None))
    canonical = canonical_id(value)
    if canonical is None:
        raise generic(f"Invalid UUID string: {short(value, 100)}")
    return canonical


def _check_object(member: Raw, name: str, data: bytes) -> None:
    if bytes(member)[:1] != b"{":
        raise OpenemsError(errors.JSON_NO_OBJECT_MEMBER, name, _excerpt(data))


def _timeout(value: Any) -> int | None:
    return integer_of(value)


_decode_raw_members = msgspec.json.Decoder(dict[str, Raw]).decode


def _raw_members(data: bytes) -> dict[str, Raw]:
    try:
        return _decode_raw_members(data)
    except msgspec.DecodeError:
        return {}


def _loads_or_error(data: bytes) -> Any:
    try:
        return loads(data)
    except ValueError as e:
        raise OpenemsError(errors.JSON_PARSE_FAILED, str(e), _excerpt(data)) from None


def _lenient(data: bytes) -> bytes:
    """``data`` re-written as strict JSON, for the bare NaN of an edge; raises Malformed for everything else."""
    if not data.strip():
        raise Malformed(OpenemsError(errors.JSON_NO_OBJECT, "null"))
    try:
        value = loads(data)
    except (ValueError, RecursionError) as e:
        raise Malformed(OpenemsError(errors.JSON_PARSE_FAILED, str(e), _excerpt(data))) from None
    if not isinstance(value, dict):
        raise Malformed(OpenemsError(errors.JSON_NO_OBJECT, _excerpt(data)))
    # Half a surrogate pair, which an escape can write, has no bytes in UTF-8: "?", as with the Java program.
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


#: A string, or the white space between tokens.
_SPACE = re.compile(rb'("(?:[^"\\]|\\.)*")|[ \t\r\n]+')


def _excerpt(data: bytes, limit: int | None = 100) -> str:
    """JSON as error texts quote it: without white space between its tokens."""
    text = _SPACE.sub(lambda match: match[1] or b"", data).decode("utf-8", "replace")
    return text if limit is None else short(text, limit)
