"""Live values over a restart of the backend, of edges whose edge application stays connected to them meanwhile.

Such an edge does not notice and goes on to send only what changes; the values that do not change would be missing until
its next full set, up to five minutes later. So an ordered stop writes them to a file and the next start reads it, once.
What changed meanwhile comes from the edge application, which has kept it. Values older than the longest gap that live
values outlive (cache.py) are not taken over, and what no edge application asked for soon after the start is forgotten.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from twisted.logger import Logger

from openems.backend.edge.cache import GAP, EdgeCache
from openems.common.data import Value

#: Seconds after the start in which edge applications come back.
PATIENCE = 120.0
#: Of the file: with more edges than that would need, some wait for their next full set.
MAX_BYTES = 1 << 28


class _Edge(msgspec.Struct, array_like=True):
    timestamp: int
    values: dict[str, Value]
    aggregated_timestamp: int
    aggregated: dict[str, Value]


class _File(msgspec.Struct, array_like=True):
    #: Epoch ms.
    saved_at: int
    #: Not decoded before the edge is there.
    edges: dict[str, msgspec.Raw]


class KeptValues:
    """``now`` gives epoch milliseconds. No method raises: without the file it is as if nothing had been kept."""

    _log = Logger()

    def __init__(self, path: str, *, reactor: Any, now: Callable[[], int], max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._reactor = reactor
        self._now = now
        self._max_bytes = max_bytes
        self._edges: dict[str, msgspec.Raw] = {}
        self._forget: Any = None

    def save(self, caches: Mapping[str, EdgeCache]) -> None:
        """Edge id -> what is known of it; beside these, what the last run left and nobody has asked for yet."""
        encode = msgspec.msgpack.Encoder().encode
        edges = dict(self._edges)
        self.close()
        size = sum(map(len, edges.values()))
        for edge_id, cache in caches.items():
            current, aggregated = cache.current, cache.aggregated
            try:
                data = encode(_Edge(current.timestamp, current.values, aggregated.timestamp, aggregated.values))
            except (OverflowError, UnicodeEncodeError):
                continue  # a number or text that no file can hold
            size += len(data)
            if size > self._max_bytes:
                break
            edges[edge_id] = msgspec.Raw(data)
        if not edges:
            return
        temporary = f"{self._path}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(encode(_File(self._now(), edges)))
            os.replace(temporary, self._path)
        except OSError as error:
            self._log.warn("live values are not kept over the restart: {error}", error=str(error))

    def load(self) -> None:
        """Reads the file and removes it: a second start has nothing of it."""
        try:
            with open(self._path, "rb") as file:
                data = file.read()
            os.unlink(self._path)
            found = msgspec.msgpack.decode(data, type=_File)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as error:
            self._log.warn("live values of the last run are not taken over: {error}", error=str(error))
            return
        if 0 <= self._now() - found.saved_at < GAP:
            self._edges = found.edges
            self._forget = self._reactor.callLater(PATIENCE, self._edges.clear)

    def restore(self, edge_id: str, cache: EdgeCache) -> None:
        """Fills the (empty) cache with what is kept of the edge, if anything is."""
        data = self._edges.pop(edge_id, None)
        if data is None:
            return
        try:
            edge = msgspec.msgpack.decode(data, type=_Edge)
        except msgspec.DecodeError:
            return
        cache.current.restore(edge.timestamp, _shared(edge.values))
        cache.aggregated.restore(edge.aggregated_timestamp, _shared(edge.aggregated))

    def close(self) -> None:
        self._edges.clear()
        if self._forget is not None and self._forget.active():
            self._forget.cancel()


def _shared(values: dict[str, Value]) -> dict[str, Value]:
    """Edges have mostly the same channels: one text for all of them."""
    return {sys.intern(channel): value for channel, value in values.items()}
