"""Measurements of the daily readings by time zone: ``measurementsMax`` (timedata.md 9.1)."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from zoneinfo import ZoneInfo


def zones_of(texts: Iterable[str]) -> dict[datetime.tzinfo, str]:
    """``<zone id>=<measurement>`` each. Raises ValueError.

    >>> zones_of(["Europe/Berlin=max"])
    {zoneinfo.ZoneInfo(key='Europe/Berlin'): 'max'}
    """
    zones: dict[datetime.tzinfo, str] = {}
    for text in texts:
        zone, _, measurement = text.partition("=")
        if not measurement.strip():
            raise ValueError(f'"{text}" is not <time zone>=<measurement>')
        try:
            zones[ZoneInfo(zone.strip())] = measurement.strip()
        except (OSError, ValueError, LookupError):
            raise ValueError(f'there is no time zone "{zone}"') from None
    return zones
