"""A section ``[[timedata.sqlite]]`` as a provider."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openems.application.config.history import TimedataSqlite
from openems.backend.timedata.sqlite.provider import SqliteTimedata


def database_of(section: TimedataSqlite, state_dir: Path) -> str:
    return section.path or str(state_dir / f"{section.id}.sqlite")


def sqlite_of(
    section: TimedataSqlite, state_dir: Path, *, reactor: Any, now: Callable[[], int], stop_patience: float = 3.0
) -> SqliteTimedata:
    return SqliteTimedata(
        section.id,
        database_of(section, state_dir),
        reactor=reactor,
        now=now,
        retention_days_raw=section.retention_days_raw,
        retention_days_rollup=section.retention_days_rollup,
        stop_patience=stop_patience,
    )
