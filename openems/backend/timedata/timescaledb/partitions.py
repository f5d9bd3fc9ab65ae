"""Partitions of the plain tables, and what is forgotten on any kind of server.

A partition is made before the first row that needs it, and some days ahead. It is made beside the table and then
attached: readers and writers go on meanwhile.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import psycopg2

from openems.backend.timedata.timescaledb.migrations import LOCKS, PARTITIONS
from openems.backend.timedata.timescaledb.rows import DAY
from openems.postgres.pool import Pool, Transaction, Unavailable

AHEAD = 3
DAILY, MONTHLY = ("ts_num",), ("ts_txt", "ts_num_5m")
_EPOCH = datetime.date(1970, 1, 1)
#: A detached partition that could not be dropped is tried again.
_NAME = r"^(ts_num|ts_txt|ts_num_5m)_([0-9]{6}|[0-9]{8})$"


def day_of(number: int) -> datetime.date:
    return _EPOCH + datetime.timedelta(days=number)


def _month(day: datetime.date) -> tuple[datetime.date, datetime.date]:
    first = day.replace(day=1)
    return first, (first + datetime.timedelta(days=32)).replace(day=1)


def needed(days: Iterable[int]) -> dict[str, tuple[str, datetime.date, datetime.date]]:
    """Name -> table, first day, day after, of the partitions that rows of ``days`` (since the epoch) go to."""
    wanted: dict[str, tuple[str, datetime.date, datetime.date]] = {}
    for number in sorted(days):
        day = day_of(number)
        for table in DAILY:
            wanted[f"{table}_{day:%Y%m%d}"] = (table, day, day + datetime.timedelta(days=1))
        first, end = _month(day)
        for table in MONTHLY:
            wanted[f"{table}_{first:%Y%m}"] = (table, first, end)
    return wanted


class Partitions:
    """For plain tables. ``days`` known to have all partitions need no look at the database."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: set[int] = set()

    def forget(self) -> None:
        """Somebody dropped one: look again."""
        self._known.clear()

    def missing(self, days: set[int]) -> set[int]:
        return days - self._known

    async def make(self, days: set[int], *, timeout: float = 30.0) -> None:
        """Raises what the pool raises."""
        left = days - self._known
        if not left:
            return
        wanted = needed(left)

        async def work(transaction: Transaction) -> None:
            await transaction.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, PARTITIONS))
            there = await transaction.query(
                "SELECT relname FROM pg_class WHERE relname = ANY(%s)"
                " AND relnamespace = (SELECT relnamespace FROM pg_class"
                " WHERE oid = 'ts_num'::regclass)",
                (list(wanted),),
            )
            for name in {name for (name,) in there}:
                del wanted[name]
            for name, (table, first, end) in wanted.items():
                await transaction.execute(
                    f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL,"
                    f" CHECK (time >= '{first} 00:00Z' AND time < '{end} 00:00Z'));"
                    f"ALTER TABLE {table} ATTACH PARTITION {name}"
                    f" FOR VALUES FROM ('{first} 00:00Z') TO ('{end} 00:00Z')"
                )

        await self._pool.transaction(work, timeout=timeout)
        self._known |= left

    async def ahead(self, now: int) -> None:
        today = now // DAY
        await self.make({today + number for number in range(-1, AHEAD + 1)})


async def drop_plain(pool: Pool, tables: Iterable[str], before: int, *, timeout: float = 60.0) -> int:
    """Drops partitions that end at or before ``before`` (epoch ms); how many."""
    limit = day_of(before // DAY)
    rows = await pool.query(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid"
        " WHERE i.inhparent = ANY(SELECT to_regclass(t)::oid FROM unnest(%s::text[]) AS t) AND c.relname ~ %s",
        (list(tables), _NAME),
        timeout=timeout,
    )
    dropped = 0
    for (name,) in sorted(rows):
        digits = name.rpartition("_")[2]
        first = datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]) if len(digits) == 8 else 1)
        end = first + datetime.timedelta(days=1) if len(digits) == 8 else _month(first)[1]
        if end <= limit:
            # Short patience: it needs the table for itself, and nobody may queue up behind it.
            try:
                await pool.transaction(_drop(name), timeout=timeout)
                dropped += 1
            except psycopg2.errors.LockNotAvailable:
                continue
    return dropped


def _drop(name: str):  # type: ignore[no-untyped-def]
    async def work(transaction: Transaction) -> None:
        await transaction.execute("SET LOCAL lock_timeout = '2s'")
        await transaction.execute(f"DROP TABLE {name}")

    return work


async def drop_chunks(pool: Pool, tables: Iterable[str], before: int, *, timeout: float = 60.0) -> int:
    """The same for TimescaleDB's chunks."""
    dropped = 0
    for table in tables:
        rows = await pool.query(
            "SELECT count(*) FROM drop_chunks(%s::regclass, older_than => to_timestamp(%s / 1000.0))",
            (table, before),
            timeout=timeout,
        )
        dropped += rows[0][0]
    return dropped


__all__ = ["Partitions", "Unavailable", "drop_chunks", "drop_plain", "needed"]
