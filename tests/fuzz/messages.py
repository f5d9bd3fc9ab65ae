"""Messages no honest peer sends, made from those that honest peers sent. Seeded: the same seed, the same messages."""

from __future__ import annotations

import copy
import json
import random
import uuid
from collections.abc import Callable
from typing import Any

from tests.captures import recording

_LONGEST = 3_000
_STRANGE: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: None,
    lambda r: r.choice((True, False)),
    lambda r: r.choice((0, -1, 1, 2**31, -(2**31) - 1, 2**53 + 1, 2**63, 10**40, 0.5, -0.0, 1e308, 1e-320)),
    lambda r: r.choice(
        ("", " ", "null", "true", "0", "-1", "٣", "\x00", "\ud83d\ude00", "edge0", "a/b", "_sum/EssSoc")
    ),
    lambda r: "x" * r.choice((1, 255, 256, 1000, 5000)),
    lambda r: [],
    lambda r: {},
    lambda r: [None] * r.choice((1, 100)),
    lambda r: {str(n): n for n in range(r.choice((1, 50)))},
    lambda r: _nested(r.choice((2, 30, 200))),
    lambda r: "Europe/Berlin' OR 1=1 --",
    lambda r: r.choice(("2026-02-30", "0000-00-00", "9999-12-31", "2026-11-25", "-1-1-1")),
    lambda r: str(uuid.UUID(int=r.getrandbits(128))),
    lambda r: r.choice(("getEdge", "edgeRpc", "authenticatedRpc", "subscribeChannels", "timestampedData", "__class__")),
)


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def corpus(name: str, connection: Any) -> list[dict[str, Any]]:
    """What one side said in a recording, one message of a kind and size; long ones are left out."""
    found: dict[Any, dict[str, Any]] = {}
    for text in recording.texts(name, connection, "c>s"):
        if len(text) > _LONGEST:
            continue
        try:
            message = json.loads(text)
        except ValueError:
            continue
        if isinstance(message, dict):
            inner = message.get("params", {})
            payload = inner.get("payload") if isinstance(inner, dict) else None
            kind = (
                message.get("method"),
                payload.get("method") if isinstance(payload, dict) else None,
                len(text) // 200,
            )
            found.setdefault(kind, message)
    return list(found.values())


class Mutator:
    def __init__(self, seed: int, messages: list[dict[str, Any]]) -> None:
        self.random = random.Random(seed)
        self._messages = messages

    def message(self) -> bytes:
        """Most are JSON objects with some members wrong; some are honest, some are no JSON."""
        r = self.random
        message = copy.deepcopy(r.choice(self._messages))
        self._new_ids(message)
        for _ in range(r.choice((0, 1, 1, 1, 2, 4))):
            message = self._change(message)
        text = json.dumps(message, ensure_ascii=r.random() < 0.5).encode("utf-8", "surrogatepass")
        if r.random() < 0.1:
            text = self._spoil(text)
        return text

    def _new_ids(self, message: Any) -> None:
        if isinstance(message, dict):
            if isinstance(message.get("id"), str) and len(message["id"]) == 36:
                message["id"] = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
            for value in message.values():
                self._new_ids(value)

    def _change(self, message: Any) -> Any:
        r = self.random
        places = list(_places(message))
        if not places:
            return r.choice(_STRANGE)(r)
        container, key = r.choice(places)
        way = r.random()
        if way < 0.2:
            del container[key]
        elif way < 0.3 and isinstance(container, dict):
            container[r.choice((f"{key}x", str(key).upper(), "id", "jsonrpc", "params", ""))] = container.pop(key)
        elif way < 0.4:
            container[key] = copy.deepcopy(r.choice(places)[0]) if len(places) < 300 else None
        else:
            container[key] = r.choice(_STRANGE)(r)
        return message

    def _spoil(self, text: bytes) -> bytes:
        r = self.random
        if not text:
            return b"\xff"
        at = r.randrange(len(text))
        way = r.randrange(5)
        if way == 0:
            return text[:at]
        if way == 1:
            return text[:at] + bytes([r.randrange(256)]) + text[at + 1 :]
        if way == 2:
            return text + text[at:]
        if way == 3:
            return text.replace(b'"', b"'")
        return text[:at] + r.choice((b"NaN", b"Infinity", b"\xc3\x28", b",", b"{", b"\\u", b"//")) + text[at:]


def _places(value: Any) -> Any:
    """Every (container, key) below."""
    stack = [value]
    while stack:
        current = stack.pop()
        items = (
            current.items() if isinstance(current, dict) else enumerate(current) if isinstance(current, list) else ()
        )
        for key, inner in items:
            yield current, key
            if isinstance(inner, dict | list):
                stack.append(inner)
