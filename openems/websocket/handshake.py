"""The server's side of the opening handshake, as lenient as the Java servers (wire.md 3.2, 3.3). Pure.

Any path, query, Host, Origin, sub-protocol and extension is accepted and none is selected; ``Upgrade`` and
``Connection`` are not judged. What must be there: ``GET``, HTTP/1.1, version 13 and a key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping

import msgspec

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: A request head longer than this is refused before it is complete.
MAX_HEAD = 16 * 1024

_REFUSAL_BODY = (
    b"<!doctype html><html><head><title>WebSocket Upgrade Failure</title></head>"
    b"<body><h1>404 WebSocket Upgrade Failure</h1></body></html>"
)
REFUSAL = (
    b"HTTP/1.1 404 WebSocket Upgrade Failure\r\nContent-Type: text/html\r\nServer: openems-backend\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(_REFUSAL_BODY), _REFUSAL_BODY)
)
_BREAK = re.compile("[\r\n\0]")


class BadHandshake(Exception):
    """Not an upgrade this server accepts; answered with :data:`REFUSAL`."""


class Upgrade(msgspec.Struct, frozen=True):
    """``headers``: lower-case name -> trimmed value, duplicates joined by ``; ``. ``key``: Sec-WebSocket-Key."""

    headers: Mapping[str, str]
    key: str
    connection: str


def parse_upgrade(head: bytes) -> Upgrade:
    """``head``: everything up to the empty line. Raises :class:`BadHandshake`."""
    lines = head.decode("iso-8859-1").split("\r\n")
    request = lines[0].split(" ")
    if len(request) < 3 or request[0] != "GET" or request[-1] != "HTTP/1.1":
        raise BadHandshake("request line")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        if not line:
            continue
        name, colon, value = line.partition(":")
        # A lone line break would make two lines of one in the reply, which repeats a value, and in logs.
        if not colon or _BREAK.search(line):
            raise BadHandshake("header line")
        key = name.strip().lower()
        value = value.strip()
        headers[key] = f"{headers[key]}; {value}" if key in headers else value
    if headers.get("sec-websocket-version") != "13":
        raise BadHandshake("Sec-WebSocket-Version")
    websocket_key = headers.get("sec-websocket-key", "")
    if not websocket_key:
        raise BadHandshake("Sec-WebSocket-Key")
    return Upgrade(headers, websocket_key, headers.get("connection", "Upgrade"))


def accept(upgrade: Upgrade, date: str) -> bytes:
    """The 101 reply. ``date`` is an HTTP date."""
    digest = hashlib.sha1(upgrade.key.encode("iso-8859-1") + _MAGIC, usedforsecurity=False).digest()
    return (
        "HTTP/1.1 101 Web Socket Protocol Handshake\r\n"
        f"Connection: {upgrade.connection}\r\n"
        f"Date: {date}\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n"
        "Server: openems-backend\r\n"
        "Upgrade: websocket\r\n"
        "\r\n"
    ).encode("iso-8859-1")
