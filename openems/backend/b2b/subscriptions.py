"""subscribeEdgesChannels: the values of many edges every two seconds (b2b.md 3.5).

Rules
- One subscription for a connection; a new one takes the place of the old. Without edges or without channels: none.
- Its values go out at once and then every ``PERIOD`` seconds, changed or not: every channel of every edge, ascending,
  null where nothing is known.
- Equal subscriptions are one group with one clock: their text is made once for all of them. Who joins a group that runs
  already gets the values at once and then with the others, so that his first two may be closer than ``PERIOD``.
- A connection with more than ``slow`` bytes waiting is skipped and counted; with the next run it gets what is then.
- A run that fails is logged, the next one comes (b2b.md 7, 14).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import orjson
from twisted.logger import Logger

from openems.common.data import Value
from openems.websocket.connected import SLOW, Connected

PERIOD = 2.0
#: Seconds for which a text is taken for the values of now.
FRESH = 0.1


_HEAD = b'{"jsonrpc":"2.0","method":"edgesCurrentData","params":'


class Values(Protocol):
    """What is needed of :class:`openems.backend.interfaces.IEdgeManager`."""

    def get_channel_values(self, edge_id: str, channels: Sequence[str]) -> dict[str, Value]: ...


class Content(NamedTuple):
    """Edges and channels, ascending, without duplicates."""

    edges: tuple[str, ...]
    channels: tuple[str, ...]

    @property
    def values(self) -> int:
        return len(self.edges) * len(self.channels)


class Group:
    """Those who watch the same."""

    __slots__ = ("_subscriptions", "_text", "_text_at", "content", "timer", "watchers")

    def __init__(self, subscriptions: Subscriptions, content: Content) -> None:
        self.content = content
        self.watchers: dict[Connected, None] = {}
        self.timer: Any = None
        self._subscriptions = subscriptions
        self._text = b""
        self._text_at = float("-inf")

    def text(self) -> bytes:
        subscriptions = self._subscriptions
        now = subscriptions.reactor.seconds()
        if now - self._text_at > FRESH:
            self._text = subscriptions.encode(self.content)
            self._text_at = now
        return self._text

    def run(self) -> None:
        self._subscriptions.run(self)


class Subscriptions:
    """All of one server."""

    _log = Logger()

    def __init__(self, values: Values, *, reactor: Any, slow: int = SLOW) -> None:
        self.reactor = reactor
        self._values = values
        self._slow = slow
        self._groups: dict[Content, Group] = {}
        self._of: dict[Connected, Group] = {}
        #: Texts sent, texts made for them, texts that slow readers did not get, runs that failed.
        self.pushed = 0
        self.encoded = 0
        self.skipped = 0
        self.failed = 0

    def __len__(self) -> int:
        """Connections with a subscription."""
        return len(self._of)

    @property
    def groups(self) -> int:
        return len(self._groups)

    @property
    def edges(self) -> int:
        """Those of all connections together."""
        return sum(len(group.content.edges) * len(group.watchers) for group in self._groups.values())

    def content(self, connection: Connected) -> Content | None:
        group = self._of.get(connection)
        return None if group is None else group.content

    def set(self, connection: Connected, content: Content) -> None:
        """From now on this, beginning at once."""
        self.remove(connection)
        if not content.values:
            return
        group = self._groups.get(content)
        if group is None:
            group = self._groups[content] = Group(self, content)
        self._of[connection] = group
        group.watchers[connection] = None
        if group.timer is None:
            self.run(group)
        else:
            self._push(group, (connection,))

    def remove(self, connection: Connected) -> None:
        group = self._of.pop(connection, None)
        if group is None:
            return
        del group.watchers[connection]
        if not group.watchers:
            del self._groups[group.content]
            if group.timer is not None:
                group.timer.cancel()
                group.timer = None

    def run(self, group: Group) -> None:
        group.timer = None
        self._push(group, tuple(group.watchers))
        # Sending may have ended connections, the last one of this group too, or started it anew.
        if group.watchers and group.timer is None:
            group.timer = self.reactor.callLater(PERIOD, group.run)

    def _push(self, group: Group, connections: tuple[Connected, ...]) -> None:
        try:
            for connection in connections:
                if connection.waiting > self._slow:
                    self.skipped += 1
                    continue
                if connection.send(group.text()):
                    self.pushed += 1
        except Exception:
            self.failed += 1
            self._log.failure("Backend2Backend.Websocket: values of {edges} edges", edges=len(group.content.edges))

    def encode(self, content: Content) -> bytes:
        self.encoded += 1
        channels = content.channels
        get = self._values.get_channel_values
        return _HEAD + _dumps({edge_id: get(edge_id, channels) for edge_id in content.edges}) + b"}"


def _dumps(values: dict[str, Any]) -> bytes:
    try:
        data = orjson.dumps(values)
    except TypeError:
        # An integer beyond 64 bits: slower, but the client gets the number as it is.
        data = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data
