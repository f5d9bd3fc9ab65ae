"""What a user needs to know before trusting a database, each with a hint."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import psycopg2

from openems.backend.timedata.export import Finding
from openems.backend.timedata.timescaledb import migrations
from openems.backend.timedata.timescaledb.javatables import JavaTables
from openems.postgres.pool import Pool, Unavailable

if TYPE_CHECKING:
    from openems.backend.timedata.timescaledb.provider import TimescaledbTimedata

#: Buckets that wait for the roll-up; more than an hour of all edges is a sign that nobody works.
OLD_NOTES_MS = 3_600_000
_TABLES = ("ts_edge", "ts_channel", "ts_series", "ts_num", "ts_txt", "ts_num_5m", "ts_dirty", "ts_rolling", "ts_state")


async def check(provider: TimescaledbTimedata) -> list[Finding]:
    """Never raises for what the server says."""
    pool = provider.pool
    await pool.start()
    try:
        return [finding async for finding in _findings(provider, pool)]
    except (Unavailable, psycopg2.Error) as error:
        text = str(error) if isinstance(error, Unavailable) else migrations.sentence(error, pool, provider.schema)
        return [Finding("error", text, "")]


async def _findings(provider: TimescaledbTimedata, pool: Pool) -> AsyncIterator[Finding]:
    if pool.down is not None:
        yield Finding("error", f"{pool.server}: {pool.down}", unreachable(pool.down, pool.server.host))
        return
    [(version, number, encrypted, standby)] = await pool.query(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int,"
        " (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), pg_is_in_recovery()"
    )
    yield Finding("ok", f"{pool.server}: PostgreSQL {version}{', encrypted' if encrypted else ''}")
    if number < 150_000:
        yield Finding("warning", f"PostgreSQL {version} is older than what is tested", "15 or later")
    if standby and not provider.read_only:
        yield Finding("error", "the server is a standby and takes no writes", "name the primary, or set isReadOnly")
    local = pool.server.host in ("localhost", "127.0.0.1", "::1") or pool.server.host.startswith("/")
    if not encrypted and not local:
        yield Finding("warning", "the connection is not encrypted", 'sslmode = "verify-full" and a certificate there')
    flavour = await migrations.flavour(pool)
    yield Finding(
        "ok", {"plain": "no TimescaleDB", "apache": "TimescaleDB, Apache licence"}.get(flavour, "TimescaleDB")
    )
    async for finding in _rights(provider, pool):
        yield finding
    try:
        there = await migrations.known(pool, provider.schema)
    except migrations.SchemaTrouble:
        return  # told among the rights
    if there is None:
        hint = "another backend must write it" if provider.read_only else "they are made when the backend starts"
        yield Finding("error" if provider.read_only else "warning", "there are no tables yet", hint)
    else:
        newest = max(migrations.files("plain"))
        if there.version > newest:
            yield Finding("error", f"tables of version {there.version}, this program knows {newest}", "update it")
        elif there.version < newest:
            yield Finding("warning", f"tables of version {there.version} of {newest}", "the next start brings them up")
        else:
            yield Finding("ok", f"tables of version {there.version}")
        if flavour != migrations.PLAIN and not there.hypertables:
            yield Finding(
                "warning",
                "the tables are plain although the server has TimescaleDB now",
                "copy them to a new database to use it; plain ones work as well",
            )
        async for finding in _content(provider, pool):
            yield finding
    if await JavaTables(pool).exist():
        yield Finding(
            "warning",
            "tables of OpenEMS' own TimescaleDB module are there; this backend does not read them",
            "openems-backend timedata copy --java-tables copies them",
        )


async def _rights(provider: TimescaledbTimedata, pool: Pool) -> AsyncIterator[Finding]:
    schema, user = provider.schema, pool.server.user
    rows = await pool.query(
        "SELECT has_schema_privilege(n.oid, 'USAGE'), has_schema_privilege(n.oid, 'CREATE') FROM pg_namespace n"
        " WHERE n.nspname = %s",
        (schema,),
    )
    if not rows:
        yield Finding("error", f'there is no schema "{schema}"', f"CREATE SCHEMA {schema} AUTHORIZATION {user}")
        return
    if not rows[0][0]:
        yield Finding("error", f'no right to use schema "{schema}"', f"GRANT USAGE ON SCHEMA {schema} TO {user}")
    if not rows[0][1] and not provider.read_only:
        yield Finding("error", f'no right to create in "{schema}"', f"GRANT CREATE ON SCHEMA {schema} TO {user}")
    wanted = "SELECT" if provider.read_only else "SELECT, INSERT, UPDATE, DELETE"
    missing = await pool.query(
        "SELECT t FROM unnest(%s::text[]) AS t WHERE to_regclass(t) IS NOT NULL AND NOT ("
        "SELECT bool_and(has_table_privilege(to_regclass(t), p)) FROM unnest(%s::text[]) AS p)",
        (list(_TABLES), wanted.split(", ")),
    )
    if missing:
        names = ", ".join(name for (name,) in missing)
        yield Finding("error", f"missing rights on {names}", f"GRANT {wanted} ON {names} TO {user}")
    elif rows[0][0] and (rows[0][1] or provider.read_only):
        yield Finding("ok", f"{user} may {'read' if provider.read_only else 'read and write'}")


async def _content(provider: TimescaledbTimedata, pool: Pool) -> AsyncIterator[Finding]:
    [(edges, series, mixed)] = await pool.query(
        "SELECT (SELECT count(*) FROM ts_edge), (SELECT count(*) FROM ts_series), (SELECT count(*) FROM ts_series s"
        " WHERE txt AND EXISTS (SELECT 1 FROM ts_num_5m WHERE series_id = s.id))",
        timeout=60,
    )
    [(size,)] = await pool.query("SELECT pg_database_size(current_database())")
    yield Finding("ok", f"{edges} edges, {series} channels, {size:,} bytes in this database")
    if mixed:
        yield Finding("warning", f"{mixed} channels have numbers and texts", "both are kept; InfluxDB refuses one")
    if not provider.raw_days and not provider.read_only:
        yield Finding("warning", "values are kept as they came for ever", "set rawRetentionDays")
    [(oldest,)] = await pool.query(
        "SELECT date_part('epoch', least((SELECT min(bucket) FROM ts_dirty), (SELECT min(bucket) FROM ts_rolling)))"
    )
    [(notes,)] = await pool.query("SELECT (SELECT count(*) FROM ts_dirty) + (SELECT count(*) FROM ts_rolling)")
    if oldest is not None and time.time() * 1000 - oldest * 1000 > OLD_NOTES_MS:
        yield Finding(
            "warning",
            f"{notes} five-minute values of edges wait to be made, the oldest for hours",
            "is a backend with the right to write running?",
        )


def unreachable(reason: str, host: str) -> str:
    """What to try, by what libpq says."""
    text = reason.lower()
    if "password authentication failed" in text or "no password supplied" in text:
        return "check user and password; ALTER ROLE .. PASSWORD sets a new one"
    if "does not exist" in text:
        return "CREATE DATABASE and CREATE ROLE make what is missing"
    if "pg_hba.conf" in text:
        return "the server's pg_hba.conf must admit this user from this address"
    if "refused" in text or "no such file" in text:
        local = host in ("localhost", "127.0.0.1", "::1")
        inside = "; inside a container localhost is the container itself" if local else ""
        return f"is the server running, and does it listen on this address?{inside}"
    if "no address" in text:
        return "check host"
    if "ssl" in text or "certificate" in text:
        return "check sslmode and sslrootcert"
    return "is there a firewall in between?"
