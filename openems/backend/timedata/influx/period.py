"""The days that a provider is for: ``startDate`` and ``endDate`` (timedata.md 5.6)."""

from __future__ import annotations

import datetime

import msgspec

from openems.common.resolution import DAY, UTC, milliseconds


class Period(msgspec.Struct, frozen=True):
    """What this provider is for: ``begin <= time < end``, epoch ms; None: without bound."""

    begin: int | None = None
    end: int | None = None

    @classmethod
    def of(cls, start_date: str | None, end_date: str | None) -> Period:
        """Days ``YYYY-MM-DD`` in UTC, the last one included (timedata.md 5.6). Raises ValueError."""
        return cls(_day(start_date), None if not end_date else (_day(end_date) or 0) + DAY)

    def __contains__(self, time: int) -> bool:
        return (self.begin is None or self.begin <= time) and (self.end is None or time < self.end)


def _day(text: str | None) -> int | None:
    if not text or not text.strip():
        return None
    date = datetime.date.fromisoformat(text.strip())
    return milliseconds(datetime.datetime(date.year, date.month, date.day, tzinfo=UTC))
