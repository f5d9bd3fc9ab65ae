"""The tables of the history: numbered SQL files, each applied once, in one transaction, by one process at a time."""

from __future__ import annotations

import re
from importlib import resources

import msgspec
import psycopg2

from openems.postgres.pool import Pool, Transaction

#: Advisory locks: (LOCKS, which). WRITE is shared by writers; who has it alone sees everything that was written.
LOCKS = 0x4F454D53
MIGRATE, WRITE, ROLL, PARTITIONS = 1, 2, 3, 4

PLAIN, APACHE, TSL = "plain", "apache", "tsl"
_FILE = re.compile(r"(?P<number>[0-9]{4})_[a-z0-9_]+(\.(?P<kind>plain|hypertable))?\.sql\Z")
_CREATED = (
    "CREATE TABLE IF NOT EXISTS ts_schema"
    " (version int PRIMARY KEY, flavour text NOT NULL, created timestamptz NOT NULL DEFAULT now())"
)


class Schema(msgspec.Struct, frozen=True):
    """``flavour`` of the server now; ``hypertables``: the tables are TimescaleDB's, else partitions of our own."""

    version: int
    flavour: str
    hypertables: bool
    server: str = ""


class SchemaTrouble(Exception):
    """The tables are not there, or made by a newer program: a sentence for the operator."""


def files(kind: str) -> dict[int, str]:
    """Number -> SQL, for ``plain`` or ``hypertable``."""
    found: dict[int, str] = {}
    for entry in resources.files(__package__).joinpath("schema").iterdir():
        match = _FILE.match(entry.name)
        if match is not None and match["kind"] in (None, kind):
            found[int(match["number"])] = entry.read_text()
    return dict(sorted(found.items()))


async def flavour(pool: Pool, *, timeout: float = 10.0) -> str:
    """What the server is (timedata-timescaledb.md 21)."""
    [(licence, installed)] = await pool.query(
        "SELECT current_setting('timescaledb.license', true), (SELECT extversion FROM pg_extension"
        " WHERE extname = 'timescaledb')",
        timeout=timeout,
        repeatable=True,
    )
    if installed is None:
        return PLAIN
    return APACHE if licence == "apache" else TSL


async def known(pool: Pool, schema: str = "public", *, timeout: float = 10.0) -> Schema | None:
    """What is there already; None for a database without history. Raises :class:`SchemaTrouble` where the sessions do
    not see the schema, which then would be another."""
    [(current, exists, server)] = await pool.query(
        "SELECT current_schema(), to_regclass(format('%I.ts_schema', current_schema())) IS NOT NULL,"
        " current_setting('server_version')",
        timeout=timeout,
        repeatable=True,
    )
    if current != schema:
        user = pool.server.user
        raise SchemaTrouble(
            f'{user} sees no schema "{schema}": CREATE SCHEMA {schema} AUTHORIZATION {user},'
            f" or GRANT USAGE ON SCHEMA {schema} TO {user}"
        )
    if not exists:
        return None
    rows = await pool.query("SELECT version, flavour FROM ts_schema ORDER BY version", timeout=timeout, repeatable=True)
    if not rows:
        return None
    made = rows[0][1]
    return Schema(rows[-1][0], await flavour(pool, timeout=timeout), made != PLAIN, server)


async def migrate(pool: Pool, wanted: str = "auto", schema: str = "public", *, timeout: float = 120.0) -> Schema:
    """Brings the tables to what this program needs. ``wanted``: auto, or a flavour to use instead of the best.

    Raises :class:`SchemaTrouble`, and what the pool raises.
    """
    newest = max(files("plain"))
    there = await known(pool, schema)
    if there is not None:
        _check(there, newest)
        if there.version == newest:
            return there

    async def work(transaction: Transaction) -> None:
        await transaction.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, MIGRATE))
        await transaction.execute(_CREATED)
        rows = await transaction.query("SELECT version, flavour FROM ts_schema ORDER BY version")
        version = rows[-1][0] if rows else 0
        made = rows[0][1] if rows else (found if wanted == "auto" else wanted)
        if (made == TSL and found == APACHE) or (made != PLAIN and found == PLAIN):
            raise SchemaTrouble(f"flavour {made} is asked for, but the server is {found}")
        for number, text in files("plain" if made == PLAIN else "hypertable").items():
            if number > version:
                await transaction.execute(text)
                await transaction.execute("INSERT INTO ts_schema VALUES (%s, %s)", (number, made))

    found = await flavour(pool)
    await pool.transaction(work, timeout=timeout)
    there = await known(pool, schema)
    if there is None:
        raise SchemaTrouble("the tables are not where they were made: is search_path changed for this user?")
    _check(there, newest)
    return there


def _check(there: Schema, newest: int) -> None:
    if there.version > newest:
        raise SchemaTrouble(f"the tables have version {there.version}, this program knows {newest}: it is too old")
    if there.hypertables and there.flavour == PLAIN:
        raise SchemaTrouble("the tables are TimescaleDB's, but its extension is gone")


async def require(pool: Pool, schema: str = "public") -> Schema:
    """The tables as they are, for a reader that may not make them. Raises :class:`SchemaTrouble`."""
    there = await known(pool, schema)
    if there is None:
        raise SchemaTrouble("there is no history in this database yet, and isReadOnly forbids to begin one")
    _check(there, max(files("plain")))
    return there


def sentence(error: psycopg2.Error, pool: Pool, schema: str) -> str:
    """What the operator can do about an error of the server; no statement text, no secret."""
    server = pool.server
    text = server.reason(error).removeprefix("ERROR: ").rstrip(".")
    if error.pgcode == "42501":
        return (
            f"{text}. For a backend that writes: GRANT CREATE, USAGE ON SCHEMA {schema} TO {server.user}"
            f" (or make {server.user} the owner of database {server.database});"
            f" for one that reads: GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {server.user}, and isReadOnly"
        )
    if error.pgcode == "25006":
        return f"{text}. The server or the user is read-only (a standby?): set isReadOnly, or name the primary server"
    if error.pgcode == "3F000":
        return f"{text}. CREATE SCHEMA {schema} AUTHORIZATION {server.user}"
    if error.pgcode in ("53100", "53200"):
        return f"{text}. The server has no room left"
    return text
