"""Lines about what peers do wrong, at a bounded rate."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from openems.common.errors import printable

#: Seconds between two lines of the same kind.
INTERVAL = 10.0


class Complaints:
    """``kind`` is one of a fixed few: nothing here grows with what peers send. ``seconds`` is the reactor's clock."""

    _log = Logger()

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._told: dict[str, tuple[float, int]] = {}

    def complain(self, kind: str, text: str) -> None:
        """One line; at most one in ten seconds of a kind, with the number of those left out."""
        now = self._seconds()
        last, left_out = self._told.get(kind, (now - INTERVAL, 0))
        if now - last < INTERVAL:
            self._told[kind] = (last, left_out + 1)
            return
        self._told[kind] = (now, 0)
        more = f" ({left_out} more of this kind)" if left_out else ""
        self._log.warn("[{kind}] {text}{more}", kind=kind, text=printable(text), more=more)
