"""Times as Odoo writes them: UTC, seconds (metadata-odoo.md 8)."""

from __future__ import annotations

import datetime
from typing import Any


def odoo_time(milliseconds: int) -> str:
    """
    >>> odoo_time(1776684153000)
    '2026-04-20 11:22:33'
    """
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def milliseconds(value: Any) -> int | None:
    """Of a text (what is after the seconds does not count) or a datetime without zone; None for anything else.

    >>> milliseconds("2026-04-20 11:22:33.456789")
    1776684153000
    """
    if isinstance(value, str):
        try:
            value = datetime.datetime.strptime(value[:19].replace("T", " "), "%Y-%m-%d %H:%M:%S")
        except ValueError:
            return None
    if not isinstance(value, datetime.datetime):
        return None
    return int(value.replace(tzinfo=value.tzinfo or datetime.UTC).timestamp()) * 1000
