"""Instants as text (wire.md 4.11)."""

from __future__ import annotations

import datetime


def instant(milliseconds: int) -> str:
    """Epoch milliseconds as ISO text in UTC; a fraction only where needed.

    >>> instant(1775000000120)
    '2026-03-31T23:33:20.120Z'
    """
    time = datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)
    return time.isoformat(timespec="milliseconds" if milliseconds % 1000 else "seconds").replace("+00:00", "Z")
