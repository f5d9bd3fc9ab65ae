"""Builds the providers of history of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openems.application.config import Configuration
from openems.application.influx import aggregatedinfluxdb_of, influxdb_of
from openems.application.sqlite import sqlite_of
from openems.application.timescaledb import timescaledb_of
from openems.backend.timedata.aggregatedinflux.provider import Live
from openems.backend.timedata.dummy import DummyTimedata


def history_of(
    configuration: Configuration,
    state_dir: Path,
    live: Live,
    *,
    reactor: Any,
    now: Callable[[], int],
    stop_patience: float,
) -> list[Any]:
    """In the order in which they are asked where ``[core.timedatamanager]`` says none. ``live`` gives the latest
    values of an edge's channels."""
    options: dict[str, Any] = {"reactor": reactor, "now": now, "stop_patience": stop_patience}
    found: list[Any] = [sqlite_of(section, state_dir, **options) for section in configuration.timedata_sqlite]
    found += [timescaledb_of(section, state_dir, **options) for section in configuration.timedata_timescaledb]
    found += [influxdb_of(section, state_dir, **options) for section in configuration.timedata_influxdb]
    aggregated = configuration.timedata_aggregatedinfluxdb
    if aggregated is not None:
        found.append(aggregatedinfluxdb_of(aggregated, state_dir, live, **options))
    found += [DummyTimedata(section.id) for section in configuration.timedata_dummy]
    return found
