"""What waits to be sent to the manager: in order, bounded in bytes. Pure.

Rules
- Whatever goes to the manager goes through here, so nothing overtakes anything.
- While the manager takes what is sent, nothing waits: a frame is written at once.
- While it is slow, frames wait. Above :data:`PAUSE_ABOVE` an edge that brings more is not to be read from, above half
  of the bound none at all, until less than a quarter of :data:`PAUSE_ABOVE` waits. So a slow manager loses nothing.
- While it is away, the edges' notifications wait up to the bound; then the oldest are dropped, and counted. Requests,
  answers and lists of edges do not outlive a connection: the manager would not know what they belong to, and whoever
  asked was told that it failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

PAUSE_ABOVE = 4 * 1024 * 1024
#: What a frame costs beside its own bytes.
FRAME_COST = 100


class OfConnection(bytes):
    """A frame that makes sense on the present connection only."""


class ConnectedEdges(OfConnection):
    """The list of edges; there is never more than one in the queue."""


class Outbox:
    """``limit``: bytes that may wait. ``write(frame)`` writes to the manager, False if it cannot; it may call
    :meth:`stopped` meanwhile."""

    __slots__ = (
        "_frames",
        "_pause_above",
        "_write",
        "bytes",
        "dropped",
        "dropped_bytes",
        "flowing",
        "limit",
        "list_waits",
    )

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._pause_above = min(PAUSE_ABOVE, limit // 4)
        self.bytes = 0
        self.flowing = False
        self.list_waits = False
        #: Messages that were lost here; a list of edges is none, the next one says it all.
        self.dropped = 0
        self.dropped_bytes = 0
        self._frames: deque[bytes] = deque()
        self._write: Callable[[bytes], bool] | None = None

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def congested(self) -> bool:
        """The manager is there and slow: stop reading from whoever brought the last frame."""
        return self.bytes > self._pause_above and self._write is not None

    @property
    def choked(self) -> bool:
        """The manager is there and far too slow: stop reading from everybody, each brings only a little."""
        return self.bytes > self.limit // 2 and self._write is not None

    @property
    def relieved(self) -> bool:
        return self.bytes < self._pause_above // 4 or self._write is None

    def put(self, frame: bytes) -> None:
        if self.flowing and not self._frames and self._write is not None:
            if not self._write(frame):
                self._lose(frame)
            return
        self._frames.append(frame)
        self.bytes += len(frame) + FRAME_COST
        if isinstance(frame, ConnectedEdges):
            self.list_waits = True
        while self.bytes > self.limit and self._frames:
            self._drop_oldest()

    def opened(self, write: Callable[[bytes], bool]) -> None:
        """The manager is there: what waits is sent, as far as it takes it."""
        self._write = write
        self.flowing = True
        self._drain()

    def stopped(self) -> None:
        """The manager takes nothing for now."""
        self.flowing = False

    def resumed(self) -> None:
        if self._write is not None:
            self.flowing = True
            self._drain()

    def closed(self) -> None:
        """The manager is gone."""
        self._write = None
        self.flowing = False
        self.list_waits = False
        self._frames = deque(frame for frame in self._frames if not isinstance(frame, OfConnection))
        self.bytes = sum(map(len, self._frames)) + FRAME_COST * len(self._frames)

    def clear(self) -> None:
        """What still waits is lost."""
        while self._frames:
            self._drop_oldest()

    def _drain(self) -> None:
        frames = self._frames
        while frames and self.flowing and self._write is not None:
            frame = frames.popleft()
            self.bytes -= len(frame) + FRAME_COST
            if isinstance(frame, ConnectedEdges):
                self.list_waits = False
            if not self._write(frame):
                self._lose(frame)

    def _drop_oldest(self) -> None:
        frame = self._frames.popleft()
        self.bytes -= len(frame) + FRAME_COST
        if isinstance(frame, ConnectedEdges):
            self.list_waits = False
        self._lose(frame)

    def _lose(self, frame: bytes) -> None:
        if not isinstance(frame, ConnectedEdges):
            self.dropped += 1
            self.dropped_bytes += len(frame)
