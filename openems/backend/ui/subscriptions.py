"""Who watches what, and the pushes that follow from it (ui.md 10).

Rules
- ``subscribeEdges`` and ``subscribeChannels`` come in any order; each replaces what was there before. Values of an
  edge are pushed to a watcher that has both (ui.md 10.3), and at once when the second of the two comes (ui.md 19, 25).
- One push for a data notification and watcher, with *all* channels of the watcher's set, in ascending order.
- Watchers with equal sets share one encoding: the index groups them by set, so that the hot path neither searches nor
  compares.
- A watcher whose connection has more than ``slow`` bytes waiting gets no push: the newer one would only queue behind
  the older. It is remembered as behind, counted, and gets the values of that later moment once it reads again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import orjson

from openems.common import jsonrpc
from openems.common.data import Value
from openems.websocket.connected import SLOW, Connected


class Values(Protocol):
    """What is needed of :class:`openems.backend.interfaces.IEdgeManager`."""

    def get_channel_values(self, edge_id: str, channels: Sequence[str]) -> dict[str, Value]: ...
    def is_connected(self, edge_id: str) -> bool: ...


class Watcher:
    """One session's subscriptions; changed through :class:`Subscriptions` only."""

    __slots__ = ("channels", "connection", "edges")

    def __init__(self, connection: Connected) -> None:
        self.connection = connection
        self.edges: frozenset[str] = frozenset()
        #: edge id -> its channels, ascending, without duplicates, never empty
        self.channels: dict[str, tuple[str, ...]] = {}


class _WatchedEdge:
    """``groups``: channels -> the watchers that have exactly these; ``watchers``: all, in order of their coming."""

    __slots__ = ("groups", "prefix", "watchers")

    def __init__(self, edge_id: str) -> None:
        self.prefix = _prefix(edge_id, "currentData")
        self.watchers: dict[Watcher, None] = {}
        self.groups: dict[tuple[str, ...], dict[Watcher, None]] = {}

    def join(self, watcher: Watcher, channels: tuple[str, ...]) -> None:
        self.groups.setdefault(channels, {})[watcher] = None

    def leave(self, watcher: Watcher, channels: tuple[str, ...]) -> None:
        group = self.groups.get(channels)
        if group is not None:
            group.pop(watcher, None)
            if not group:
                del self.groups[channels]


