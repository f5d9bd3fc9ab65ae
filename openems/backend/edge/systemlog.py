"""Who reads which edge's system log (edge.md 3.9, 9.7). Pure.

- The first reader's subscription goes to the edge, and so does each further one; an unsubscription only with the last.
- A reader that is gone is forgotten at once.
- After an edge came back it is subscribed again while it has readers.
- A line that nobody reads makes one unsubscription go to the edge, not one a line: an edge that answers and goes on
  sending is told again after :data:`STRAY_INTERVAL` only.
"""

from __future__ import annotations

import datetime

from openems.common.errors import generic
from openems.common.jsonrpc import Members, Notification, dumps, raw

#: Seconds between two unsubscriptions caused by lines that nobody reads.
STRAY_INTERVAL = 10.0
LEVELS = frozenset({"INFO", "WARN", "ERROR"})


class SystemLogSubscriptions:
    def __init__(self) -> None:
        self._readers: dict[str, dict[str, None]] = {}
        #: Edge -> when a stray line made us tell it.
        self._told: dict[str, float] = {}

    def subscribe(self, edge_id: str, session_id: str) -> None:
        self._readers.setdefault(edge_id, {})[session_id] = None
        self._told.pop(edge_id, None)

    def unsubscribe(self, edge_id: str, session_id: str) -> bool:
        """True if nobody is left, so that the edge has to be told."""
        readers = self._readers.get(edge_id)
        if readers is not None:
            readers.pop(session_id, None)
            if readers:
                return False
            del self._readers[edge_id]
        return True

    def forget(self, session_id: str) -> list[str]:
        """The session ended; the edges that have nobody left through it."""
        left = []
        for edge_id, readers in tuple(self._readers.items()):
            if session_id in readers and self.unsubscribe(edge_id, session_id):
                left.append(edge_id)
        return left

    def readers(self, edge_id: str) -> tuple[str, ...]:
        return tuple(self._readers.get(edge_id, ()))

    def stray_line(self, edge_id: str, now: float) -> bool:
        """A line arrived that nobody reads, at ``now`` seconds: True if the edge is to be told."""
        last = self._told.get(edge_id)
        if last is not None and now - last < STRAY_INTERVAL:
            return False
        self._told[edge_id] = now
        return True

    def disconnected(self, edge_id: str) -> None:
        """The edge is gone: when it is back, a stray line tells it at once."""
        self._told.pop(edge_id, None)

    def __len__(self) -> int:
        return len(self._readers)


def printed_line(notification: Notification) -> Notification:
    """The line as UIs want it: level in upper case, exactly three fraction digits (ui.md 15.9).

    Raises an error that names what is wrong; the line is dropped then.
    """
    line = Members(notification.members().object("line"))
    level = line.string("level").upper()
    if level not in LEVELS:
        raise generic(f"No such level of a system log line: {level[:20]}")
    text = line.string("time")
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise generic(f"Unable to parse the time of a system log line: {text[:40]}") from None
    if time.tzinfo is None:
        raise generic(f"The time of a system log line has no offset: {text[:40]}")
    printed = {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": level,
        "source": line.string("source"),
        "message": line.string("message"),
    }
    return Notification("systemLog", raw({"line": printed}))


def subscribe_params(subscribe: bool) -> bytes:
    return dumps({"subscribe": subscribe})
