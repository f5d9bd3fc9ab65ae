"""Providers of history."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from openems.application.config.section import Port, Section, Text


class TimedataSqlite(Section, frozen=True):
    """History in an SQLite database of the backend's own: needs no service."""

    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"
    path: Annotated[Text | None, Meta(description="The database; absent: `<id>.sqlite` in the state directory.")] = None
    retention_days_raw: Annotated[int, Meta(ge=1, le=36500, description="Days that values are kept as they came.")] = 31
    retention_days_rollup: Annotated[
        int, Meta(ge=1, le=36500, description="Days that 5-minute values are kept; at least `retentionDaysRaw`.")
    ] = 3660


class TimedataTimescaledb(Section, frozen=True):
    """History in PostgreSQL 15 or later, with TimescaleDB where the server has it (component `Timedata.TimescaleDB`).
    Needs `openems-backend[postgres]`. Tables are made by the backend. What the server does not take waits on disk."""

    user: Annotated[Text, Meta(description="Whoever may create tables in the schema; see isReadOnly.")]
    database: Annotated[Text, Meta(description="The database; it must exist.")]
    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"
    host: Annotated[Text, Meta(description="The server, or the folder of its Unix socket.")] = "localhost"
    port: Annotated[Port, Meta(description="Its port.")] = 5432
    password: Annotated[str, Meta(description="Its password.")] = ""
    schema: Annotated[
        str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]{0,62}$", description="The schema of the tables; it must exist.")
    ] = "public"
    is_read_only: Annotated[
        bool, Meta(description="Only ask; another backend writes. The user needs no more than SELECT.")
    ] = False
    pool_size: Annotated[int, Meta(ge=1, le=100, description="Most sessions for questions.")] = 10
    write_pool_size: Annotated[
        int, Meta(ge=1, le=20, description="Batches written at once; two sessions more are for maintenance.")
    ] = 2
    flavour: Annotated[
        Literal["auto", "tsl", "apache", "plain"],
        Meta(description="Tables to begin with; auto: the best the server has. Later it is what it was made as."),
    ] = "auto"
    sslmode: Annotated[
        Literal["", "disable", "allow", "prefer", "require", "verify-ca", "verify-full"],
        Meta(description="TLS as libpq knows it; empty: libpq's default, prefer."),
    ] = ""
    sslrootcert: Annotated[str, Meta(description="File of authorities to trust; empty: libpq's default.")] = ""
    statement_timeout: Annotated[float, Meta(ge=1, le=600, description="Seconds for a question, waiting included.")] = (
        30.0
    )
    batch_rows: Annotated[int, Meta(ge=100, le=50000, description="Values written at once.")] = 5000
    batch_delay: Annotated[float, Meta(ge=0, le=60, description="Seconds that a smaller batch waits for more.")] = 0.5
    max_buffered_rows: Annotated[int, Meta(ge=10000, le=50000000, description="Values that wait in memory.")] = (
        1_000_000
    )
    spool_dir: Annotated[
        Text | None,
        Meta(description="Folder of what waits for the server; absent: `spool-<id>` in the state directory."),
    ] = None
    spool_max_bytes: Annotated[int, Meta(ge=1 << 20, description="Most bytes there.")] = 1 << 30
    raw_retention_days: Annotated[
        int, Meta(ge=0, le=36500, description="Days that values are kept as they came; 0: for ever.")
    ] = 0
    rollup_retention_days: Annotated[
        int, Meta(ge=0, le=36500, description="Days that 5-minute values and texts are kept; 0: for ever.")
    ] = 0
    lookback_days: Annotated[int, Meta(ge=1, le=36500, description="Older values are refused.")] = 3660
    max_channels: Annotated[int, Meta(ge=1, le=1000000, description="Channels of one edge.")] = 10_000
    edges: Annotated[list[Text], Meta(description="Only these are written; empty: all.")] = []
    allowed_channels: Annotated[
        list[Text], Meta(description="Only channels like these are written, one `*` in each part; empty: all.")
    ] = []
    denied_channels: Annotated[list[Text], Meta(description="Channels like these are not written.")] = []