class Subscriptions:
    """The index of all sessions' subscriptions, edge -> channels -> watchers."""

    def __init__(self, values: Values, *, slow: int = SLOW) -> None:
        self._values = values
        self._slow = slow
        self._edges: dict[str, _WatchedEdge] = {}
        self._behind: dict[tuple[Watcher, str], None] = {}
        #: Pushes sent, texts encoded for them, and pushes superseded by newer ones because the reader was slow.
        self.pushed = 0
        self.encoded = 0
        self.superseded = 0

    def __len__(self) -> int:
        """Edges with at least one watcher."""
        return len(self._edges)

    # --- changes

    def set_edges(self, watcher: Watcher, edges: frozenset[str]) -> None:
        """subscribeEdges: the set replaces the old one; present values of edges that are new in it are pushed."""
        added = edges - watcher.edges
        for edge_id in watcher.edges - edges:
            self._leave(watcher, edge_id)
        watcher.edges = edges
        for edge_id in added:
            entry = self._edges.get(edge_id)
            if entry is None:
                entry = self._edges[edge_id] = _WatchedEdge(edge_id)
            entry.watchers[watcher] = None
            channels = watcher.channels.get(edge_id)
            if channels:
                entry.join(watcher, channels)
        for edge_id in sorted(added):
            self.push_to(watcher, edge_id)

    def set_channels(self, watcher: Watcher, edge_id: str, channels: Sequence[str]) -> None:
        """subscribeChannels: the set replaces the old one of that edge, an empty one ends it; present values are
        pushed."""
        entry = self._edges.get(edge_id) if edge_id in watcher.edges else None
        old = watcher.channels.pop(edge_id, None)
        if entry is not None and old is not None:
            entry.leave(watcher, old)
        # Names come from JSON, each a text of its own: with thousands of them a session, one of each is enough.
        new = tuple(map(sys.intern, sorted(set(channels))))
        if not new:
            self._behind.pop((watcher, edge_id), None)
            return
        watcher.channels[edge_id] = new
        if entry is not None:
            entry.join(watcher, new)
            self.push_to(watcher, edge_id)

    def remove(self, watcher: Watcher) -> None:
        """The session ended or logged out."""
        for edge_id in watcher.edges:
            self._leave(watcher, edge_id)
        watcher.edges = frozenset()
        watcher.channels.clear()

    def _leave(self, watcher: Watcher, edge_id: str) -> None:
        self._behind.pop((watcher, edge_id), None)
        entry = self._edges[edge_id]
        entry.watchers.pop(watcher, None)
        channels = watcher.channels.get(edge_id)
        if channels:
            entry.leave(watcher, channels)
        if not entry.watchers:
            del self._edges[edge_id]

    # --- pushes

    def watchers(self, edge_id: str) -> tuple[Watcher, ...]:
        """All that have the edge in their set."""
        entry = self._edges.get(edge_id)
        return () if entry is None else tuple(entry.watchers)

    def push(self, edge_id: str) -> None:
        """New values of the edge: the hot path."""
        entry = self._edges.get(edge_id)
        if entry is None or not entry.groups:
            return
        # Sending may end a connection and with it change the index: walk over copies.
        for channels, group in tuple(entry.groups.items()):
            text = None
            for watcher in tuple(group):
                connection = watcher.connection
                if connection.waiting > self._slow:
                    self.superseded += 1
                    self._behind[watcher, edge_id] = None
                    continue
                if text is None:
                    text = self._encode(entry, edge_id, channels)
                connection.send(text)
                self.pushed += 1
                if self._behind:
                    self._behind.pop((watcher, edge_id), None)

    def push_to(self, watcher: Watcher, edge_id: str) -> None:
        """Present values to one watcher; nothing if it does not watch the edge or the edge is not connected."""
        channels = watcher.channels.get(edge_id)
        entry = self._edges.get(edge_id)
        if not channels or entry is None or edge_id not in watcher.edges or not self._values.is_connected(edge_id):
            return
        if watcher.connection.waiting > self._slow:
            self.superseded += 1
            self._behind[watcher, edge_id] = None
            return
        self._behind.pop((watcher, edge_id), None)
        watcher.connection.send(self._encode(entry, edge_id, channels))
        self.pushed += 1

    def catch_up(self) -> None:
        """Called about once a second: watchers that were behind and read again get the values of now."""
        for watcher, edge_id in tuple(self._behind):
            if watcher.connection.waiting <= self._slow:
                self._behind.pop((watcher, edge_id), None)
                self.push_to(watcher, edge_id)

    def _encode(self, entry: _WatchedEdge, edge_id: str, channels: tuple[str, ...]) -> bytes:
        self.encoded += 1
        return entry.prefix + _dumps(self._values.get_channel_values(edge_id, channels)) + b"}}}"


def edge_rpc(edge_id: str, notification: jsonrpc.Notification) -> bytes:
    """``notification`` in its ``edgeRpc`` envelope, params verbatim (ui.md 14, reality.md R1)."""
    return _prefix(edge_id, notification.method) + bytes(notification.params) + b"}}}"


def _prefix(edge_id: str, method: str) -> bytes:
    return (
        b'{"jsonrpc":"2.0","method":"edgeRpc","params":{"edgeId":%b,'
        b'"payload":{"jsonrpc":"2.0","method":%b,"params":' % (jsonrpc.dumps(edge_id), jsonrpc.dumps(method))
    )


def _dumps(values: dict[str, Any]) -> bytes:
    try:
        data = orjson.dumps(values)
    except TypeError:
        # An integer beyond 64 bits: slower, but the peer gets the number as it is.
        data = json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data
