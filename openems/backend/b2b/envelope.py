"""The body of a REST request: one JSON-RPC request whose ``jsonrpc`` and ``id`` may be missing (b2b.md 2.4). Pure.

What is added: ``id`` in the request, ``jsonrpc`` and ``id`` in ``params.payload``; no deeper. Everything else of
``params`` keeps its bytes. Unlike the Java program, which reads JavaScript-like text too, JSON is JSON: an error tells
line and column.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
from msgspec import UNSET, Raw, UnsetType

from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError, generic, short
from openems.common.jsonrpc import NIL_ID, Request, canonical_id, integer_of

_BOM = b"\xef\xbb\xbf"


class BadEnvelope(Exception):
    """``id`` is the request's own where it could be read, else the nil UUID."""

    def __init__(self, error: OpenemsError, id: str = NIL_ID) -> None:
        super().__init__(error.message)
        self.error = error
        self.id = id


_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def parse(body: bytes, new_id: Callable[[], str] = jsonrpc.new_id) -> Request:
    """Raises :class:`BadEnvelope`.

    >>> parse(b'{"method":"getEdgesStatus","params":{"edgeIds":[]}}', lambda: NIL_ID).method
    'getEdgesStatus'
    """
    body = body.removeprefix(_BOM)
    try:
        envelope = jsonrpc.decode_envelope(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise BadEnvelope(_reason(body)) from None
    # What the decoder skips and is passed on unread must be text, too.
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as e:
        raise BadEnvelope(generic(f"The body is no UTF-8 text (byte {e.start})")) from None
    request_id = None
    try:
        if envelope.id is not UNSET:
            request_id = _id(envelope.id)
            if request_id is None:
                raise OpenemsError(errors.JSON_NO_UUID_MEMBER, "id", _text(body))
        return _request(envelope, body, request_id, new_id)
    except OpenemsError as e:
        raise BadEnvelope(e, request_id or NIL_ID) from None
    except ValueError as e:
        # A number of thousands of digits.
        raise BadEnvelope(OpenemsError(errors.JSON_PARSE_FAILED, str(e), _text(body)), request_id or NIL_ID) from None


def _request(envelope: jsonrpc.Envelope, body: bytes, request_id: str | None, new_id: Callable[[], str]) -> Request:
    if envelope.method is UNSET:
        if envelope.result is not UNSET or envelope.error is not UNSET:
            raise generic("Only JSON-RPC Request is supported here.")
        raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "method", _text(body))
    method = jsonrpc.loads(envelope.method)
    if not isinstance(method, str):
        raise OpenemsError(errors.JSON_NO_STRING_MEMBER, "method", _text(body))
    if envelope.params is UNSET or not bytes(envelope.params).startswith(b"{"):
        raise OpenemsError(errors.JSON_NO_OBJECT_MEMBER, "params", _text(body))
    params = envelope.params
    if b'"payload"' in bytes(params):
        params = _with_payload(params, new_id)
    return Request(method, params, request_id or new_id(), _timeout(envelope.timeout, body))


def _timeout(member: Raw | UnsetType, body: bytes) -> int | None:
    """Whoever names a time wants it kept: what is none is an error, where the Java program ignores it."""
    value = None if member is UNSET else jsonrpc.loads(member)  # type: ignore[arg-type]
    if value is None:
        return None
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    timeout = integer_of(value) if whole else None
    if timeout is None:
        raise OpenemsError(errors.JSON_NO_INTEGER_MEMBER, "timeout", _text(body))
    return timeout


def _with_payload(params: Raw, new_id: Callable[[], str]) -> Raw:
    """``params`` with what is missing in its ``payload`` added."""
    members = _members(params)
    payload = members.get("payload")
    if payload is None:
        return params
    if not bytes(payload).startswith(b"{"):
        raise OpenemsError(errors.JSON_NO_OBJECT_MEMBER, "payload", _text(bytes(params)))
    inner = _members(payload)
    added = []
    if "jsonrpc" not in inner:
        added.append(b'"jsonrpc":"2.0"')
    if "id" not in inner:
        added.append(b'"id":"%b"' % new_id().encode())
    if not added:
        return params
    rest = bytes(payload)[1:].lstrip(b" \t\r\n")
    if rest != b"}":
        added.append(rest)
        members["payload"] = Raw(b"{" + b",".join(added))
    else:
        members["payload"] = Raw(b"{" + b",".join(added) + b"}")
    return jsonrpc.raw(members)


def _members(text: Raw) -> dict[str, Raw]:
    try:
        return _decode_members(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as e:
        raise OpenemsError(errors.JSON_PARSE_FAILED, str(e), _text(bytes(text))) from None


def _id(member: Raw) -> str | None:
    value = jsonrpc.loads(member)
    return canonical_id(value) if isinstance(value, str) else None


def _reason(body: bytes) -> OpenemsError:
    """Why this is no JSON object."""
    if not body.strip():
        return OpenemsError(errors.JSON_NO_OBJECT, "null")
    try:
        text = body.decode()
    except UnicodeDecodeError as e:
        return generic(f"The body is no UTF-8 text (byte {e.start})")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        return generic("The body is nested too deeply")
    except json.JSONDecodeError as e:
        where = f"{e.msg} at line {e.lineno} column {e.colno}"
        return OpenemsError(errors.JSON_PARSE_FAILED, where, short(text, 100))
    except ValueError as e:
        return OpenemsError(errors.JSON_PARSE_FAILED, str(e), short(text, 100))
    if isinstance(value, list) and value and all(isinstance(element, dict) for element in value):
        return generic("Batches are not supported: send one request at a time")
    if isinstance(value, dict):  # msgspec saw more than the standard library
        return OpenemsError(errors.JSON_PARSE_FAILED, "no valid JSON", short(text, 100))
    return OpenemsError(errors.JSON_NO_OBJECT, short(text, 100))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _text(body: bytes) -> str:
    return short(body.decode("utf-8", "replace"), 200)