class _InfluxServer(Section, frozen=True):
    url: Annotated[str, Meta(pattern="^https?://[^/]+", description="The server, `http://host:8086`.")]
    bucket: Annotated[Text, Meta(description="Bucket; of InfluxDB 1 the database.")]
    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"
    query_language: Annotated[
        Literal["INFLUX_QL", "FLUX"],
        Meta(description="How it is asked; the answers are the same. FLUX is for InfluxDB 2 only."),
    ] = "INFLUX_QL"
    org: Annotated[Text, Meta(description="Organisation; `-` for InfluxDB 1.")] = "-"
    api_key: Annotated[
        str, Meta(description="Token that may read and write the bucket; `user:password` for InfluxDB 1.")
    ] = ""
    tag: Annotated[Text, Meta(description="Tag with the number of the edge.")] = "edge"
    is_read_only: Annotated[bool, Meta(description="Only ask; another backend writes.")] = False
    pool_size: Annotated[
        int, Meta(ge=1, le=100, description="Exchanges at once: so many questions, and apart from them up to 4 writes.")
    ] = 10
    max_queue_size: Annotated[
        int, Meta(ge=1, le=250_000, description="What waits in memory, in units of 200 values; more waits on disk.")
    ] = 5000
    spool_dir: Annotated[
        Text | None,
        Meta(description="Folder of what waits for the server; absent: `spool-<id>` in the state directory."),
    ] = None
    spool_max_bytes: Annotated[int, Meta(ge=1 << 20, description="Most bytes there.")] = 1 << 30


class TimedataInfluxdb(_InfluxServer, frozen=True):
    """History in InfluxDB 1 or 2, in the layout of OpenEMS (component `Timedata.InfluxDB`): what is there is read and
    continued. What the server does not take waits on disk."""

    bucket: Annotated[Text, Meta(description="Bucket; of InfluxDB 1 `database` or `database/retentionPolicy`.")]
    measurement: Annotated[Text, Meta(description="Measurement that has the values.")] = "data"
    start_date: Annotated[
        str | None, Meta(description="First day, `YYYY-MM-DD` (UTC), that this provider has and takes.")
    ] = None
    end_date: Annotated[str | None, Meta(description="Last day that this provider has and takes.")] = None
    blacklisted_channels: Annotated[
        list[Text], Meta(description="Channels that are not written, one `*` in each part.")
    ] = []
    blacklisted_channel_ids: Annotated[
        list[Text], Meta(description="Channel ids that are not written, whatever their component.")
    ] = []
    allowed_channels: Annotated[
        list[Text], Meta(description="Only channels like these are written, one `*` in each part; empty: all.")
    ] = []
    max_channels: Annotated[int, Meta(ge=1, le=1000000, description="Channels of one edge.")] = 10_000


class TimedataAggregatedInfluxdb(_InfluxServer, frozen=True):
    """A small, fast history: averages of five minutes and a counter reading a day (component
    `Timedata.AggregatedInfluxDB`). Name it first in `core.timedatamanager` `ids`: the rest is asked of the next one."""

    bucket: Annotated[Text, Meta(description="Bucket without policy; there must be `<bucket>/<policy>` for both.")]
    retention_policy_avg: Annotated[Text, Meta(description="Retention policy of the averages.")] = "rp_avg"
    retention_policy_max: Annotated[Text, Meta(description="Retention policy of the readings.")] = "rp_max"
    measurement_avg: Annotated[Text, Meta(description="Measurement of the averages.")] = "avg"
    measurements_max: Annotated[
        list[Text], Meta(min_length=1, description="Measurements of the readings, `<time zone>=<measurement>`.")
    ] = msgspec.field(default_factory=lambda: ["Europe/Berlin=max"])
    allowed_channels_avg: Annotated[
        list[Text],
        Meta(
            description="Channels with averages, `meter{0..19}/ActivePower` for twenty; ending in `=double` kept with"
            " decimals. `default` stands for the list of OpenEMS, which an empty one means."
        ),
    ] = []
    allowed_channels_max: Annotated[list[Text], Meta(description="Channels with a reading a day, likewise.")] = []


class TimedataDummy(Section, frozen=True):
    """Keeps nothing and answers nothing (component `Timedata.Dummy`)."""

    id: Annotated[Text, Meta(description="The provider's id, unique.")] = "timedata0"
