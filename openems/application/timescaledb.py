"""A section ``[[timedata.timescaledb]]`` as a provider. The driver is looked for only where there is such a section."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openems.application import drivers
from openems.application.config.history import TimedataTimescaledb
from openems.backend.timedata.plausibility import ChannelFilter

if TYPE_CHECKING:
    from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata


def timescaledb_of(
    section: TimedataTimescaledb, state_dir: Path, *, reactor: Any, now: Callable[[], int], stop_patience: float = 3.0
) -> TimescaledbTimedata:
    """Raises :class:`openems.application.config.BadConfiguration` where the PostgreSQL driver is not installed."""
    try:
        from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata
    except ImportError as error:
        raise drivers.refusal("[[timedata.timescaledb]]", error) from None
    options: dict[str, str] = {"sslmode": section.sslmode} if section.sslmode else {}
    if section.sslrootcert:
        options["sslrootcert"] = section.sslrootcert
    return TimescaledbTimedata(
        section.id,
        Path(section.spool_dir or state_dir / f"spool-{section.id}"),
        host=section.host,
        port=section.port,
        user=section.user,
        password=section.password,
        database=section.database,
        schema=section.schema,
        is_read_only=section.is_read_only,
        pool_size=section.pool_size,
        write_pool_size=section.write_pool_size,
        options=options,
        flavour=section.flavour,
        statement_timeout=section.statement_timeout,
        batch_rows=section.batch_rows,
        batch_delay=section.batch_delay,
        max_buffered_rows=section.max_buffered_rows,
        spool_max_bytes=section.spool_max_bytes,
        raw_retention_days=section.raw_retention_days,
        rollup_retention_days=section.rollup_retention_days,
        lookback_days=section.lookback_days,
        max_channels=section.max_channels,
        edges=section.edges,
        channels=ChannelFilter(section.denied_channels, allowed=section.allowed_channels, strict=False),
        reactor=reactor,
        now=now,
        stop_patience=stop_patience,
    )
