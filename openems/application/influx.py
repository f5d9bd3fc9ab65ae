"""Sections ``[[timedata.influxdb]]`` and ``[timedata.aggregatedinfluxdb]`` as providers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openems.application.config.history import TimedataAggregatedInfluxdb, TimedataInfluxdb
from openems.backend.timedata.aggregatedinflux.allowed import DEFAULT, AllowedChannels
from openems.backend.timedata.aggregatedinflux.provider import AggregatedInfluxTimedata, Live
from openems.backend.timedata.aggregatedinflux.zones import zones_of
from openems.backend.timedata.influx.period import Period
from openems.backend.timedata.influx.provider import InfluxTimedata
from openems.backend.timedata.plausibility import ChannelFilter

#: Of ``maxQueueSize``, which counts batches.
VALUES_OF_A_BATCH = 200


def _shared(section: TimedataInfluxdb | TimedataAggregatedInfluxdb) -> dict[str, Any]:
    return {
        "url": section.url,
        "org": section.org,
        "api_key": section.api_key,
        "bucket": section.bucket,
        "tag": section.tag,
        "query_language": section.query_language,
        "read_only": section.is_read_only,
        "pool_size": section.pool_size,
        "memory_values": section.max_queue_size * VALUES_OF_A_BATCH,
        "disk_bytes": section.spool_max_bytes,
    }


def _directory(section: TimedataInfluxdb | TimedataAggregatedInfluxdb, state_dir: Path) -> Path:
    return Path(section.spool_dir or state_dir / f"spool-{section.id}")


def influxdb_of(
    section: TimedataInfluxdb, state_dir: Path, *, reactor: Any, now: Callable[[], int], stop_patience: float = 3.0
) -> InfluxTimedata:
    return InfluxTimedata(
        section.id,
        _directory(section, state_dir),
        measurement=section.measurement,
        period=Period.of(section.start_date, section.end_date),
        channels=ChannelFilter(section.blacklisted_channels, section.blacklisted_channel_ids, section.allowed_channels),
        max_channels=section.max_channels,
        reactor=reactor,
        now=now,
        stop_patience=stop_patience,
        **_shared(section),
    )


def aggregatedinfluxdb_of(
    section: TimedataAggregatedInfluxdb,
    state_dir: Path,
    live: Live,
    *,
    reactor: Any,
    now: Callable[[], int],
    stop_patience: float = 3.0,
) -> AggregatedInfluxTimedata:
    """``live`` gives the latest values of an edge's channels."""
    return AggregatedInfluxTimedata(
        section.id,
        _directory(section, state_dir),
        live=live,
        retention_policy_avg=section.retention_policy_avg,
        retention_policy_max=section.retention_policy_max,
        measurement_avg=section.measurement_avg,
        measurements_max=zones_of(section.measurements_max),
        allowed=AllowedChannels(section.allowed_channels_avg or [DEFAULT], section.allowed_channels_max or [DEFAULT]),
        reactor=reactor,
        now=now,
        stop_patience=stop_patience,
        **_shared(section),
    )
