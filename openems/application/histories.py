"""A history of the configuration opened by its name, without a backend around it: to be copied or checked."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.threads import deferToThreadPool

from openems.application.config import BadConfiguration, Configuration
from openems.application.config.history import TimedataInfluxdb, TimedataSqlite, TimedataTimescaledb
from openems.application.influx import influxdb_of
from openems.application.sqlite import database_of, sqlite_of
from openems.application.timescaledb import timescaledb_of
from openems.backend.timedata.export import Finding
from openems.backend.timedata.sqlite import leftover
from openems.backend.timedata.sqlite.export import SqliteExport

Check = Callable[[], Any]
#: For one span of a copy.
FLUSH_SECONDS = 600.0


def now() -> int:
    return time.time_ns() // 1_000_000


class Unusable(Exception):
    """A provider does not work; the text says why."""


class Opened:
    """A provider of the configuration: itself, what reads it out (or None), and how it is checked. ``complete()``: it
    can be read out as it is, without being started; the backend may be writing it."""

    def __init__(
        self, provider: Any, export: Any, check: Check, reactor: Any, complete: Callable[[], bool] = lambda: False
    ) -> None:
        self.provider = provider
        self.export = export
        self.check = check
        self.complete = complete
        self._reactor = reactor

    async def start(self) -> None:
        """Raises :class:`Unusable`."""
        await self.provider.start()
        trouble = getattr(self.provider, "trouble", None)
        if trouble:
            await self.provider.stop()
            raise Unusable(f"{self.provider.id}: {trouble}")

    async def flush(self) -> None:
        """Raises :class:`Unusable` when the database does not take what was written."""
        done: Deferred[None] = Deferred.fromCoroutine(self.provider.flush())
        done.addTimeout(FLUSH_SECONDS, self._reactor)
        try:
            await done
        except TimeoutError:
            reason = getattr(self.provider, "trouble", None) or f"nothing is written within {FLUSH_SECONDS:.0f} s"
            raise Unusable(f"{self.provider.id}: {reason}") from None


def _sqlite(section: TimedataSqlite, configuration: Configuration, reactor: Any) -> Opened:
    provider = sqlite_of(section, Path(configuration.backend.state_dir), reactor=reactor, now=now)
    path = database_of(section, Path(configuration.backend.state_dir))
    export = SqliteExport(path)
    return Opened(provider, export, export.check, reactor, lambda: not os.path.exists(leftover.path_of(path)))


def _timescaledb(section: TimedataTimescaledb, configuration: Configuration, reactor: Any) -> Opened:
    from openems.backend.timedata.timescaledb.check import check

    state_dir = Path(configuration.backend.state_dir)
    # Not the folder of the backend, which may be running.
    section = msgspec.structs.replace(section, spool_dir=str(state_dir / f"spool-{section.id}-copy"))
    provider = timescaledb_of(section, state_dir, reactor=reactor, now=now)
    return Opened(provider, provider.export, lambda: check(provider), reactor)


def _influxdb(section: TimedataInfluxdb, configuration: Configuration, reactor: Any) -> Opened:
    state_dir = Path(configuration.backend.state_dir)
    section = msgspec.structs.replace(section, spool_dir=str(state_dir / f"spool-{section.id}-copy"))
    provider = influxdb_of(section, state_dir, reactor=reactor, now=now)

    async def check() -> list[Finding]:
        # A big library, for those who ask only.
        from openems.backend.timedata.influx.check import check as check_server

        found: list[Finding] = await deferToThreadPool(
            reactor,
            reactor.getThreadPool(),
            check_server,
            section.url,
            section.bucket,
            org=section.org,
            token=section.api_key,
            read_only=section.is_read_only,
        )
        if any(finding.level == "error" for finding in found):
            return found
        if await provider.check():
            return [*found, Finding("ok", f'bucket "{section.bucket}" can be read')]
        return [*found, Finding("error", f"{section.url}: {provider.problem}")]

    return Opened(provider, provider.export, check, reactor)


#: Field of the configuration -> how a section of it is opened.
MAKERS: dict[str, Callable[[Any, Configuration, Any], Opened]] = {
    "timedata_sqlite": _sqlite,
    "timedata_timescaledb": _timescaledb,
    "timedata_influxdb": _influxdb,
}


def opened(configuration: Configuration, name: str, reactor: Any) -> Opened:
    """The provider with that id. Raises :class:`BadConfiguration`."""
    known: list[str] = []
    for field, make in MAKERS.items():
        for section in getattr(configuration, field, None) or ():
            if section.id == name:
                return make(section, configuration, reactor)
            known.append(section.id)
    raise BadConfiguration(
        "configuration", [f'no provider "{name}" that can be used here; there are {known or "none"}']
    )
