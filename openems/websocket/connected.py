"""What senders of many small texts need of a connection."""

from __future__ import annotations

from typing import Protocol

#: Bytes waiting in a connection from which on its reader is slow.
SLOW = 256 * 1024


class Connected(Protocol):
    """What is needed of :class:`openems.websocket.peer.Connection`."""

    @property
    def waiting(self) -> int: ...
    def send(self, text: bytes) -> bool: ...
