"""``edgeRpc`` put round an edge's message and taken off again (edge.md 2.6, 2.7). Pure.

What is only passed on is checked for being JSON, because a text is spliced into another one, and not decoded: number
texts, member order and unknown members inside ``params`` stay as they were sent.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Raw

from openems.common import errors, jsonrpc
from openems.common.errors import OpenemsError
from openems.common.jsonrpc import Members, Notification, Request, dumps

EDGE_RPC = "edgeRpc"
#: Bytes that wrapping adds to a message at most, beside the edge's id.
OVERHEAD = 200
_OPEN_BRACE = ord("{")


class _Plain(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Exactly the members of a notification: its text can be passed on as it is."""

    jsonrpc: Literal["2.0"]
    method: str
    params: Raw


_decode_plain = msgspec.json.Decoder(_Plain).decode


def head(edge_id: str) -> bytes:
    """What stands before the payload of a notification of this edge; behind it stands :data:`TAIL`."""
    return b'{"jsonrpc":"2.0","method":"edgeRpc","params":{"edgeId":%b,"payload":' % dumps(edge_id)


TAIL = b"}}"


def is_plain_notification(text: bytes) -> bool:
    """Whether the text can be spliced as it is: valid UTF-8, valid JSON, a notification and nothing else.

    What is not may still be a notification (other members, a bare NaN): it has to be read and written anew.
    """
    try:
        params = _decode_plain(text).params
        if not text.isascii():
            text.decode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return False
    return memoryview(params)[0] == _OPEN_BRACE


def is_message(text: bytes) -> bool:
    """Whether the text is any message of the dialect."""
    try:
        text.decode()
        jsonrpc.parse(text)
    except (jsonrpc.Malformed, UnicodeDecodeError):
        return False
    return True


def request(edge_id: str, payload: Request, request_id: str) -> bytes:
    """The text of ``edgeRpc`` round a request of an edge; its time-out stands outside, too."""
    params = b'{"edgeId":%b,"payload":%b}' % (dumps(edge_id), payload.encode())
    return Request(EDGE_RPC, Raw(params), request_id, payload.timeout).encode()


class _Success(msgspec.Struct, gc=False):
    result: Raw


class _Answer(msgspec.Struct, gc=False):
    payload: _Success


_decode_answer = msgspec.json.Decoder(_Answer).decode


def result_of_answer(result: Raw) -> Raw:
    """``result.payload.result`` of the manager's answer. Raises 5003 naming what is missing."""
    try:
        found = _decode_answer(result).payload.result
        if memoryview(found)[0] == _OPEN_BRACE:
            return found
    except (msgspec.DecodeError, RecursionError):
        pass
    return Members(Members(result).raw_object("payload")).raw_object("result")


def answer(payload_id: str, result: Raw) -> Raw:
    """The ``result`` of ``edgeRpc`` round the answer of an edge."""
    return Raw(b'{"payload":%b}' % jsonrpc.Success(payload_id, result).encode())


class _Envelope(msgspec.Struct, gc=False):
    edge_id: str = msgspec.field(name="edgeId")
    payload: Raw


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


def _envelope(params: Raw) -> tuple[str, Raw]:
    try:
        found = _decode_envelope(params)
    except (msgspec.DecodeError, RecursionError):
        members = Members(params)
        return members.string("edgeId"), members.raw_object("payload")
    return found.edge_id, found.payload


def request_for_edge(params: Raw) -> tuple[str, Request]:
    """Edge id and request of ``edgeRpc`` params. Raises an :class:`OpenemsError` that names what is wrong."""
    edge_id, payload = _envelope(params)
    try:
        message = jsonrpc.parse(bytes(payload))
    except jsonrpc.Malformed:
        message = jsonrpc.request_of(payload)
    return edge_id, message if isinstance(message, Request) else jsonrpc.request_of(payload)


def notification_for_edge(params: Raw) -> tuple[str, bytes]:
    """Edge id and text of the notification of ``edgeRpc`` params. Raises :class:`OpenemsError`."""
    edge_id, payload = _envelope(params)
    text = bytes(payload)
    if not is_plain_notification(text):
        text = jsonrpc.notification_of(payload).encode()
    return edge_id, text


class _Inner(msgspec.Struct, gc=False):
    timeout: int | None = None


class _Authenticated(msgspec.Struct, gc=False):
    payload: _Inner


_decode_authenticated = msgspec.json.Decoder(_Authenticated).decode


def longest_timeout(outer: int | None, payload: Request) -> int | None:
    """Seconds: the longest ``timeout`` that ``edgeRpc``, its payload or the user's own request names (wire.md 1.4)."""
    named = [outer, payload.timeout]
    if payload.method == "authenticatedRpc":
        try:
            named.append(_decode_authenticated(payload.params).payload.timeout)
        except (msgspec.DecodeError, RecursionError):
            pass
    positive = [seconds for seconds in named if seconds is not None and seconds > 0]
    return max(positive, default=None)


def apikeys(notification: Notification) -> dict[str, str]:
    """``apikey -> edge id`` of ``updateMetadataCache`` (edge.md 2.9). Raises :class:`OpenemsError`."""
    keys = notification.members().object("apikeysToEdgeIds")
    for edge_id in keys.values():
        if not isinstance(edge_id, str):
            raise OpenemsError(errors.JSON_NO_STRING, errors.json_text(edge_id))
    return keys
